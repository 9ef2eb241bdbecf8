"""Sharp or safe: PSNR against LPIPS over the noise level at which sampling stops and goes straight to 0.

python -m benchmarks.stopping --preset=vivid-tiny --data=runs/arena --split=test --range-selection=16-33
python -m benchmarks.stopping --preset=vivid-tiny --data=... --gnet=EARLY_SNAPSHOT --guidance=1.5     # autoguidance

High levels give the mean of what the target may be, which has the best PSNR; low ones give one of them, which LPIPS
asks for. Choose on maps that were held back from training (`benchmarks.hold_back`), not on the test split. `lpips_vgg`
is by a network that no training sees, also not that with `--perceptual`.
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
from torch_utils.batches import Pair
from torch_utils.distributed import best_device
from torch_utils.warping import turned_view
from training.generation import GeneratedBatches, open_sampler
from training.sampling_config import NetworkFiles, SamplingConfig

_ROWS = [("euler", 3, 3.0), ("euler", 4, 1.0), ("euler", 8, 0.3), ("euler", 16, 0.02), ("heun", 16, 0.02)]
_METRICS = ("psnr", "lpips", "lpips_vgg")


def turned(pairs: list[Pair]) -> torch.Tensor:
    """The source views turned as the cameras turn, and as they are beyond their border: uint8 [B, 3, R, R]."""
    found = [(pair.source.image, *turned_view(pair.source, pair.target.camera)) for pair in pairs]
    return torch.stack([torch.where(inside, moved, source) for source, moved, inside in found])


@click.command(cls=Command)
@sampling_options
@option("--num", section=DATA, type=int, default=100, help="Pairs.")
@option("--batch", section=DATA, type=int, default=16, help="Images at once.")
def main(num: int, batch: int, **options: Any) -> None:
    """Print the table; `--solver`, `--steps` and `--sigma_min` are the rows' own."""
    sampler, _ = open_sampler(NetworkFiles.of(options), SamplingConfig.of(options), best_device())
    pairs = open_pairs(DataConfig.of(options))
    click.echo(f"{'':8} {'steps':>5} {'stops at':>8} " + " ".join(f"{name:>9}" for name in _METRICS))

    def show(name: str, steps: str, stop: str, images: torch.Tensor, drawn: list[Pair]) -> None:
        targets = torch.stack([pair.target.image for pair in drawn])
        found = compute_metrics(images, targets, metrics=_METRICS, allow_few=True)
        click.echo(f"{name:8} {steps:>5} {stop:>8} " + " ".join(f"{found[metric]:9.3f}" for metric in _METRICS))

    for number, (solver, steps, stop) in enumerate(_ROWS):
        row = replace(sampler, config=replace(sampler.config, solver=solver, num_steps=steps, sigma_min=stop))
        made = list(GeneratedBatches(row, pairs, range(num), batch))
        drawn = [pair for part in made for pair in part.pairs]
        if number == 0:
            show("copy", "", "", torch.stack([pair.source.image for pair in drawn]), drawn)
            show("turned", "", "", turned(drawn), drawn)
        show(solver, str(steps), f"{stop:g}", torch.cat([part.images for part in made]), drawn)


if __name__ == "__main__":
    main()
