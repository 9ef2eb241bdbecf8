"""The arithmetic of encodings: inverse depth, coordinates moved by depth, the low-resolution image."""

from __future__ import annotations

import torch

from torch_utils.cameras import resize_image, split_geometry

# Mean and standard deviation of the relative inverse depth that the released weights were trained with: docs/method.md,
# section 5.2.
_INVERSE_DEPTH_MEAN = 0.4947
_INVERSE_DEPTH_STD = 0.2294
SUPER_RESOLUTION_FACTOR = 4


def normalize_inverse_depth(depth: torch.Tensor) -> torch.Tensor:
    """The channel of `depth_input`: ((1/d) / max(1/d) - 0.4947) / 0.2294, the maximum over each image, [B, 1, R, R]."""
    inverse = 1 / depth
    relative = inverse / inverse.amax(dim=(-2, -1), keepdim=True)
    return (relative - _INVERSE_DEPTH_MEAN) / _INVERSE_DEPTH_STD


def low_resolution_image(target: torch.Tensor) -> torch.Tensor:
    """What super-resolution is trained on: [B, 3, R, R] resized to a quarter and back, bilinear, antialiased."""
    side = target.shape[-1]
    small = resize_image(target, side // SUPER_RESOLUTION_FACTOR, side // SUPER_RESOLUTION_FACTOR)
    return resize_image(small, side, side)


def pixel_grid(resolution: int, like: torch.Tensor) -> torch.Tensor:
    """Pixel centres as (row, column), [R, R, 2]: the published order, see `warp_grid`."""
    axis = torch.arange(resolution, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)


def warp_grid(depth: torch.Tensor, geometry: torch.Tensor) -> torch.Tensor:
    """Where each source pixel lands in the target view: depth [B, 1, R, R], geometry [B, 20] to [B, R, R, 2].

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
