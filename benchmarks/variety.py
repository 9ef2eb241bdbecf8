"""What samples make of pixels that the source view does not show: how far apart they are, and how near the best comes.

python -m benchmarks.variety --preset=vivid-tiny --data=DIR --range-selection=16-33

Depth lies beside the frames, such as `DIR/test/CLIP/FRAME.depth.npy`: it tells what of the target a source view shows.
PSNR is of these pixels alone: of each sample, of the best of a pair's, and of the samples' mean.
"""

from __future__ import annotations

from typing import Any

import click
import torch

from benchmarks.options import sampling_options
from datasets.config import DATA, DataConfig, open_pairs
from dnnlib.cli import Command, option
from dnnlib.util import STORED, UserError, present
from metrics.image import psnr
from torch_utils.batches import Pair
from torch_utils.distributed import best_device
from torch_utils.warping import warp_depth
from training.generation import open_sampler
from training.sampling_config import SAMPLER, NetworkFiles, SamplingConfig

_LEAST_UNSEEN = 0.02  # of the target's pixels; of fewer a PSNR tells little


def unseen(pair: Pair) -> torch.Tensor:
    """Where the target shows what the source view, which carries its depth, does not: bool [R, R]."""
    source = pair.source
    return ~warp_depth(source.image.float(), present(source.depth), source.camera, pair.target.camera)[1]


@click.command(cls=Command)
@sampling_options
@option("--num", section=DATA, type=int, default=100, help="Pairs.")
@option("--samples", section=SAMPLER, type=click.IntRange(min=2), default=8, help="Of each pair.")
def main(num: int, samples: int, **options: Any) -> None:
    """Print the mean over pairs."""
    sampler, _ = open_sampler(NetworkFiles.of(options), SamplingConfig.of(options), best_device())
    pairs = open_pairs(DataConfig.of(options, depth_model=STORED))
    rows = []
    for seed in range(num):
        pair = pairs[seed].square(sampler.resolution)
        where = unseen(pair)
        if where.float().mean() < _LEAST_UNSEEN:
            continue
        images = sampler([pair.source] * samples, [pair.target.camera] * samples, [(seed, k) for k in range(samples)])
        each = psnr(images, pair.target.image, where[None, None])
        of_mean = psnr(images.float().mean(dim=0, keepdim=True), pair.target.image, where[None, None])
        spread = images.float().std(dim=0, correction=0)[:, where].mean()
        rows.append(torch.stack([each.mean(), each.max(), of_mean[0], spread, where.double().mean()]))
    if not rows:
        raise UserError(f"none of {num} pairs shows what its source view does not: give a wider `range_selection`")
    average, best, of_mean, spread, share = torch.stack(rows).mean(dim=0).tolist()
    click.echo(
        f"{len(rows)} of {num} pairs show at least {_LEAST_UNSEEN:.0%} that the source view does not, {share:.1%}"
    )
    click.echo(f"PSNR of it: a sample {average:.2f}, the best of {samples} {best:.2f} ({best - average:+.2f})")
    click.echo(f"their mean {of_mean:.2f} ({of_mean - average:+.2f}); they differ by {spread:.1f} of 255")


if __name__ == "__main__":
    main()
