"""The plane sweep, against homographies, rendered planes and closed forms."""

from __future__ import annotations

import pytest
import torch

from torch_utils.cameras import Camera, View, relative_pose
from torch_utils.plane_sweep import sweep_planes
from torch_utils.turning import turned_view
from torch_utils.warping import euler_rotation, warp_depth

SIDE = 24


def smooth_picture() -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.rand(1, 3, 4, 4) * 255
    return torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear")[0].round().to(torch.uint8)


def cameras(rotation: torch.Tensor, translation: list[float]) -> tuple[Camera, Camera]:
    extrinsics = torch.cat([rotation, torch.tensor(translation, dtype=torch.float64)[:, None]], dim=1)
    return Camera.from_fov(60, SIDE, SIDE), Camera.from_fov(50, SIDE, SIDE, extrinsics)


def sweep(view: View, target: Camera, inverse_depths: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    pose = relative_pose(view.camera, target)[None]
    image = view.image[None].to(torch.float64)
    cameras = (pose, view.camera.intrinsics[None], target.intrinsics[None])
    planes, inside = sweep_planes(image, *cameras, torch.tensor(inverse_depths))
    return planes[0], inside[0, :, 0]


def test_same_camera_gives_the_picture_back_at_every_depth() -> None:
    camera = Camera.from_fov(60, SIDE, SIDE)
    planes, inside = sweep(View(smooth_picture(), camera), camera, [0, 0.3, 2])
    assert inside.all()
    torch.testing.assert_close(planes, smooth_picture().to(planes).expand_as(planes), atol=1e-4, rtol=0)


@pytest.mark.parametrize("translation", [[0.0, 0, 0], [0.4, -0.2, 0.3]])
def test_infinite_depth_is_the_homography_of_a_turn(translation: list[float]) -> None:
    source, target = cameras(euler_rotation(3, 8, -5), translation)
    planes, inside = sweep(View(smooth_picture(), source), target, [0])
    turned = Camera(target.intrinsics, torch.cat([target.rotation, torch.zeros(3, 1)], dim=1), SIDE, SIDE)
    expected, seen = turned_view(View(smooth_picture(), source), turned)
    assert 0.5 < seen.double().mean() < 1
    assert (inside[0] | ~seen).all()
    torch.testing.assert_close(planes[0] * seen, (expected * seen).to(planes), atol=0.51, rtol=0)  # 8 bits


def test_the_plane_at_the_true_depth_is_the_view_from_there() -> None:
    source, target = cameras(euler_rotation(0, 0, 0), [0.3, 0.1, -0.2])
    depth_in_target = 2.0
    depth = torch.full((SIDE, SIDE), depth_in_target + 0.2, dtype=torch.float64)  # a plane parallel to both pictures
    planes, inside = sweep(View(smooth_picture(), source), target, [0, 1 / depth_in_target])
    expected, seen = warp_depth(smooth_picture().to(torch.float64), depth, source, target)
    both = inside[1] & seen
    error = ((planes - expected).abs() * both).mean(dim=(1, 2, 3))
    assert both.double().mean() > 0.4
    assert error[1] < 0.2 * error[0]


def test_what_lies_behind_the_source_camera_is_not_seen() -> None:
    source, target = cameras(euler_rotation(0, 180, 0), [0.0, 0, 0])
    _, inside = sweep(View(smooth_picture(), source), target, [0, 1])
    assert not inside.any()


def test_the_border_of_the_source_goes_on_where_it_has_no_pixel() -> None:
    source, target = cameras(euler_rotation(0, 0, 0), [5.0, 0, 0])  # all of the source lies far to one side
    planes, inside = sweep(View(smooth_picture(), source), target, [1])
    assert not inside.any()
    assert (planes.std(dim=-1) < 1e-6).all()  # one column, again and again
    assert planes.min() >= smooth_picture().min()
    assert planes.max() <= smooth_picture().max()
