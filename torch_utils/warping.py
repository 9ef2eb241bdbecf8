"""Warps of one view to another: by the homography of a rotation, by planes of one depth, by the depth of each pixel.

In all of them the centre of the first pixel lies at (0.5, 0.5), as in `torch_utils.cameras`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_utils.cameras import Camera, View, pixel_centers, relative_pose

Angle = float | torch.Tensor

_PARTS = 4  # of a pixel along each axis when it moves by its depth: surfaces stay closed up to so many times their size
_SAME_PLACE = 1e-6  # in the unit of the extrinsics
_ROUNDING = 2e-6  # relative, of poses in float32 or with six digits
_EDGE_ROUNDING = 1e-5  # of half the image: a view that has not moved lies within itself up to its edge
_SAME_SURFACE = 0.05  # relative difference of two depths up to which they belong to one surface


def euler_rotation(roll_deg: Angle, yaw_deg: Angle, pitch_deg: Angle) -> torch.Tensor:
    """R = Rz(roll) Ry(yaw) Rx(pitch), float64 [..., 3, 3], for angles in degrees, numbers or tensors [...]."""
    from scipy.spatial.transform import Rotation

    angles = torch.broadcast_tensors(*(torch.as_tensor(a, dtype=torch.float64) for a in (pitch_deg, yaw_deg, roll_deg)))
    flat = torch.stack([angle.flatten() for angle in angles], dim=1)
    rotations = Rotation.from_euler("xyz", flat.numpy(), degrees=True)  # about the axes as they were, x first
    return torch.from_numpy(rotations.as_matrix()).reshape(*angles[0].shape, 3, 3)


def rotation_homography(intrinsics: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """H = K R K^-1 [..., 3, 3]: where a pixel goes when the camera turns on the spot.

    The rotation is world-to-new-camera, the old camera's being 1 (docs/method.md, section 7.5).
    """
    return intrinsics @ rotation @ torch.linalg.inv(intrinsics)


def warp_homography(
    image: torch.Tensor, homography: torch.Tensor, box: tuple[int, int, int, int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new view: at p it is the image at H^-1 p, bilinear, zero outside (docs/method.md, section 7.5).

    Args:
        image: floating point [C, H, W].
        homography: [3, 3], from pixels of the image to those of the new view.
        box: (left, top, width, height), the part of the new view to compute; by default as large as the image.

    Returns:
        The new view [C, height, width], and bool [height, width]: whether the pixel lies wholly within the image, not
        beyond the centres of its outermost pixels.
    """
    rows, columns = image.shape[-2:]
    left, top, width, height = box or (0, 0, columns, rows)
    x = torch.arange(left, left + width, dtype=image.dtype, device=image.device)
    y = torch.arange(top, top + height, dtype=image.dtype, device=image.device)[:, None]
    # grid_sample counts from -1, the first pixel's centre, to 1, the last one's; x and y are indices.
    center = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
    unit = torch.tensor([[2 / (columns - 1), 0, -1], [0, 2 / (rows - 1), -1], [0, 0, 1]], dtype=torch.float64)
    backward = unit @ torch.linalg.inv(center) @ torch.linalg.inv(homography.to("cpu", torch.float64)) @ center
    u, v, w = (a * x + (b * y + c) for a, b, c in backward.tolist())
    w = w.clamp(min=1e-9)  # what lies behind the camera goes far outside
    grid = torch.stack([u / w, v / w], dim=-1)
    inside = grid.abs().amax(dim=-1) <= 1 + _EDGE_ROUNDING
    return F.grid_sample(image[None], grid[None], align_corners=True)[0], inside


def same_place(first: Camera, second: Camera) -> bool:
    """Whether two cameras stand in one place, so that a homography takes the picture of one to that of the other.

    A difference that the rounding of their numbers explains is none; it grows with the distance from the origin.
    """
    away = float(first.translation.norm() + second.translation.norm())
    return float(relative_pose(first, second)[:3, 3].norm()) <= _SAME_PLACE + _ROUNDING * away


def turned_view(view: View, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture that `camera` takes in the place of `view`: K_tgt R K_src^-1, bilinear.

    The one novel view whose truth is known: a camera that only turns or zooms sees nothing new. The view is first
    brought to the scale of the camera's picture, so that shrinking does not alias.

    Returns:
        uint8 [3, H, W] of the camera's size, and bool [H, W]: which pixels the view shows; others are 0.
    """
    scale = float(camera.intrinsics[0, 0] / view.camera.intrinsics[0, 0])
    if scale < 1:
        view = view.resize(*(max(round(side * scale), 2) for side in (view.camera.width, view.camera.height)))
    rotation = relative_pose(view.camera, camera)[:3, :3].mT
    homography = camera.intrinsics @ rotation @ torch.linalg.inv(view.camera.intrinsics)
    image, inside = warp_homography(view.image.to(torch.float32), homography, (0, 0, camera.width, camera.height))
    return (image * inside).round().to(torch.uint8), inside


def sweep_planes(
    image: torch.Tensor,
    pose: torch.Tensor,
    k_source: torch.Tensor,
    k_target: torch.Tensor,
    inverse_depths: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The view moved to the target camera by way of planes parallel to the target's image (Collins 1996).

    A target pixel p at inverse depth w comes from the source pixel K_src (R K_tgt^-1 p + w t). At w = 0 that is the
    homography K_src R K_tgt^-1 of a camera that only turns; where the guess of w is true, so is the picture.

    Args:
        image: source views, floating point [B, C, R, R].
        pose: [B, 4, 4] target camera to source camera, of R and t; intrinsics [B, 3, 3] in pixels.
        inverse_depths: of the planes [P], in one over the unit of the pose.

    Returns:
        Views [B, C, P, R, R], bilinear, their border going on outwards; bool [B, P, R, R], which pixels lie inside.
    """
    batch, _, height, width = image.shape
    # grid_sample counts from -1, the left edge of the first pixel, to 1, the right edge of the last.
    unit = torch.tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]], dtype=pose.dtype, device=pose.device)
    to_grid = unit @ k_source
    pixels = F.pad(pixel_centers(width, height).to(pose), (0, 1), value=1.0).mT
    turned = to_grid @ pose[:, :3, :3] @ torch.linalg.inv(k_target) @ pixels  # [B, 3, R*R]
    shift = to_grid @ pose[:, :3, 3:] * inverse_depths.to(pose)  # [B, 3, P]
    xy, z = (turned[:, :, None] + shift[..., None]).split([2, 1], dim=1)
    inside = (z > 0) & (xy.abs().amax(dim=1, keepdim=True) <= z)
    grid = (xy / z.clamp(min=1e-6)).clamp(-2, 2).reshape(batch, 2, -1, width).movedim(1, -1)
    planes = F.grid_sample(image, grid.to(image), padding_mode="border", align_corners=False)
    return planes.unflatten(2, (-1, height)), inside.squeeze(1).unflatten(2, (height, width))


def warp_depth(
    image: torch.Tensor, depth: torch.Tensor, source: Camera, target: Camera
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a view as another camera shows it: every pixel moves by its depth, the nearest wins (a z-buffer).

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
