"""The geometry vector: the 20 numbers that networks are told of the two cameras of a pair, and back to cameras."""

from __future__ import annotations

import torch

from torch_utils.cameras import Camera, homogeneous, intrinsics_matrix, relative_pose

# Statistics of (relative pose [12], source fx fy cx cy, target fx fy cx cy) at 64x64 on RealEstate10K: docs/method.md,
# section 2.2.
GEOMETRY_DIM = 20
_STATS_RESOLUTION = 64
_GEOMETRY_MEAN = (
    9.6681e-01, -1.6038e-04, -3.7034e-05, -1.6904e-03,
    -8.7718e-05, 9.9869e-01, 3.1288e-03, -1.0794e-03,
    1.0653e-05, 3.0997e-03, 9.6691e-01, 1.2561e-02,
    57.708, 57.704, 32.0, 32.0,
    57.708, 57.704, 32.0, 32.0,
)  # fmt: skip
_GEOMETRY_STD = (
    0.1104, 0.0346, 0.2279, 0.4930,
    0.0347, 0.0091, 0.0367, 0.2208,
    0.2279, 0.0368, 0.1088, 1.0751,
    6.6464, 6.6511, 0.0, 0.0,
    6.6464, 6.6511, 0.0, 0.0,
)  # fmt: skip
_PUBLISHED_RESOLUTIONS = (256, 64)  # the sizes through which the published code sends K, one after the other


def geometry_vector(
    source: Camera, target: Camera, resolution: int, published_intrinsics: bool = False
) -> torch.Tensor:
    """Return what the networks are told about two views: normalised pose and intrinsics, float32 [..., 20].

    The relative pose row by row, then (fx, fy, cx, cy) of source and target in pixels at resolution x resolution,
    as (g - mean) / std (docs/method.md, section 2.2). Cameras of any size are accepted: they are cropped to the
    central square and resized first, which changes nothing where that has happened already.

    With `published_intrinsics`, the intrinsics are those of the published code, which crops and resizes K twice,
    to 256 and from there to 64, and uses the result at every resolution: f (256/s) (64/s), s = `Camera.frame_side`.
    """

    def intrinsics(camera: Camera) -> torch.Tensor:
        square = camera.square()
        if published_intrinsics:
            first, second = _PUBLISHED_RESOLUTIONS
            square = square.resize(second)
            return square.focal_and_center * (first / camera.frame_side)
        return square.resize(resolution).focal_and_center

    pose = relative_pose(source, target)[..., :3, :].flatten(-2)
    return normalize_geometry(torch.cat([pose, intrinsics(source), intrinsics(target)], dim=-1), resolution)


def normalize_geometry(geometry: torch.Tensor, resolution: int) -> torch.Tensor:
    """(g - mean)/std, 0 where std is 0: [..., 20] in plain numbers to float32 [..., 20]."""
    mean, std = _geometry_statistics(resolution, geometry)
    return torch.where(std > 0, (geometry - mean) / torch.where(std > 0, std, 1), 0).to(torch.float32)


def denormalize_geometry(geometry: torch.Tensor, resolution: int) -> torch.Tensor:
    """g std + mean in the dtype of `geometry`. The principal point, whose std is 0, comes back as the centre."""
    mean, std = _geometry_statistics(resolution, geometry)
    return geometry * std + mean


def resize_geometry(geometry: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """The geometry vector at `old` pixels a side, as it is at `new`: float32 [..., 20]."""
    plain = denormalize_geometry(geometry.to(torch.float64), old)
    scale = torch.ones_like(plain)
    scale[..., 12:] = new / old
    return normalize_geometry(plain * scale, new)


def split_geometry(geometry: torch.Tensor, resolution: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Geometry vectors [B, 20] back to cameras: pose target-to-source [B, 4, 4], K_src and K_tgt [B, 3, 3].

    In the dtype of `geometry`; the networks pass float32, since the numbers that follow amplify rounding.
    """
    plain = denormalize_geometry(geometry, resolution)
    pose = homogeneous(plain[..., :12].unflatten(-1, (3, 4)))
    return pose, intrinsics_matrix(*plain[..., 12:16].unbind(-1)), intrinsics_matrix(*plain[..., 16:].unbind(-1))


def _geometry_statistics(resolution: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std at a resolution. The std of the intrinsics grows with the square: a quirk of released weights."""
    scale = resolution / _STATS_RESOLUTION
    exponents = torch.tensor([0.0] * 12 + [1.0] * 8, dtype=like.dtype, device=like.device)
    mean = torch.tensor(_GEOMETRY_MEAN, dtype=like.dtype, device=like.device)
    std = torch.tensor(_GEOMETRY_STD, dtype=like.dtype, device=like.device)
    return mean * scale**exponents, std * scale ** (2 * exponents)
