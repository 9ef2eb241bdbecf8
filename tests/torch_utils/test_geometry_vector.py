from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import relative_error, tensors, vectors
from tests.torch_utils.some_cameras import golden_cameras
from torch_utils.cameras import Camera, relative_pose
from torch_utils.geometry_vector import (
    denormalize_geometry,
    geometry_vector,
    normalize_geometry,
    resize_geometry,
    split_geometry,
)


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    return golden_cameras()


@pytest.mark.parametrize("resolution", [64, 256])
@pytest.mark.parametrize("published", [False, True])
def test_geometry_vector_is_the_published_one(cameras: list[Camera], resolution: int, published: bool) -> None:
    name = f"geometry/{resolution}" + ("_published_code" if published else "")
    pairs = vectors()["camera_pairs_src_tgt"]
    ours = torch.stack([geometry_vector(cameras[s], cameras[t], resolution, published) for s, t in pairs])
    assert ours.dtype == torch.float32
    assert relative_error(ours, tensors()[name]) < 1e-5


def test_geometry_vector_converts_between_resolutions() -> None:
    expected = tensors()["geometry/resized_64_to_256"]
    assert relative_error(resize_geometry(tensors()["geometry/64"][:3], 64, 256), expected) < 1e-5


def test_geometry_vector_does_not_care_whether_cameras_are_cropped_already(cameras: list[Camera]) -> None:
    small = [camera.crop_center().resize(256) for camera in cameras]
    for published in (False, True):
        a = geometry_vector(cameras[0], cameras[1], 64, published)
        b = geometry_vector(small[0], small[1], 64, published)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_split_geometry_recovers_the_cameras(cameras: list[Camera]) -> None:
    vector = geometry_vector(cameras[0], cameras[1], 64)[None].double()
    pose, k_source, k_target = split_geometry(vector, 64)
    torch.testing.assert_close(pose[0], relative_pose(cameras[0], cameras[1]), rtol=0, atol=1e-6)
    for k, camera in ((k_source, cameras[0]), (k_target, cameras[1])):
        torch.testing.assert_close(k[0], camera.crop_center().resize(64).intrinsics, rtol=0, atol=1e-4)


@given(st.lists(st.floats(-5, 5), min_size=20, max_size=20), st.sampled_from([32, 64, 256]))
@settings(deadline=None, max_examples=30)
def test_normalising_undoes_denormalising(numbers: list[float], resolution: int) -> None:
    vector = torch.tensor(numbers, dtype=torch.float64)
    vector[[14, 15, 18, 19]] = 0  # the principal point has no spread: it comes back as the centre
    plain = denormalize_geometry(vector, resolution)
    assert torch.equal(plain[[14, 15, 18, 19]], torch.full((4,), resolution / 2, dtype=torch.float64))
    torch.testing.assert_close(normalize_geometry(plain, resolution).double(), vector, rtol=1e-5, atol=1e-5)


def test_batched_is_looped(cameras: list[Camera]) -> None:
    batch = Camera(torch.stack([c.intrinsics for c in cameras]), torch.stack([c.extrinsics for c in cameras]), 640, 360)
    torch.testing.assert_close(geometry_vector(batch, batch, 64)[1], geometry_vector(cameras[1], cameras[1], 64))
