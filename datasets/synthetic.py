"""Rooms with boxes, with exact pose and depth: data for tests, and for a training run that needs no data."""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from datasets.camera_files.realestate10k import format_realestate10k
from datasets.clips import Clip, ClipPairs, Clips
from datasets.pairs import FramePair, FrameRange, random_bits
from dnnlib.imaging import save_png
from torch_utils.cameras import Camera, View, pixel_centers
from torch_utils.depth import save_stored_depth
from torch_utils.warping import euler_rotation

_BOXES = 9  # besides the room
_WAVES = 4  # on each face
_SAMPLES = 2  # rays per pixel and axis
_PAPER, _PHOTOGRAPH_SIDE = 128, 512  # pixels, of the crops that faces are covered with and of what they are cut from
_LIGHT = torch.tensor([0.85, 1.0, 0.7])  # by axis of a box, so that edges show
_FRAME_US = 33367  # 30 frames a second


class Photographs(Protocol):
    """A numbered supply of photographs; `datasets.single_image.SingleImages` is one."""

    def __len__(self) -> int: ...

    def photograph(self, number: int) -> torch.Tensor:
        """Uint8 [3, 512, 512]."""


class Synthetic(ClipPairs):
    """Pairs of views of `clips` synthetic clips of 64 frames, rendered on request, with depth.

    The scenes depend on the split alone, and on the photographs that they are papered with, if any; `seed` chooses the
    pairs, as in `ClipPairs`, whose arguments the others are.
    """

    def __init__(
        self,
        split: str = "train",
        range_selection: str | FrameRange = None,
        resolution: int = 64,
        *,
        seed: int = 0,
        pairs: Sequence[FramePair] | None = None,
        clips: int = 1000,
        photographs: Photographs | None = None,
    ) -> None:
        rooms = SyntheticClips(split, clips, width=resolution, height=resolution, photographs=photographs)
        super().__init__(rooms, range_selection, resolution, seed=seed, pairs=pairs)


class SyntheticClips:
    """`count` walks through rooms; see `datasets.clips.Clips`."""

    def __init__(
        self,
        split: str,
        count: int,
        *,
        frames: int = 64,
        width: int = 64,
        height: int = 64,
        photographs: Photographs | None = None,
    ) -> None:
        self.names = [f"{split}-{number:05d}" for number in range(count)]
        self._frames, self._width, self._height, self._photographs = frames, width, height, photographs

    def open(self, number: int) -> SyntheticClip:
        return SyntheticClip(self.names[number], range(self._frames), self._width, self._height, self._photographs)


@dataclass(frozen=True, eq=False)
class SyntheticClip:
    """A walk through a room, both made up from the name; see `datasets.clips.Clip`."""

    name: str
    frames: Sequence[int]
    width: int
    height: int
    photographs: Photographs | None = None

    @cached_property
    def scene(self) -> Scene:
        scene = random_scene(self._generator("scene"))
        return scene if self.photographs is None else papered(scene, self.photographs, self._generator("paper"))

    @cached_property
    def cameras(self) -> torch.Tensor:
        generator = self._generator("walk")
        extrinsics = random_walk(len(self.frames), generator)
        focal = 0.8 + 0.25 * float(torch.rand((), generator=generator, dtype=torch.float64))  # of the height
        head = torch.tensor([focal * self.height / self.width, focal, 0.5, 0.5, 0, 0], dtype=torch.float64)
        return torch.cat([head.expand(len(self.frames), -1), extrinsics.flatten(1)], dim=1)

    def view(self, position: int) -> View:
        return render(self.scene, Camera.from_normalized(self.cameras[position], self.width, self.height))

    def _generator(self, purpose: str) -> torch.Generator:
        bits = random_bits(f"synthetic {purpose}", zlib.crc32(self.name.encode()))
        return torch.Generator().manual_seed(int(bits[0]) >> 1)


@dataclass(frozen=True, eq=False)
class Scene:
    """Boxes that stand upright, the first of which is the room and seen from within. All float32.

    Attributes:
        centers, halves: [B, 3], centre and half the size.
        turns: [B, 3, 3], from the axes of the box to those of the world.
        colors: [B, 3, 2, 3], for each axis of a box, the two colours, 0 .. 255, of the faces across it.
        waves: [B, 3, W, 3], for each axis, waves (k_u, k_v, phase) whose sum makes the pattern.
        papers: None, or what covers the faces across each axis instead: pictures, 0 .. 255, [B, 3, T, T, 3].
        paper_sides: [B, 3], the side of a picture in units; it is repeated, every second time mirrored.
    """

    centers: torch.Tensor
    halves: torch.Tensor
    turns: torch.Tensor
    colors: torch.Tensor
    waves: torch.Tensor
    papers: torch.Tensor | None = None
    paper_sides: torch.Tensor | None = None

    def cast(self, origin: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what rays [P, 3] from a point [3] within the room hit first: distance [P] and colour [P, 3]."""
        start = ((origin - self.centers)[:, None] @ self.turns)[:, 0]  # in the axes of each box
        step = torch.einsum("pi,bij->pbj", directions, self.turns)
        one, other = (-self.halves - start) / step, (self.halves - start) / step  # where rays cross pairs of planes
        enter, enter_axis = torch.minimum(one, other).max(dim=-1)
        leave, leave_axis = torch.maximum(one, other).min(dim=-1)
        distance = torch.where((enter > 0) & (enter < leave), enter, math.inf)
        distance[:, 0], enter_axis[:, 0] = leave[:, 0], leave_axis[:, 0]
        distance, box = distance.min(dim=-1)

        ray = torch.arange(len(box))
        axis = enter_axis[ray, box]
        point = start[box] + distance[:, None] * step[ray, box]
        u, v = (point[ray, (axis + shift) % 3] for shift in (1, 2))
        return distance, (self._pattern if self.papers is None else self._paper)(box, axis, u, v)

    def _pattern(self, box: torch.Tensor, axis: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Colours [P, 3] at (u, v) [P] of the faces across an axis [P] of a box [P]."""
        k_u, k_v, phase = self.waves[box, axis].unbind(dim=-1)
        pattern = (k_u * u[:, None] + k_v * v[:, None] + phase).sin().sum(dim=-1)
        first, second = self.colors[box, axis].unbind(dim=1)
        return torch.lerp(first, second, (0.5 + 0.5 * torch.tanh(2 * pattern))[:, None])

    def _paper(self, box: torch.Tensor, axis: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """As `_pattern`: bilinear between the pixels of the picture."""
        assert self.papers is not None
        assert self.paper_sides is not None
        papers, size = self.papers, self.papers.shape[2]
        scale = size / self.paper_sides[box, axis]

        def corners(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            t = (size - ((t * scale) % (2 * size) - size).abs() - 0.5).clamp(0, size - 1)  # there and back again
            low = t.floor().long().clamp(max=size - 2)
            return low, low + 1, (t - low)[:, None]

        (left, right, x), (top, bottom, y) = corners(u), corners(v)
        above = torch.lerp(papers[box, axis, top, left], papers[box, axis, top, right], x)
        below = torch.lerp(papers[box, axis, bottom, left], papers[box, axis, bottom, right], x)
        return torch.lerp(above, below, y)


def random_scene(generator: torch.Generator) -> Scene:
    """A room of 6 to 10 by 6 to 10, 3 high, and boxes on its floor that leave the middle, 1.2 around, free."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    room = torch.tensor([[*uniform(3, 5, 1).tolist(), 1.5, *uniform(3, 5, 1).tolist()]])
    size = torch.tensor([0.7, 1.1, 0.7])
    halves = torch.cat([room, size * uniform(0.3, 1.0, _BOXES, 3)])
    angle = (torch.arange(_BOXES) + uniform(0, 1, _BOXES)) * (2 * math.pi / _BOXES)
    radius = uniform(2.3, 4.0, _BOXES)
    floor = 1.5 - halves[1:, 1]
    centers = torch.cat([torch.zeros(1, 3), torch.stack([radius * angle.sin(), floor, radius * angle.cos()], dim=1)])
    turns = torch.cat([torch.eye(3)[None], euler_rotation(0, uniform(-45, 45, _BOXES), 0).to(torch.float32)])

    faces = (_BOXES + 1, 3)
    wave_number = 2 * math.pi / 10 ** uniform(-0.4, 0.6, *faces, _WAVES)  # periods from 0.4 to 4
    heading, phase = uniform(0, 2 * math.pi, 2, *faces, _WAVES)
    waves = torch.stack([wave_number * heading.cos(), wave_number * heading.sin(), phase], dim=-1)
    colors = uniform(60, 210, *faces, 2, 1) + uniform(-45, 45, *faces, 2, 3)
    return Scene(centers, halves, turns, colors * _LIGHT[:, None, None], waves)


def papered(scene: Scene, photographs: Photographs, generator: torch.Generator) -> Scene:
    """The scene with the faces of its boxes covered by crops of photographs instead of patterns."""
    count = len(scene.centers)
    numbers = torch.randint(len(photographs), (count, 3), generator=generator)
    corners = torch.randint(_PHOTOGRAPH_SIDE - _PAPER + 1, (count, 3, 2), generator=generator).tolist()
    papers = torch.empty(count, 3, _PAPER, _PAPER, 3)
    for box in range(count):
        for axis in range(3):
            top, left = corners[box][axis]
            crop = photographs.photograph(int(numbers[box, axis]))[:, top : top + _PAPER, left : left + _PAPER]
            papers[box, axis] = rearrange(crop, "c h w -> h w c") * _LIGHT[axis]
    sides = 1.2 + 2.4 * torch.rand(count, 3, generator=generator)
    return replace(scene, papers=papers, paper_sides=sides)


def random_walk(frames: int, generator: torch.Generator) -> torch.Tensor:
    """A smooth path through the middle of a room: world-to-camera extrinsics, float64 [frames, 3, 4].

    From end to end it moves by up to 2 and turns by up to 30 degrees, much like clips of RealEstate10K.
    """

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    corners = uniform(-1, 1, 3, 3) * torch.tensor([0.8, 0.2, 0.8])
    s = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None]
    center = (1 - s) ** 2 * corners[0] + 2 * s * (1 - s) * corners[1] + s**2 * corners[2]  # a Bezier curve
    ease = (s * s * (3 - 2 * s))[:, 0]
    yaw = uniform(-180, 180) + ease * uniform(-30, 30)
    pitch = uniform(-10, 10) + ease * uniform(-5, 5)
    rotation = euler_rotation(uniform(-2, 2), 0, pitch) @ euler_rotation(0, yaw, 0)
    return torch.cat([rotation, -(rotation @ center[:, :, None])], dim=2)


def render(scene: Scene, camera: Camera) -> View:
    """The view of a camera in the room. Depth is exact at the centre of each pixel; colour is the mean of 4 rays."""
    width, height = camera.width, camera.height
    fine = camera.resize(_SAMPLES * width, _SAMPLES * height)
    origin = camera.center.float()
    _, rays = fine.rays(pixel_centers(fine.width, fine.height))
    _, color = scene.cast(origin, rays.float())
    mean = color.T.reshape(3, height, _SAMPLES, width, _SAMPLES).mean(dim=(2, 4))
    _, rays = camera.rays(pixel_centers(width, height))
    distance, _ = scene.cast(origin, rays.float())
    depth = distance * (rays @ camera.rotation[2]).float()
    return View(mean.round().to(torch.uint8), camera, depth.reshape(height, width))


def write_tree(root: str | PathLike, split: str, clips: Clips, depth: bool = False) -> None:
    """Write clips as RealEstate10K is published: a text file of cameras and a folder of PNG files for each.

    With `depth` that of the views goes beside the frames.
    """
    for number, name in enumerate(clips.names):
        clip = clips.open(number)
        cameras, frames = Path(root, "RealEstate10K", split), Path(root, split, name)
        for folder in (cameras, frames):
            folder.mkdir(parents=True, exist_ok=True)
        timestamps = [_FRAME_US * position for position in range(len(clip.cameras))]
        (cameras / f"{name}.txt").write_text(format_realestate10k(f"synthetic:{name}", timestamps, clip.cameras))
        for position in clip.frames:
            view, file = clip.view(position), frames / f"{timestamps[position]}.png"
            save_png(file, rearrange(view.image, "c h w -> h w c").numpy())
            if depth:
                if view.depth is None:
                    raise ValueError(f"{name}: its frames carry no depth to write")
                save_stored_depth(file, view.depth)


def write_chunks(root: str | PathLike, split: str, clips: Clips, clips_per_chunk: int = 2) -> None:
    """Write clips as pixelSplat's chunks: some clips a file, JPEG frames, and index.json."""
    folder = Path(root, split)
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    for first in range(0, len(clips.names), clips_per_chunk):
        chunk = []
        for number in range(first, min(first + clips_per_chunk, len(clips.names))):
            clip = clips.open(number)
            images = [_jpeg(_pixels(clip, position)) for position in clip.frames]
            chunk.append(
                {
                    "url": "",
                    "key": clips.names[number],
                    "timestamps": _FRAME_US * torch.arange(len(images)),
                    "cameras": clip.cameras.to(torch.float32),
                    "images": images,
                }
            )
        name = f"{first // clips_per_chunk:06d}.torch"
        torch.save(chunk, folder / name)
        index |= {str(entry["key"]): name for entry in chunk}
    (folder / "index.json").write_text(json.dumps(index))


def _pixels(clip: Clip, position: int) -> np.ndarray:
    return rearrange(clip.view(position).image, "c h w -> h w c").numpy()


def _jpeg(pixels: np.ndarray) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
