"""The pictures of docs/geometry.md, of any pair of any data set, through any network with epipolar bias.

python -m docs.geometry_figures --data=DIR --seed=3 --net=network-snapshot.safetensors --outdir=docs/geometry
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw

from datasets.config import DataConfig, open_pairs
from dnnlib.imaging import contact_sheet, save_png
from dnnlib.util import STORED, present
from torch_utils.batches import Pair
from torch_utils.cameras import pixel_centers, pixels_to_float, relative_pose, resize_image
from torch_utils.depth import fill_unknown
from torch_utils.epipolar import epipolar_distance, fundamental_matrix
from torch_utils.geometry_vector import geometry_vector, split_geometry
from torch_utils.warping import warp_depth
from training.conditioning import warp_grid
from training.model_io import load_network
from training.precond import NVPrecond
from training.unet import UNet

SIDE = 256  # of a picture
POINTS = ((0.3, 0.35), (0.55, 0.55), (0.75, 0.7))  # (x, y) in the target, fractions of the side
COLORS = ((255, 70, 70), (60, 230, 90), (80, 160, 255))
HOLE = torch.tensor([255, 0, 255])  # no photograph is of this colour
TOKENS = 16
NOISE_LEVELS = (20.0, 2.0, 0.2)


def pixels(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in 0 .. 255 to uint8 [SIDE, SIDE, 3]."""
    return np.asarray(Image.fromarray(image.round().to(torch.uint8).permute(1, 2, 0).numpy()).resize((SIDE, SIDE)))


def heat(values: torch.Tensor, image: torch.Tensor) -> np.ndarray:
    """A map [T, T] of 0 .. 1 over a darkened picture, in red to yellow."""
    side = image.shape[-1]
    level = resize_image(values[None].to(torch.float32), side, side)[0].clamp(0, 1)
    glow = torch.stack([255 * level, 255 * (2 * level - 1).clamp(min=0), torch.zeros_like(level)])
    return pixels(image * 0.45 * (1 - level) + glow * 0.9 + 0.1 * image)


def drawn(image: torch.Tensor, lines: list[np.ndarray], colors: list[tuple[int, int, int]]) -> np.ndarray:
    """The picture with polylines, [N, 2] in fractions of the side; a single point is a ring."""
    canvas = Image.fromarray(pixels(image))
    pen = ImageDraw.Draw(canvas)
    for line, color in zip(lines, colors, strict=True):
        points = [tuple(point) for point in line * SIDE]
        if len(points) == 1:
            (x, y) = points[0]
            pen.ellipse([x - 5, y - 5, x + 5, y + 5], outline=color, width=2)
        else:
            pen.line(points, fill=color, width=2)
    return np.asarray(canvas)


def epipolar_figure(pair: Pair) -> Image.Image:
    """Points of the target, their lines in the source, and what the bias sees: distances of tokens from a line."""
    source, target, side = pair.source.camera, pair.target.camera, pair.source.camera.width
    pose = relative_pose(source, target)
    matrix = fundamental_matrix(pose, source.intrinsics, target.intrinsics)
    lines = []
    for x, y in POINTS:
        a, b, c = (matrix @ torch.tensor([x * side, y * side, 1.0], dtype=torch.float64)).tolist()
        if abs(b) >= abs(a):
            ends = [(u, -(a * u + c) / b) for u in (0, side)]
        else:
            ends = [(-(b * v + c) / a, v) for v in (0, side)]
        lines.append(np.array(ends) / side)
    distances = epipolar_distance(
        pose[None], source.intrinsics[None], target.intrinsics[None], side, TOKENS
    )[0].unflatten(0, (TOKENS, TOKENS)).unflatten(2, (TOKENS, TOKENS))  # fmt: skip
    maps = [distances[int(y * TOKENS), int(x * TOKENS)] for x, y in POINTS]
    views = [view.image.to(torch.float32) for view in (pair.target, pair.source)]
    marks = drawn(views[0], [np.array([point]) for point in POINTS], list(COLORS))
    row = [marks, drawn(views[1], lines, list(COLORS)), *(heat(1 - d / (side / 4), views[1]) for d in maps)]
    titles = ["target", "source", *(f"{color} point" for color in ("red", "green", "blue"))]
    return contact_sheet([row], titles, [""], SIDE)


def attention_to_source(net: NVPrecond, pair: Pair, sigma: float, token: tuple[int, int]) -> torch.Tensor:
    """Return how one target token, (column, row), spreads its attention over the source, [T, T], mean over heads.

    Of the last decoder block at `TOKENS` a side (or the finest there is); the target is the true one, with noise.
    """
    pair = pair.square(net.img_resolution)
    src = pixels_to_float(pair.source.image)[None]
    dst = pixels_to_float(pair.target.image)[None]
    geometry = geometry_vector(pair.source.camera, pair.target.camera, net.img_resolution)[None]
    side = min(TOKENS, max(side for _, side in net.unet.feature_shapes))
    assert isinstance(net.unet, UNet)
    block: Any = [b for name, b in net.unet.dec.items() if name.startswith(f"{side}x") and b.attn_qkv is not None][-1]
    seen: dict[str, tuple[torch.Tensor, ...]] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        for name, module in (("own", block.attn_qkv), ("source", block.x_attn_kv))
    ]
    noise = torch.randn(dst.shape, generator=torch.Generator().manual_seed(0))
    net(src, dst + sigma * noise, torch.tensor([sigma]), geometry)
    for hook in hooks:
        hook.remove()
    (q, k, _), (x_k, _) = seen["own"], seen["source"]
    bias = torch.zeros(1, 1, side**2, side**2)
    if block.epipolar_mixing is not None:
        cameras = split_geometry(geometry, net.img_resolution)
        distances = epipolar_distance(*cameras, net.img_resolution, side)
        bias = block._epipolar_bias(distances, net.img_resolution / side)
    logits = torch.cat([q @ k.mT, q @ x_k.mT], dim=3) / q.shape[-1] ** 0.5
    logits[..., side**2 :] += bias
    column, row = (part * side // TOKENS for part in token)
    return logits.softmax(dim=3)[0, :, row * side + column, side**2 :].mean(dim=0).unflatten(0, (side, side))


def attention_figure(net: NVPrecond, pair: Pair) -> Image.Image:
    """A row for each point: where it is in the target, and its attention over the source at several noise levels."""
    target, source = pair.target.image.to(torch.float32), pair.source.image.to(torch.float32)
    rows = []
    for (x, y), color in zip(POINTS, COLORS, strict=True):
        token = int(x * TOKENS), int(y * TOKENS)
        maps = [attention_to_source(net, pair, sigma, token) for sigma in NOISE_LEVELS]
        rows.append([drawn(target, [np.array([[x, y]])], [color]), *(heat(m / m.max(), source) for m in maps)])
    titles = ["target", *(f"noise {sigma:g}" for sigma in NOISE_LEVELS)]
    return contact_sheet(rows, titles, ["red", "green", "blue"], SIDE)


def depth_figure(pair: Pair) -> Image.Image:
    """Depth, the grid that it moves, in the true and in the published order, and the picture moved by it."""
    source, target, side = pair.source, pair.target.camera, pair.source.camera.width
    stored = present(source.depth)
    depth = fill_unknown(stored)
    near = (1 / depth) / (1 / depth).max()
    warped, visible = warp_depth(source.image.to(torch.float32), stored, source.camera, target)
    points = source.camera.unproject(pixel_centers(side, side), depth.flatten())
    grid = target.project(points)[0].unflatten(0, (side, side)) / side
    geometry = geometry_vector(source.camera, target, side)[None]
    published = warp_grid(depth[None, None], geometry)[0].flip(-1) / side  # (row, column) to (x, y)

    def mesh(moved: torch.Tensor) -> np.ndarray:
        step = slice(side // 32, None, side // 16)
        lines = [*moved[step].numpy(), *moved[:, step].transpose(0, 1).numpy()]
        return drawn(pair.target.image.to(torch.float32) * 0.6, lines, [(255, 220, 60)] * len(lines))

    warped = torch.where(visible, warped, HOLE[:, None, None])
    row = [pixels(source.image), pixels(near.expand(3, -1, -1) * 255), mesh(grid), mesh(published), pixels(warped)]
    titles = ["source", "1 / depth", "grid, true", "grid, published", "warp, holes"]
    return contact_sheet([[*row, pixels(pair.target.image)]], [*titles, "target"], [""], SIDE)


@click.command()
@click.option("--data", required=True, metavar="DIR", help="Folder of clips.")
@click.option("--split", default="test", show_default=True)
@click.option("--range-selection", default="mid", show_default=True, help="Frame gap.")
@click.option("--seed", default=0, show_default=True, help="Names the pair.")
@click.option("--net", metavar="FILE", help="For the picture of attention.")
@click.option("--depth/--no-depth", default=True, show_default=True, help="For the picture of the warp.")
@click.option("--outdir", required=True, metavar="DIR", type=click.Path(path_type=Path))
@torch.no_grad()
def main(data: str, split: str, range_selection: str, seed: int, net: str | None, depth: bool, outdir: Path) -> None:
    """Draw what each encoding of geometry sees."""
    pair = open_pairs(DataConfig(data, split, range_selection, depth_model=STORED if depth else None))[seed]
    pair = pair.square(min(pair.source.camera.width, pair.source.camera.height))
    outdir.mkdir(parents=True, exist_ok=True)
    save_png(outdir / "epipolar.png", epipolar_figure(pair))
    if depth:
        save_png(outdir / "depth.png", depth_figure(pair))
    if net:
        save_png(outdir / "attention.png", attention_figure(load_network(net), pair))


if __name__ == "__main__":
    main()
