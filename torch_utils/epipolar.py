"""Epipolar lines between two views, from the pose and intrinsics that the geometry vector carries."""

from __future__ import annotations

import torch

from torch_utils.cameras import pixel_centers

_TINY_SHIFT = 1e-5
_TINY_SHIFT_Z = 0.1


def fundamental_matrix(pose: torch.Tensor, k_source: torch.Tensor, k_target: torch.Tensor) -> torch.Tensor:
    """F = K_src^-T [t]_x R K_tgt^-1, so that F p is the line in the source view of the target pixel p.

    Args: pose [..., 4, 4] target camera to source camera; intrinsics [..., 3, 3] in pixels. Returns [..., 3, 3].
    """
    from kornia.geometry.epipolar import cross_product_matrix, fundamental_from_essential

    essential = cross_product_matrix(pose[..., :3, 3]) @ pose[..., :3, :3]
    return fundamental_from_essential(essential, k_target, k_source)


def nudge_translation(pose: torch.Tensor) -> torch.Tensor:
    """The pose with a tiny translation where it has none, so that epipolar lines exist (docs/method.md, section 5.4).

    A zero x or y becomes 1e-5, then |z| <= 1e-5 becomes 0.1 sqrt(x^2 + y^2). The published code draws signs and sizes
    at random; fixed ones make a result a function of its inputs.
    """
    x, y, z = pose[..., :3, 3].unbind(-1)
    x = torch.where(x == 0, _TINY_SHIFT, x)
    y = torch.where(y == 0, _TINY_SHIFT, y)
    z = torch.where(z.abs() <= _TINY_SHIFT, _TINY_SHIFT_Z * torch.sqrt(x**2 + y**2), z)
    translation = torch.stack([x, y, z], dim=-1)[..., None]
    return torch.cat([torch.cat([pose[..., :3, :3], translation], dim=-1), pose[..., 3:, :]], dim=-2)


def epipolar_distance(
    pose: torch.Tensor, k_source: torch.Tensor, k_target: torch.Tensor, resolution: int, tokens: int
) -> torch.Tensor:
    """Distance of each source token's centre from the epipolar line of each target token's centre, in pixels.

    Tokens are a `tokens` x `tokens` grid of patches over an image of `resolution` pixels a side.
    Returns [B, tokens^2 (target), tokens^2 (source)], row-major, in the dtype of `pose`.
    """
    from kornia.geometry import convert_points_to_homogeneous, point_line_distance

    centers = pixel_centers(tokens, tokens).to(pose) * (resolution / tokens)
    fundamental = fundamental_matrix(nudge_translation(pose), k_source, k_target)
    lines_BT3 = convert_points_to_homogeneous(centers) @ fundamental.mT
    return point_line_distance(centers[None, None], lines_BT3[:, :, None])
