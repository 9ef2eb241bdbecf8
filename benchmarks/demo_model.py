"""Does the demo model obey the camera, and does its super-resolution beat bicubic? Prints a table of each.

python -m benchmarks.demo_model --preset=vivid-tiny --data=DIR --range-selection=16-33
python -m benchmarks.demo_model --preset=vivid-tiny --photographs=DIR     # turned views of photographs instead
python -m benchmarks.demo_model --preset=vivid-tiny --net=vivid-tiny-sr --sr-model= --data=DIR --range-selection=16-33
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import torch
import torch.nn.functional as F

from benchmarks.options import sampling_options
from datasets.config import DATA, DataConfig, open_pairs
from datasets.single_image import SingleImages
from dnnlib.cli import Command, option
from metrics import Evaluation
from metrics.views import Views
from torch_utils.cameras import Camera, homogeneous, pixels_to_uint8, relative_pose, resize_image
from training.conditioning import SUPER_RESOLUTION_FACTOR
from training.generation import GeneratedBatches, open_sampler
from training.sampling_config import NetworkFiles, SamplingConfig


def inverted(source: Camera, target: Camera) -> Camera:
    """The target camera with the relative pose to the source inverted."""
    extrinsics = relative_pose(source, target) @ homogeneous(source.extrinsics)
    return replace(target, extrinsics=extrinsics[:3])


def bicubic(target: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, R, R] shrunk as in training, then enlarged."""
    side = target.shape[-1]
    small = resize_image(target.to(torch.float32) / 127.5 - 1, *2 * (side // SUPER_RESOLUTION_FACTOR,))
    return pixels_to_uint8(F.interpolate(small, (side, side), mode="bicubic", align_corners=False))


@click.command(cls=Command)
@sampling_options
@option("--num", section=DATA, type=int, default=100, help="Pairs.")
@option("--photographs", section=DATA, metavar="DIR", help="Instead of a data set.")
def main(num: int, photographs: str | None, **options: Any) -> None:
    """Judge the demo model, or one network of it."""
    sampler, _ = open_sampler(NetworkFiles.of(options), SamplingConfig.of(options), "cpu")
    network = sampler.net
    pairs = open_pairs(DataConfig.of(options)) if photographs is None else SingleImages(photographs, sampler.resolution)
    judged: dict[str, Evaluation] = {}
    obeyed = 0

    def judge(name: str, seeds: list[int], images: torch.Tensor, target: torch.Tensor) -> None:
        judged.setdefault(name, Evaluation(["psnr", "lpips", "lpips_vgg"])).update(Views(seeds, images, target))

    for batch in GeneratedBatches(sampler, pairs, range(num), 16):
        target = torch.stack([pair.target.image for pair in batch.pairs])
        judge("sample", batch.seeds, batch.images, target)
        judge("copy source", batch.seeds, torch.stack([pair.source.image for pair in batch.pairs]), target)
        if network.super_res:
            judge("bicubic", batch.seeds, bicubic(target), target)
            continue
        cameras = [inverted(pair.source.camera, pair.target.camera) for pair in batch.pairs]
        wrong = sampler([pair.source for pair in batch.pairs], cameras, batch.seeds)
        judge("inverted pose", batch.seeds, wrong, target)
        squares = [((images.float() - target) ** 2).mean(dim=(1, 2, 3)) for images in (batch.images, wrong)]
        obeyed += int((squares[0] < squares[1]).sum())

    for name, evaluation in judged.items():
        numbers = "  ".join(f"{score.name} {score.generated:.3f}" for score in evaluation.compute("").scores)
        click.echo(f"{name:14s}  {numbers}")
    if not network.super_res:
        click.echo(f"the true pose is nearer to the target in {obeyed / num:.1%} of {num} pairs")


if __name__ == "__main__":
    main()
