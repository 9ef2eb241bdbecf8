"""What a view shows to a camera that has only turned or zoomed: the one novel view whose truth is known."""

from __future__ import annotations

import torch

from torch_utils.cameras import Camera, View, relative_pose
from torch_utils.warping import warp_homography

_SAME_PLACE = 1e-6  # in the unit of the extrinsics


def same_place(first: Camera, second: Camera) -> bool:
    """Whether two cameras stand in one place, so that a homography takes the picture of one to that of the other."""
    return float(relative_pose(first, second)[:3, 3].norm()) <= _SAME_PLACE


def turned_view(view: View, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture that `camera` takes in the place of `view`: K_tgt R K_src^-1, bilinear.

    The view is first brought to the scale of the camera's picture, so that shrinking does not alias.

    Returns:
        uint8 [3, H, W] of the camera's size, and bool [H, W]: which pixels the view shows; others are 0.
    """
    scale = float(camera.intrinsics[0, 0] / view.camera.intrinsics[0, 0])
    if scale < 1:
        view = view.resize(*(max(round(side * scale), 2) for side in (view.camera.width, view.camera.height)))
    rotation = relative_pose(view.camera, camera)[:3, :3].mT
    to_index = torch.eye(3, dtype=torch.float64)
    to_index[:2, 2] = -0.5  # warp_homography counts pixels by index
    homography = to_index @ camera.intrinsics @ rotation @ torch.linalg.inv(to_index @ view.camera.intrinsics)
    box = (0, 0, camera.width, camera.height)
    image, inside = warp_homography(view.image.to(torch.float32), homography, box)
    return (image * inside).round().to(torch.uint8), inside
