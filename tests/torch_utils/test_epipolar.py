from __future__ import annotations

import pytest
import torch

from tests.golden import relative_error, tensors
from torch_utils.cameras import Camera, pixel_centers, relative_pose
from torch_utils.epipolar import epipolar_distance, fundamental_matrix, nudge_translation
from torch_utils.geometry_vector import split_geometry


@pytest.mark.parametrize("patch", [4, 8])
def test_distances_are_the_published_ones(patch: int) -> None:
    cameras = split_geometry(tensors()["geometry/64"][:2], 64)
    ours = epipolar_distance(*cameras, 64, 64 // patch)
    assert relative_error(ours, tensors()[f"epipolar_distance/patch{patch}"]) < 1e-5


def test_a_point_lies_on_its_own_epipolar_line() -> None:
    source = Camera.from_fov(70, 32, 32)
    turn = torch.tensor([[0.98, 0, 0.199, 0.5], [0, 1, 0, -0.2], [-0.199, 0, 0.98, 0.1]], dtype=torch.float64)
    target = Camera.from_fov(60, 32, 32, turn)
    points = torch.tensor([[0.2, 0.1, 3.0], [-0.5, 0.4, 5.0], [0.0, 0.0, 2.0]])
    (in_source, _), (in_target, _) = source.project(points), target.project(points)
    one = torch.ones(3, 1, dtype=torch.float64)
    f = fundamental_matrix(relative_pose(source, target), source.intrinsics, target.intrinsics)
    residual = (torch.cat([in_source, one], 1) * (torch.cat([in_target, one], 1) @ f.mT)).sum(1)
    torch.testing.assert_close(residual, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-3)


def test_sideways_motion_has_horizontal_lines() -> None:
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, 0, 3] = 1.0
    k = Camera.from_fov(60, 8, 8).intrinsics[None]
    y = pixel_centers(8, 8)[:, 1]
    expected = (y[:, None] - y[None, :]).abs()
    # the nudge gives y a shift of 1e-5 and z one of a tenth of the whole: lines turn by that much
    assert float((epipolar_distance(nudge_translation(pose), k, k, 8, 8)[0] - expected).abs().max()) < 1.0


def test_without_translation_lines_exist_and_the_input_stays_as_it_was() -> None:
    pose = torch.eye(4)[None].repeat(2, 1, 1)
    before = pose.clone()
    k = Camera.from_fov(60, 16, 16).intrinsics.float()[None]
    distance = epipolar_distance(pose, k, k, 16, 4)
    assert torch.equal(pose, before)
    assert bool(torch.isfinite(distance).all())
    assert torch.equal(distance, epipolar_distance(pose, k, k, 16, 4))
    x, y, z = nudge_translation(pose)[0, :3, 3].tolist()
    assert (x, y) == pytest.approx((1e-5, 1e-5))
    assert z == pytest.approx(0.1 * 2**0.5 * 1e-5)


def test_a_tiny_z_counts_as_none_up_to_and_with_the_limit() -> None:
    pose = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    pose[:, :3, 3] = torch.tensor([[3.0, 4.0, 1e-5], [3.0, 4.0, -1e-5], [3.0, 4.0, 1.1e-5]])
    assert nudge_translation(pose)[:, 2, 3].tolist() == pytest.approx([0.5, 0.5, 1.1e-5])
