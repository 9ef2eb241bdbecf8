"""Square pictures out of a picture by turning its camera: the square around any point, with the axis in its middle."""

from __future__ import annotations

import math

import torch

from dnnlib.util import UserError
from torch_utils.cameras import Camera
from torch_utils.warping import euler_rotation

_INSET = 0.5  # pixels from the border to the centres of the outermost pixels, between which a picture is known


def aimed_square(camera: Camera, x: float, y: float) -> Camera:
    """The camera of the largest square picture within that of `camera` whose axis goes through a point of it.

    A square that is cut out around that point has its principal point off its middle, which networks are not told of
    and were not trained on. This camera stands in the same place, pans and tilts so that what is level stays level, and
    has the principal point in the middle: its picture is a homography of the other one (`turned_view`).

    Args:
        camera: unbatched.
        x, y: the point, as fractions of width and height.

    Returns: a camera with as many pixels to a degree in its middle as `camera` has in its own.

    Raises UserError where the square would have less than half of the shorter side.
    """
    point = torch.tensor([x * camera.width, y * camera.height, 1.0], dtype=torch.float64)
    right, down, ahead = (torch.linalg.inv(camera.intrinsics) @ point).tolist()
    pan, tilt = math.atan2(right, ahead), math.atan2(-down, math.hypot(right, ahead))
    rotation = euler_rotation(0, 0, -math.degrees(tilt)) @ euler_rotation(0, -math.degrees(pan), 0)
    half = _half_side(camera, rotation)
    focal = float(camera.focal_and_center[:2].mean())
    shorter = min(camera.width, camera.height)
    if not half * focal >= shorter / 4:
        raise UserError(
            f"around ({x:g}, {y:g}) there is no square of half the shorter side of {camera.width}x{camera.height}: "
            "choose a point nearer to the middle"
        )
    side = round(2 * half * focal)
    intrinsics = torch.tensor(
        [[side / 2 / half, 0, side / 2], [0, side / 2 / half, side / 2], [0, 0, 1]], dtype=torch.float64
    )
    extrinsics = rotation @ camera.extrinsics
    return Camera(intrinsics, extrinsics, side, side, camera.frame_side)


def _half_side(camera: Camera, rotation: torch.Tensor) -> float:
    """Half the side of the square, at distance 1; not positive where the point itself is not within the picture.

    The corner (i, j) of a square of half side t is the pixel (u, v)/w of K R^T (i t, j t, 1). All four lie within the
    picture, w being positive, where four expressions, u - m w and so on, which are linear in t, are not negative.
    """
    to_pixels = camera.intrinsics @ rotation.mT
    last_x, last_y = camera.width - _INSET, camera.height - _INSET
    borders = torch.tensor([[1, 0, -_INSET], [-1, 0, last_x], [0, 1, -_INSET], [0, -1, last_y]], dtype=torch.float64)
    corners = torch.tensor([[i, j, 0] for i in (-1, 1) for j in (-1, 1)], dtype=torch.float64)
    middle = borders @ to_pixels[:, 2]
    slopes = borders @ to_pixels @ corners.mT  # [border, corner]
    limits = torch.where(slopes < 0, -middle[:, None] / slopes, torch.inf)
    return float(limits.min()) if bool((middle > 0).all()) else 0.0
