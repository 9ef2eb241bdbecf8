"""Does the demo model obey the camera, and does its super-resolution beat bicubic? Prints a table of each.

python benchmarks/demo_model.py --net=vivid-tiny-base --data=DIR --range-selection=16-33
python benchmarks/demo_model.py --net=NETWORK.safetensors --data=DIR --range-selection=16-33
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from datasets.realestate10k import RealEstate10K
from dnnlib.cli import RangeSelection
from metrics import Evaluation
from metrics.views import Views
from torch_utils.cameras import Camera, homogeneous, pixels_to_uint8, relative_pose, resize_image
from training.conditioning import SUPER_RESOLUTION_FACTOR
from training.generation import GeneratedBatches, NovelViewSampler
from training.model_io import load_network, resolve_network


def inverted(source: Camera, target: Camera) -> Camera:
    """The target camera with the relative pose to the source inverted."""
    extrinsics = relative_pose(source, target) @ homogeneous(source.extrinsics)
    return replace(target, extrinsics=extrinsics[:3])


def bicubic(target: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, R, R] shrunk as in training, then enlarged."""
    side = target.shape[-1]
    small = resize_image(target.to(torch.float32) / 127.5 - 1, *2 * (side // SUPER_RESOLUTION_FACTOR,))
    return pixels_to_uint8(F.interpolate(small, (side, side), mode="bicubic", align_corners=False))


@click.command()
@click.option("--net", required=True, help="Base or super-resolution network.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder with a test split.")
@click.option("--range-selection", type=RangeSelection(), default="16-33", show_default=True)
@click.option("--num", default=100, show_default=True, help="Pairs.")
@click.option("--steps", default=18, show_default=True)
@click.option("--split", default="test", show_default=True)
def main(net: str, data: Path, range_selection: str, num: int, steps: int, split: str) -> None:
    """Judge one network of the demo model."""
    network = load_network(resolve_network(net), "cpu").freeze()
    sampler = NovelViewSampler(network, sampler_kwargs={"num_steps": steps})
    pairs = RealEstate10K(data, split, range_selection, resolution=None)
    judged: dict[str, Evaluation] = {}
    obeyed = 0

    def judge(name: str, seeds: list[int], images: torch.Tensor, target: torch.Tensor) -> None:
        judged.setdefault(name, Evaluation(["psnr", "lpips"])).update(Views(seeds, images, target))

    for batch in GeneratedBatches(sampler, pairs, range(num), 16):
        target = torch.stack([pair.target.image for pair in batch.pairs])
        judge("sample", batch.seeds, batch.images, target)
        if network.super_res:
            judge("bicubic", batch.seeds, bicubic(target), target)
            continue
        cameras = [inverted(pair.source.camera, pair.target.camera) for pair in batch.pairs]
        wrong = sampler([pair.source for pair in batch.pairs], cameras, batch.seeds)
        judge("inverted pose", batch.seeds, wrong, target)
        squares = [((images.float() - target) ** 2).mean(dim=(1, 2, 3)) for images in (batch.images, wrong)]
        obeyed += int((squares[0] < squares[1]).sum())

    for name, evaluation in judged.items():
        numbers = "  ".join(f"{result.name} {result.generated:.3f}" for result in evaluation.compute("").results)
        click.echo(f"{name:14s}  {numbers}")
    if not network.super_res:
        click.echo(f"the true pose is nearer to the target in {obeyed / num:.1%} of {num} pairs")


if __name__ == "__main__":
    main()
