"""Warps of one view to another: the homography of a rotation, and pixels moved by their depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_utils.cameras import Camera, pixel_centers

Angle = float | torch.Tensor

_MIN_WEIGHT = 0.25  # of a pixel: less of a surface there neither hides what lies behind nor counts as seen
_SAME_SURFACE = 0.05  # difference of two depths, relative, up to which they mix


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

    A pixel lands between four and is shared among them bilinearly, so surfaces stay closed up to nearly twice
    their size.

    Args:
        image: floating point [C, H, W]; depth: z-depth [H, W] in the unit of the extrinsics, unknown where not positive
            or not finite; both of the unbatched camera `source`.
        target: unbatched camera; the result has its size.

    Returns:
        The warped image [C, height, width], zero in holes, and bool [height, width]: what the source view shows.
    """
    points = source.unproject(pixel_centers(source.width, source.height), depth.flatten())
    position, z = target.project(points)
    moves = (depth.flatten() > 0) & depth.flatten().isfinite() & (z > 0)
    position, z = position[moves] - 0.5, z[moves].repeat(4)  # counted by index from here on
    steps = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    neighbours = position.floor().clamp(-2, max(target.width, target.height)).long() + steps[:, None]
    weight = (1 - (position - neighbours).abs()).prod(dim=-1).flatten()
    x, y = neighbours.flatten(0, 1).unbind(dim=-1)
    lands = (x >= 0) & (x < target.width) & (y >= 0) & (y < target.height)
    pixel, weight, z = (y * target.width + x)[lands], weight[lands], z[lands]

    count = target.width * target.height
    hides = weight >= _MIN_WEIGHT
    nearest = torch.full((count,), torch.inf, dtype=z.dtype)
    nearest = nearest.scatter_reduce(0, pixel[hides], z[hides], "amin")
    weight = torch.where(z <= nearest[pixel] * (1 + _SAME_SURFACE), weight, 0)
    colors = image.flatten(1)[:, moves].repeat(1, 4)[:, lands].to(weight)
    total = torch.zeros(count, dtype=weight.dtype).index_add(0, pixel, weight)
    warped = torch.zeros(len(colors), count, dtype=weight.dtype).index_add(1, pixel, colors * weight)
    visible = total >= _MIN_WEIGHT
    warped = torch.where(visible, warped / total.clamp(min=_MIN_WEIGHT), 0).to(image)
    return warped.unflatten(1, (target.height, target.width)), visible.unflatten(0, (target.height, target.width))
