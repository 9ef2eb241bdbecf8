"""How good samples are for how many evaluations: solvers, steps and guidance intervals, on pairs of a data set.

python benchmarks/solvers.py --data=DIR --net=vivid-tiny-base --gnet=vivid-tiny-uncond --guidance=1.5

The first row is the published sampler, and `to first` the PSNR to what it draws from the same noise: how well a
solver solves. `psnr` is to the true view, `fd` the Frechet distance of EfficientNet features; of few images it is
large, and tells rows apart all the same. Other options (`--sigma_max`, `--sr-model`, `--split` ...) hold for all rows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.realestate10k import RealEstate10K
from dnnlib.cli import Command, option
from dnnlib.sampling_options import DATA, data_options, network_options, solver_options
from metrics import compute_metrics
from presets import SAMPLING
from torch_utils.distributed import best_device
from training.generation import GeneratedBatches, open_sampler
from training.guidance import EVERYWHERE

_INTERVAL = (0.1, 10.0)
_ROWS = [
    ("heun", 32, EVERYWHERE),
    ("heun", 32, _INTERVAL),
    ("heun", 16, EVERYWHERE),
    ("heun", 8, EVERYWHERE),
    ("dpmpp_2m", 32, EVERYWHERE),
    ("dpmpp_2m", 16, EVERYWHERE),
    ("dpmpp_2m", 16, _INTERVAL),
    ("dpmpp_2m", 12, _INTERVAL),
    ("dpmpp_2m", 8, _INTERVAL),
    ("euler", 32, EVERYWHERE),
    ("euler", 16, EVERYWHERE),
]


@click.command(cls=Command)
@network_options(SAMPLING)
@data_options()
@solver_options()
@option("--num", section=DATA, type=int, default=256, help="Pairs.")
@option("--batch", section=DATA, type=int, default=32, help="Images at once.")
def main(num: int, batch: int, **options: Any) -> None:
    """Print the table; `--solver`, `--steps` and `--guidance-interval` are the rows' own."""
    sampler, _ = open_sampler({**options, "guidance_interval": None}, best_device())
    pairs = RealEstate10K(options["data"], options["split"], options["range_selection"], resolution=None)
    seeds, first = range(num), None
    click.echo(
        f"{'solver':9} {'steps':>5} {'guidance at':>11} {'evaluations':>11} {'psnr':>6} {'fd':>6} {'to first':>8}"
    )
    for solver, steps, interval in _ROWS:
        if interval != EVERYWHERE and sampler.guidance == 1:
            continue
        how = {**sampler.sampler_kwargs, "solver": solver, "num_steps": steps}
        row = replace(sampler, sampler_kwargs=how, guidance_interval=interval)
        batches = list(GeneratedBatches(row, pairs, seeds, batch))
        images = torch.cat([made.images for made in batches])
        targets = torch.stack([pair.target.image for made in batches for pair in made.pairs])
        found = compute_metrics(images, targets, metrics=("psnr", "fd_efficientnet"), allow_few=True)
        first = images if first is None else first
        agreement = compute_metrics(images, first, metrics=("psnr",))["psnr"] if images is not first else float("inf")
        where = "everywhere" if interval == EVERYWHERE else f"{interval[0]:g} - {interval[1]:g}"
        click.echo(
            f"{solver:9} {steps:5} {where if sampler.guidance != 1 else '-':>11} {sum(row.evaluations.values()):11} "
            f"{found['psnr']:6.2f} {found['fd_efficientnet']:6.2f} {agreement:8.2f}"
        )


if __name__ == "__main__":
    main()
