"""What views are made from, what a network prepares of it, and the arithmetic that encodings need for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from torch_utils.cameras import resize_image
from torch_utils.geometry_vector import split_geometry

# Mean and standard deviation of the relative inverse depth that the released weights were trained with: docs/method.md,
# section 5.2.
_INVERSE_DEPTH_MEAN = 0.4947
_INVERSE_DEPTH_STD = 0.2294
SUPER_RESOLUTION_FACTOR = 4

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Conditioning:
    """All that views are made from.

    Attributes:
        image: source views, float32 [B, 3, R, R]; depth: the fourth channel of src, float32 [B, 1, R, R], or None.
        geometry: normalised geometry vectors, float32 [B, 20].
        conditioning_image: low-resolution images, resized to R, float32 [B, 3, R, R], or None.
    """

    image: torch.Tensor
    depth: torch.Tensor | None
    geometry: torch.Tensor
    conditioning_image: torch.Tensor | None = None

    @cached_property
    def cameras(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pose [B, 4, 4] target camera to source camera, and intrinsics [B, 3, 3] of source and target in pixels."""
        return split_geometry(self.geometry, self.image.shape[-1])


@dataclass(frozen=True)
class Prepared:
    """All that follows from `Conditioning` at any noise level; `prepared[images]` is that of some images.

    Attributes:
        geometry: [B, 20].
        encoder_input: of the source encoder, [B, C, R, R], where its features depend on the noise level; else empty.
        features: keys and values of the source view, for each block with cross-attention, where they do not.
        told: what each encoding has prepared.
    """

    geometry: torch.Tensor
    encoder_input: Tensors
    features: tuple[Tensors, ...]
    told: tuple[Tensors, ...]

    def __getitem__(self, images: torch.Tensor | slice) -> Prepared:
        return Prepared.joined(lambda tensors: tensors[0][images], [self])

    @staticmethod
    def cat(parts: Sequence[Prepared]) -> Prepared:
        """Return those of several batches as one batch."""
        return Prepared.joined(torch.cat, parts) if len(parts) > 1 else parts[0]

    @staticmethod
    def joined(function: Callable[[Tensors], torch.Tensor], parts: Sequence[Prepared]) -> Prepared:
        """`function` of the tensors that stand in one place in each part."""

        def join(groups: Sequence[Tensors]) -> Tensors:
            return tuple(function(tensors) for tensors in zip(*groups, strict=True))

        return Prepared(
            function(tuple(part.geometry for part in parts)),
            join([part.encoder_input for part in parts]),
            tuple(join(groups) for groups in zip(*(part.features for part in parts), strict=True)),
            tuple(join(groups) for groups in zip(*(part.told for part in parts), strict=True)),
        )


def normalize_inverse_depth(depth: torch.Tensor) -> torch.Tensor:
    """The channel of `depth_input`: ((1/d) / max(1/d) - 0.4947) / 0.2294, the maximum over each image, [B, 1, R, R]."""
    inverse = 1 / depth
    relative = inverse / inverse.amax(dim=(-2, -1), keepdim=True)
    return (relative - _INVERSE_DEPTH_MEAN) / _INVERSE_DEPTH_STD


def shrink_and_enlarge(image: torch.Tensor) -> torch.Tensor:
    """Return [B, C, R, R] resized to a quarter and back, bilinear, antialiased: what super-resolution is given.

    Resizing is a product of matrices along each axis, which takes half the time on CPUs.
    """
    side = image.shape[-1]
    small = side // SUPER_RESOLUTION_FACTOR
    down = resize_image(torch.eye(side).to(image)[None], small, side)[0]
    up = resize_image(torch.eye(small).to(image)[None], side, small)[0]
    return up.mT @ (down.mT @ image @ down) @ up


def pixel_grid(resolution: int, like: torch.Tensor) -> torch.Tensor:
    """Pixel centres as (row, column), [R, R, 2]: the published order, see `warp_grid`."""
    axis = torch.arange(resolution, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)


def warp_grid(depth: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
    """Return where each source pixel lands in the target view: depth [B, 1, R, R], geometry [B, 20] to [B, R, R, 2].

    The grid holds (row, column) and is used as if it were (x, y), in and out: a quirk of the published code that
    released weights were trained with. float32, in exactly this order of operations, since the Fourier features that
    follow amplify rounding.
    """
    resolution = depth.shape[-1]
    pose, k_source, k_target = split_geometry(geometry.to(torch.float32), resolution)
    grid = pixel_grid(resolution, depth.to(torch.float32))
    points = torch.cat([grid, torch.ones_like(grid[..., :1])], dim=-1).reshape(1, -1, 3)
    points = (points @ torch.linalg.inv(k_source).mT) * depth.to(torch.float32).reshape(len(depth), -1, 1)
    source_to_target = torch.linalg.inv(pose)
    points = points @ source_to_target[:, :3, :3].mT + source_to_target[:, None, :3, 3]
    points = points @ k_target.mT
    return (points[..., :2] / points[..., 2:]).reshape(len(depth), resolution, resolution, 2)
