"""Warps of one view to another: the homography of a rotation, and pixels moved by their depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_utils.cameras import Camera, pixel_centers

Angle = float | torch.Tensor

_PARTS = 4  # of a pixel along each axis when it moves by its depth: surfaces stay closed up to so many times their size
_SAME_SURFACE = 0.05  # relative difference of two depths up to which they belong to one surface


def euler_rotation(roll_deg: Angle, yaw_deg: Angle, pitch_deg: Angle) -> torch.Tensor:
    """R = Rz(roll) Ry(yaw) Rx(pitch), float64 [..., 3, 3], for angles in degrees, numbers or tensors [...]."""
    return _rotation(2, roll_deg) @ _rotation(1, yaw_deg) @ _rotation(0, pitch_deg)


def _rotation(axis: int, degrees: Angle) -> torch.Tensor:
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.zeros(*angle.shape, 3, 3, dtype=torch.float64)
    matrix[..., i, i] = matrix[..., j, j] = angle.cos()
    matrix[..., j, i] = angle.sin()
    matrix[..., i, j] = -angle.sin()
    matrix[..., axis, axis] = 1
    return matrix


def rotation_homography(intrinsics: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """H = K R K^-1 [..., 3, 3]: where a pixel goes when the camera turns on the spot.

    The rotation is world-to-new-camera, the old camera's being 1 (SPEC section 7).
    """
    return intrinsics @ rotation @ torch.linalg.inv(intrinsics)


def warp_homography(
    image: torch.Tensor, homography: torch.Tensor, box: tuple[int, int, int, int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new view: at p it is the image at H^-1 p, bilinear, zero outside (SPEC section 7).

    Here, and in `homography`, a pixel's coordinates are its **index**, as in the published code; everywhere else its
    centre lies at index + 0.5, so intrinsics that go in have a principal point 0.5 below their camera's.

    Args:
        image: floating point [C, H, W].
        homography: [3, 3], from pixels of the image to those of the new view.
        box: (left, top, width, height), the part of the new view to compute; by default as large as the image.

    Returns:
        The new view [C, height, width], and bool [height, width]: whether the pixel lies wholly within the image.
    """
    rows, columns = image.shape[-2:]
    left, top, width, height = box or (0, 0, columns, rows)
    x = torch.arange(left, left + width, dtype=image.dtype, device=image.device)
    y = torch.arange(top, top + height, dtype=image.dtype, device=image.device)[:, None]
    # grid_sample counts from -1, the first pixel's centre, to 1, the last one's.
    unit = torch.tensor([[2 / (columns - 1), 0, -1], [0, 2 / (rows - 1), -1], [0, 0, 1]], dtype=torch.float64)
    backward = unit @ torch.linalg.inv(homography.to("cpu", torch.float64))
    u, v, w = (a * x + (b * y + c) for a, b, c in backward.tolist())
    w = w.clamp(min=1e-9)  # what lies behind the camera goes far outside
    grid = torch.stack([u / w, v / w])
    inside = grid.abs().amax(dim=0) <= 1
    return F.grid_sample(image[None], grid.permute(1, 2, 0)[None], align_corners=True)[0], inside


def warp_depth(
    image: torch.Tensor, depth: torch.Tensor, source: Camera, target: Camera
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a view shows from another camera: every pixel moves by its depth, the nearest surface wins (a z-buffer).

    A pixel is a square of one colour, in parts that move on their own; where they land in one pixel they mix.

    Args:
        image: floating point [C, H, W]; depth: z-depth [H, W] in the unit of the extrinsics, unknown where not positive
            or not finite; both of the unbatched camera `source`.
        target: unbatched camera; the result has its size.

    Returns:
        The warped image [C, height, width], zero in holes, and bool [height, width]: what the source view shows.
    """
    known = (depth > 0) & depth.isfinite()
    inverse = _subdivide_inverse_depth(torch.where(known, 1 / depth, 0).to("cpu", torch.float64))
    fine = source.resize(_PARTS * source.width, _PARTS * source.height)
    position, z = target.project(fine.unproject(pixel_centers(fine.width, fine.height), 1 / inverse.flatten()))
    x, y = position.floor().unbind(dim=-1)
    lands = (inverse.flatten() > 0) & (z > 0) & (x >= 0) & (x < target.width) & (y >= 0) & (y < target.height)
    pixel, z = (y * target.width + x)[lands].long(), z[lands]

    count = target.width * target.height
    nearest = torch.full((count,), torch.inf, dtype=z.dtype).scatter_reduce(0, pixel, z, "amin")
    front = (z <= nearest[pixel] * (1 + _SAME_SURFACE)).to(z.dtype)
    colors = (
        image.repeat_interleave(_PARTS, dim=-1).repeat_interleave(_PARTS, dim=-2).flatten(1)[:, lands.to(image.device)]
    )
    total = torch.zeros(count, dtype=z.dtype).index_add(0, pixel, front)
    mixed = torch.zeros(len(colors), count, dtype=z.dtype).index_add(1, pixel, colors.to("cpu", z.dtype) * front)
    size = (target.height, target.width)
    return (mixed / total.clamp(min=1)).to(image).unflatten(1, size), (total > 0).to(image.device).unflatten(0, size)


def _subdivide_inverse_depth(inverse: torch.Tensor) -> torch.Tensor:
    """Inverse depth [H, W] of the parts of pixels: linear, as on a plane, within a surface; constant at its edges."""
    size = [_PARTS * side for side in inverse.shape]
    constant = F.interpolate(inverse[None, None], size=size, mode="nearest-exact")[0, 0]
    linear = F.interpolate(inverse[None, None], size=size, mode="bilinear")[0, 0]
    return torch.where((linear - constant).abs() < _SAME_SURFACE * constant, linear, constant)
