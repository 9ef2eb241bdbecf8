"""How good samples are for how many evaluations: solvers, steps and guidance intervals, on pairs of a data set.

python -m benchmarks.solvers --data=DIR --net=vivid-tiny-base --gnet=vivid-tiny-uncond --guidance=1.5

The first row is the published sampler, and `to first` the PSNR to what it draws from the same noise: how well a
solver solves. `psnr` is to the true view, `fd` the Frechet distance of EfficientNet features; of few images it is
large, and tells rows apart all the same. Other options (`--sigma_max`, `--sr-model`, `--split` ...) hold for all rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import torch

from benchmarks.options import sampling_options
from datasets.config import DATA, DataConfig, open_pairs
from dnnlib.cli import Command, option
from metrics import compute_metrics
from torch_utils.distributed import best_device
from training.generation import GeneratedBatches, open_sampler
from training.sampling_config import NetworkFiles, SamplingConfig

_INTERVAL = (0.1, 10.0)
_ROWS = [
    ("heun", 32, None),
    ("heun", 32, _INTERVAL),
    ("heun", 16, None),
    ("heun", 8, None),
    ("dpmpp_2m", 32, None),
    ("dpmpp_2m", 16, None),
    ("dpmpp_2m", 16, _INTERVAL),
    ("dpmpp_2m", 12, _INTERVAL),
    ("dpmpp_2m", 8, _INTERVAL),
    ("euler", 32, None),
    ("euler", 16, None),
]


@click.command(cls=Command)
@sampling_options
@option("--num", section=DATA, type=int, default=256, help="Pairs.")
@option("--batch", section=DATA, type=int, default=32, help="Images at once.")
def main(num: int, batch: int, **options: Any) -> None:
    """Print the table; `--solver`, `--steps` and `--guidance-interval` are the rows' own."""
    sampling = SamplingConfig.of(options, guidance_interval=None)
    sampler, _ = open_sampler(NetworkFiles.of(options), sampling, best_device())
    pairs = open_pairs(DataConfig.of(options))
    seeds, first = range(num), None
    click.echo(
        f"{'solver':9} {'steps':>5} {'guidance at':>11} {'evaluations':>11} {'psnr':>6} {'fd':>6} {'to first':>8}"
    )
    for solver, steps, interval in _ROWS:
        if interval and sampling.guidance == 1:
            continue
        config = replace(sampler.config, solver=solver, num_steps=steps, guidance_interval=interval)
        row = replace(sampler, config=config)
        batches = list(GeneratedBatches(row, pairs, seeds, batch))
        images = torch.cat([made.images for made in batches])
        targets = torch.stack([pair.target.image for made in batches for pair in made.pairs])
        found = compute_metrics(images, targets, metrics=("psnr", "fd_efficientnet"), allow_few=True)
        first = images if first is None else first
        agreement = compute_metrics(images, first, metrics=("psnr",))["psnr"] if images is not first else float("inf")
        where = "everywhere" if interval is None else f"{interval[0]:g} - {interval[1]:g}"
        click.echo(
            f"{solver:9} {steps:5} {where if sampling.guidance != 1 else '-':>11} {sum(row.evaluations.values()):11} "
            f"{found['psnr']:6.2f} {found['fd_efficientnet']:6.2f} {agreement:8.2f}"
        )


if __name__ == "__main__":
    main()
