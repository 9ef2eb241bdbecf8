"""Warps of one view to another: the homography of a rotation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

Angle = float | torch.Tensor


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
