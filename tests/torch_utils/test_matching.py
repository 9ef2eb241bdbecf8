"""Points that two views have in common: found, matched, located."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from torch_utils.cameras import Camera
from torch_utils.matching import Keypoints, match, sift, symmetric_epipolar_distance, triangulate
from torch_utils.warping import euler_rotation


def camera(*, turn: float = 0.0, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Camera:
    rotation = euler_rotation(3, turn, -2)
    pose = torch.cat([rotation, -(rotation @ torch.tensor(center, dtype=torch.float64))[:, None]], dim=1)
    return Camera.from_fov(60, 128, 96, pose)


def test_points_come_back_from_their_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=generator, dtype=torch.float64) + torch.tensor([0, 0, 4])
    source, target = camera(), camera(turn=8, center=(1.0, 0.2, -0.5))
    (seen, depth), (seen_tgt, _) = source.project(points), target.project(points)
    found, parallax = triangulate(seen.numpy(), seen_tgt.numpy(), source, target)
    assert found == pytest.approx(depth.numpy(), rel=1e-9)
    a, b = points - source.center, points - target.center
    angle = torch.rad2deg(torch.arccos((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))))
    assert parallax == pytest.approx(angle.numpy(), rel=1e-6)


def test_rays_that_part_meet_behind_the_camera() -> None:
    source, target = camera(), camera(center=(1.0, 0.0, 0.0))
    ahead = torch.tensor([[64.0, 48.0]], dtype=torch.float64)
    aside = ahead + torch.tensor([[20.0, 0.0]])
    depth, _ = triangulate(ahead.numpy(), aside.numpy(), source, target)
    assert depth[0] < 0


def test_parallel_rays_have_no_parallax() -> None:
    pixels = torch.tensor([[64.0, 48.0]], dtype=torch.float64).numpy()
    _, parallax = triangulate(pixels, pixels, camera(), camera(center=(0.3, 0.0, 0.0)))
    assert parallax[0] == pytest.approx(0, abs=1e-5)


def keypoints(*descriptors: list[int]) -> Keypoints:
    return Keypoints(np.zeros((len(descriptors), 2)), np.array(descriptors, np.uint8))


def test_the_second_best_match_must_be_clearly_worse() -> None:
    """Lowe's ratio of distances is 0.8: 100 against 126 passes, 100 against 124 does not."""
    source = keypoints([0, 0], [0, 250])
    assert match(source, keypoints([100, 0], [126, 0], [0, 250])).tolist() == [[0, 0], [1, 2]]
    assert match(source, keypoints([100, 0], [124, 0], [0, 250])).tolist() == [[1, 2]]


def test_matches_are_each_others_best() -> None:
    """Both source points come nearest to the first target, which takes the nearer of them."""
    assert match(keypoints([10, 0], [30, 0]), keypoints([0, 0], [200, 0])).tolist() == [[0, 0]]


@pytest.mark.parametrize(("first", "second"), [(0, 3), (3, 0), (1, 3), (3, 1)])
def test_where_there_is_no_second_best_nothing_matches(first: int, second: int) -> None:
    points = [keypoints(*([k, 0] for k in range(count))) if count else keypoints() for count in (first, second)]
    assert match(*points).shape == (0, 2)


def test_points_lie_where_the_picture_is_moved_to() -> None:
    """By 5 and 3 pixels; what lies on a pixel's centre has a half in its coordinates."""
    image = data.astronaut()[:128, 100:228]
    one, two = sift(image), sift(image[3:, 5:])
    pairs = match(one, two)
    moved = one.pixels[pairs[:, 0]] - two.pixels[pairs[:, 1]]
    assert len(pairs) > 50
    assert np.median(moved, axis=0) == pytest.approx([5, 3], abs=0.05)
    mirrored = sift(image[:, ::-1])  # descriptors are not; positions in the middle of the image stay where they are
    assert np.median(mirrored.pixels[:, 0]) == pytest.approx(128 - np.median(one.pixels[:, 0]), abs=2)
    assert len(sift(np.full((32, 32, 3), 7, np.uint8)).pixels) == 0


def test_distances_from_epipolar_lines_by_hand() -> None:
    """A camera that moves sideways has horizontal lines: points that differ by 2 rows are 2 pixels off, both ways."""
    source, target = (Camera.from_fov(60, 128, 96, torch.eye(3, 4, dtype=torch.float64)) for _ in range(2))
    pose = torch.eye(3, 4, dtype=torch.float64)
    pose[0, 3] = 1
    target = Camera(target.intrinsics, pose, 128, 96)
    points = np.array([[20.0, 30.0], [60.5, 70.5]])
    found = symmetric_epipolar_distance(points, points + np.array([[7, 2], [-3, 0]]), source, target)
    assert found == pytest.approx([2, 0], abs=1e-9)


def test_distances_of_cameras_in_one_place_are_those_of_the_points() -> None:
    source = camera()
    turned = camera(turn=5)
    points = torch.tensor([[64.0, 48.0], [30.0, 20.0]], dtype=torch.float64)
    origin, rays = source.rays(points)
    seen, _ = turned.project(origin + rays)
    assert symmetric_epipolar_distance(points.numpy(), seen.numpy(), source, turned) == pytest.approx([0, 0], abs=1e-9)
    off = symmetric_epipolar_distance(points.numpy(), (seen + torch.tensor([3.0, 4.0])).numpy(), source, turned)
    assert off == pytest.approx([5, 5], rel=0.2)  # 5 pixels there, about as many where they come from
