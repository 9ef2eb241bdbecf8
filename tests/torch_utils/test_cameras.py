from __future__ import annotations

import math

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib import UserError
from tests.golden import relative_error, tensors
from tests.torch_utils.some_cameras import FRAME, golden_cameras, random_cameras
from torch_utils.cameras import (
    Camera,
    View,
    pixel_centers,
    pixels_to_float,
    pixels_to_uint8,
    relative_pose,
    resize_image,
)
from torch_utils.geometry_vector import (
    geometry_vector,
)


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    return golden_cameras()


def snapshot(camera: Camera) -> tuple[torch.Tensor, torch.Tensor, int, int, int]:
    return camera.intrinsics.clone(), camera.extrinsics.clone(), camera.width, camera.height, camera.frame_side


def same(a: tuple, b: tuple) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2:] == b[2:]


def test_crop_and_resize_give_the_published_intrinsics(cameras: list[Camera]) -> None:
    ours = torch.stack([camera.crop_center().resize(64).intrinsics for camera in cameras])
    assert relative_error(ours, tensors()["geometry/K_64"]) < 1e-6


@given(random_cameras(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_project_undoes_unproject(camera: Camera, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(7, 2, generator=generator, dtype=torch.float64) * torch.tensor([camera.width, camera.height])
    depth = torch.rand(7, generator=generator, dtype=torch.float64) * 9 + 0.1
    again, z = camera.project(camera.unproject(pixels, depth))
    torch.testing.assert_close(again, pixels, rtol=0, atol=1e-6)
    torch.testing.assert_close(z, depth, rtol=0, atol=1e-9)


@given(random_cameras())
@settings(deadline=None, max_examples=30)
def test_rays_start_at_the_centre_and_pass_through_their_pixels(camera: Camera) -> None:
    pixels = torch.tensor([[0.5, 0.5], [camera.width / 2, camera.height / 3]], dtype=torch.float64)
    origins, directions = camera.rays(pixels)
    torch.testing.assert_close(origins[0], camera.center)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, dtype=torch.float64))
    again, depth = camera.project(origins + 3 * directions)
    torch.testing.assert_close(again, pixels, rtol=0, atol=1e-6)
    assert bool((depth > 0).all())


@given(random_cameras(), st.integers(1, 300))
@settings(deadline=None, max_examples=50)
def test_crop_then_resize_is_the_closed_form_and_changes_no_argument(camera: Camera, size: int) -> None:
    before = snapshot(camera)
    small = camera.crop_center().resize(size)
    side = min(camera.width, camera.height)
    corner = torch.tensor([math.floor((camera.width - side) / 2), math.floor((camera.height - side) / 2)])
    fx, fy, cx, cy = camera.focal_and_center
    expected = torch.stack([fx, fy, cx - corner[0], cy - corner[1]]) * (size / side)
    torch.testing.assert_close(small.focal_and_center, expected)
    assert (small.width, small.height, small.frame_side) == (size, size, side)
    assert same(before, snapshot(camera))
    assert same(snapshot(small), snapshot(camera.crop_center().resize(size)))


def test_a_point_keeps_its_place_in_the_picture_through_crop_and_resize(cameras: list[Camera]) -> None:
    point = torch.tensor([[0.1, 0.2, 3.0]])
    (before, _), (after, _) = cameras[0].project(point), cameras[0].crop_center().resize(90).project(point)
    torch.testing.assert_close(after, (before - torch.tensor([140.0, 0.0])) / 4)


def test_batched_is_looped(cameras: list[Camera]) -> None:
    batch = Camera(torch.stack([c.intrinsics for c in cameras]), torch.stack([c.extrinsics for c in cameras]), *FRAME)
    pixels, depth = pixel_centers(3, 2), torch.linspace(1, 2, 6)
    points = batch.unproject(pixels, depth)
    for index, camera in enumerate(cameras):
        torch.testing.assert_close(points[index], camera.unproject(pixels, depth))
        torch.testing.assert_close(batch.project(points)[0][index], camera.project(points[index])[0])
        torch.testing.assert_close(batch.rays(pixels)[1][index], camera.rays(pixels)[1])


def test_kornia_agrees(cameras: list[Camera]) -> None:
    camera = cameras[1]
    four = torch.eye(4, dtype=torch.float64)
    intrinsics, extrinsics = four.clone(), four.clone()
    intrinsics[:3, :3], extrinsics[:3] = camera.intrinsics, camera.extrinsics
    height, width = torch.tensor([float(FRAME[1])]), torch.tensor([float(FRAME[0])])
    other = kornia.geometry.camera.PinholeCamera(intrinsics[None], extrinsics[None], height, width)
    pixels, depth = torch.rand(9, 2, dtype=torch.float64) * 300, torch.rand(9, dtype=torch.float64) + 0.5
    points = camera.unproject(pixels, depth)
    # kornia inverts with the transpose of the rotation, which the file gives to nine digits
    torch.testing.assert_close(points, other.unproject(pixels[None], depth[None, :, None])[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(camera.project(points)[0], other.project(points[None])[0])
    theirs = kornia.geometry.linalg.relative_transformation(
        *(torch.linalg.inv(torch.cat([camera.extrinsics, four[3:]]))[None] for camera in cameras[:2])
    )
    torch.testing.assert_close(relative_pose(cameras[0], cameras[1])[None], theirs, rtol=0, atol=1e-6)


def test_relative_pose_takes_target_coordinates_to_source_coordinates(cameras: list[Camera]) -> None:
    source, target = cameras[:2]
    world = torch.tensor([[0.3, -0.2, 4.0]], dtype=torch.float64)

    def local(camera: Camera) -> torch.Tensor:
        return torch.cat([world @ camera.rotation.mT + camera.translation, torch.ones(1, 1)], dim=1)

    torch.testing.assert_close(local(target) @ relative_pose(source, target).mT, local(source))


def test_view_moves_image_and_camera_together() -> None:
    image = torch.randint(0, 256, (3, 36, 64), dtype=torch.uint8)
    camera = Camera.from_fov(60, 64, 36)
    view = View(image, camera, depth=torch.arange(36 * 64).reshape(36, 64).float())
    square = view.square(18)
    assert square.image.shape == (3, 18, 18)
    assert square.depth.shape == (18, 18)
    assert (square.camera.width, square.camera.height) == (18, 18)
    assert torch.equal(view.crop_center().image, image[:, :, 14:50])
    mean = resize_image(image[:, :, 14:50].float(), 18, 18)
    assert float((square.image.float() - mean).abs().max()) <= 1  # the 8-bit resize rounds
    assert torch.equal(view.image, image)


@pytest.mark.parametrize(
    ("center", "box"),
    [
        ((32, 18), (14, 0, 36, 36)),
        ((32.9, 17.1), (14, 0, 36, 36)),  # within a pixel of the middle, as corners that are rounded down leave it
        ((25, 18), (7, 0, 36, 36)),
        ((25, 15), (10, 0, 30, 30)),  # the largest square around it
        ((50, 21.4), (36, 7, 28, 28)),
        ((32, 12), (20, 0, 24, 24)),
    ],
)
def test_squares_are_cropped_around_the_principal_point(
    center: tuple[float, float], box: tuple[int, int, int, int]
) -> None:
    """What networks are told has it in the middle: there it has to be, to the pixel, at every size."""
    x, y = center
    camera = Camera(torch.tensor([[40.0, 0, x], [0, 40, y], [0, 0, 1]]), torch.eye(3, 4), 64, 36)
    assert camera.square_box() == box
    image = torch.arange(3 * 36 * 64).reshape(3, 36, 64).to(torch.uint8)
    left, top, side, _ = box
    view = View(image, camera).square(side)
    assert torch.equal(view.image, image[:, top : top + side, left : left + side])
    assert view.camera.focal_and_center[2:].tolist() == pytest.approx([x - left, y - top])
    middle = view.camera.focal_and_center[2:] - side / 2
    assert float(middle.abs().max()) <= 1
    large = view.resize(500)  # however large, it is not cropped again
    assert large.square(500) is large
    assert torch.equal(geometry_vector(camera, camera, 64), geometry_vector(large.camera, large.camera, 64))


def test_a_principal_point_near_the_edge_is_refused_and_batches_are_of_one() -> None:
    camera = Camera(torch.tensor([[40.0, 0, 8], [0, 40, 18], [0, 0, 1]]), torch.eye(3, 4), 64, 36)
    with pytest.raises(UserError, match=r"\(8, 18\) of a frame of 64x36 is so far from its middle"):
        camera.square_box()
    rows = torch.stack([Camera.from_fov(60, 64, 36).to_normalized()] * 2)
    rows[:, 2] = 0.4
    assert Camera.from_normalized(rows, 64, 36).square_box() == (8, 0, 36, 36)
    rows[1, 2] = 0.6
    with pytest.raises(ValueError, match="principal points of a batch of cameras differ"):
        Camera.from_normalized(rows, 64, 36).square_box()


def test_view_of_another_size_than_its_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8 image"):
        View(torch.zeros(3, 8, 8, dtype=torch.uint8), Camera.from_fov(60, 9, 8))


def test_pixels_survive_the_round_trip() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(pixels_to_uint8(pixels_to_float(values)), values)
    assert pixels_to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_from_fov_spans_the_shorter_side() -> None:
    camera = Camera.from_fov(90, 200, 100)
    np.testing.assert_allclose(camera.focal_and_center.tolist(), [50, 50, 100, 50])
