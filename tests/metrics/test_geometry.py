from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from metrics.geometry import THRESHOLD_PX, THRESHOLD_SIDE, median_epipolar_distance
from tests.metrics.scenes import synthetic_pairs
from torch_utils.cameras import Camera
from torch_utils.matching import Keypoints, match, sift, symmetric_epipolar_distance
from torch_utils.warping import euler_rotation


def camera(yaw_deg: float, pitch_deg: float, shift: tuple[float, float, float]) -> Camera:
    rotation = euler_rotation(2.0, yaw_deg, pitch_deg)
    return Camera.from_fov(60, 100, 80, torch.cat([rotation, torch.tensor(shift)[:, None]], dim=1))


def points_in_front(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, generator=generator, dtype=torch.float64) * 4 + torch.tensor([-2.0, -2.0, 3.0])


@settings(deadline=None, max_examples=20)
@given(st.floats(-20, 20), st.floats(-20, 20), st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)))
def test_true_correspondences_have_no_distance(yaw: float, pitch: float, shift: tuple[float, float, float]) -> None:
    """Projections of world points; the translation is either none or not tiny."""
    shift = tuple(0.0 if abs(x) < 1e-3 else x for x in shift)
    source, target = camera(0, 0, (0, 0, 0)), camera(yaw, pitch, shift)
    points = points_in_front(20)
    pixels = [view.project(points)[0].numpy() for view in (source, target)]
    np.testing.assert_allclose(symmetric_epipolar_distance(*pixels, source, target), 0, atol=1e-6)


def test_distance_across_the_lines() -> None:
    """A sideways step of the camera has horizontal lines: the distance is the vertical offset, in both images."""
    source = Camera.from_fov(60, 100, 80)
    target = Camera.from_fov(60, 100, 80, torch.tensor([[1.0, 0, 0, -0.5], [0, 1, 0, 0], [0, 0, 1, 0]]))
    pixels = source.project(points_in_front(6))[0].numpy()
    moved = target.project(points_in_front(6))[0].numpy() + np.array([5.0, 3.0])
    np.testing.assert_allclose(symmetric_epipolar_distance(pixels, moved, source, target), 3, rtol=1e-9)


def test_swapping_the_views_changes_nothing() -> None:
    source, target = camera(0, 0, (0, 0, 0)), camera(10, -5, (0.3, 0.1, -0.4))
    pixels = np.random.default_rng(0).random((2, 30, 2)) * 80
    forward = symmetric_epipolar_distance(pixels[0], pixels[1], source, target)
    np.testing.assert_allclose(forward, symmetric_epipolar_distance(pixels[1], pixels[0], target, source), rtol=1e-9)


def test_pure_rotation_compares_with_the_homography() -> None:
    source, target = camera(0, 0, (0, 0, 0)), camera(8, 3, (0, 0, 0))
    pixels = [view.project(points_in_front(9))[0].numpy() for view in (source, target)]
    np.testing.assert_allclose(symmetric_epipolar_distance(*pixels, source, target), 0, atol=1e-9)
    still = symmetric_epipolar_distance(pixels[0], pixels[0] + np.array([3.0, 4.0]), source, source)
    np.testing.assert_allclose(still, 5, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("away", [0.0, 1.0, 37.0, 1000.0])
def test_a_turning_camera_may_be_anywhere(away: float, dtype: torch.dtype) -> None:
    """Its distances do not depend on where the world's origin is, nor on the rounding that comes with it."""
    center = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) * away
    pixels = np.random.default_rng(0).random((2, 30, 2)) * 80

    def turned(yaw: float, at: torch.Tensor) -> Camera:
        rotation = camera(yaw, 3, (0, 0, 0)).rotation
        extrinsics = torch.cat([rotation, -rotation @ at[:, None]], dim=1)
        return Camera.from_fov(60, 100, 80, extrinsics.to(dtype))

    found = symmetric_epipolar_distance(*pixels, turned(2, center), turned(9, center))
    expected = symmetric_epipolar_distance(*pixels, *(turned(yaw, torch.zeros(3).double()) for yaw in (2, 9)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_sift_finds_the_centre_of_a_blob() -> None:
    """To 0.05 pixels, in coordinates where pixel (0, 0) has its centre at (0.5, 0.5)."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(8):
        x, y = rng.uniform(25, 40, 2)
        columns, rows = np.arange(64) + 0.5, np.arange(64)[:, None] + 0.5
        blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
        points = sift(np.repeat(blob.round().astype(np.uint8)[:, :, None], 3, axis=2)).pixels
        offsets = points - [x, y]
        errors.append(offsets[np.linalg.norm(offsets, axis=1).argmin()])
    np.testing.assert_allclose(np.mean(errors, axis=0), 0, atol=0.05)
    assert np.abs(errors).max() < 0.15


def test_no_texture_no_points() -> None:
    grey = sift(np.full((32, 32, 3), 128, np.uint8))
    assert grey.pixels.shape == (0, 2)
    assert len(match(grey, grey)) == 0
    view = camera(0, 0, (0, 0, 0))
    assert median_epipolar_distance(grey, grey, view, view) == float("inf")


def test_real_stereo_pair() -> None:
    """Part of Middlebury's motorcycle: the true baseline fits to half a pixel, an upright one does not."""
    left, right, _ = data.stereo_motorcycle()

    def view(center_x: float, offset: tuple[float, float, float]) -> Camera:
        matrix = torch.tensor([[994.978, 0, center_x], [0, 994.978, 254.877], [0, 0, 1]])
        camera = Camera(matrix, torch.cat([torch.eye(3), -torch.tensor(offset)[:, None]], dim=1), 741, 500)
        return camera.crop(150, 100, 320, 240)

    points = [sift(image[100:340, 150:470]) for image in (left, right)]
    source = view(311.193, (0, 0, 0))
    assert median_epipolar_distance(*points, source, view(311.193 + 31.086, (0.193001, 0, 0))) < 0.5
    assert median_epipolar_distance(*points, source, view(311.193 + 31.086, (0, 0.193001, 0))) > 10


def test_pose_of_another_view_does_not_fit() -> None:
    """True targets lie where their pose says, to a fraction of a pixel; the source, as a copy, does not."""
    true, copied = [], []
    for pair in synthetic_pairs(8):
        source, target = (sift(view.image.permute(1, 2, 0).numpy()) for view in (pair.source, pair.target))
        true.append(median_epipolar_distance(source, target, pair.source.camera, pair.target.camera))
        copied.append(median_epipolar_distance(source, source, pair.source.camera, pair.target.camera))
    assert max(distance for distance in true if distance < float("inf")) < 0.25
    assert np.median(true) < 0.25 < 1.5 < np.median(copied)


def test_too_few_matches_are_no_evidence() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.integers(0, 255, (12, 128), dtype=np.uint8)
    points = Keypoints(rng.random((12, 2)) * 60, descriptors)
    view = camera(0, 0, (0, 0, 0))
    assert median_epipolar_distance(points, points, view, view) < 1e-9
    ten = Keypoints(points.pixels[:10], descriptors[:10])
    assert median_epipolar_distance(points, ten, view, view) < 1e-9
    nine = Keypoints(points.pixels[:9], descriptors[:9])
    assert median_epipolar_distance(points, nine, view, view) == float("inf")


def test_the_threshold_is_theirs() -> None:
    """2 pixels at 256 x 256: Yu et al. 2023, section 4.1."""
    assert (THRESHOLD_PX, THRESHOLD_SIDE) == (2.0, 256)
