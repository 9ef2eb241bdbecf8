"""The square around a point of a picture: where its axis goes, how large it is, and what it shows."""

from __future__ import annotations

import math

import pytest
import torch

from datasets.synthetic import random_scene, render
from dnnlib import UserError
from torch_utils.aiming import aimed_square
from torch_utils.cameras import Camera, View, intrinsics_matrix
from torch_utils.warping import turned_view

CAMERA = Camera.from_fov(58, 300, 200)
POINTS = [(0.5, 0.5), (0.3, 0.5), (0.7, 0.4), (0.5, 0.62), (0.36, 0.56)]


def corners(square: Camera) -> torch.Tensor:
    side = float(square.width)
    return torch.tensor([[0, 0], [side, 0], [side, side], [0, side]], dtype=torch.float64)


def seen_in(camera: Camera, square: Camera, pixels: torch.Tensor) -> torch.Tensor:
    return camera.project(square.unproject(pixels, torch.ones(len(pixels))))[0]


@pytest.mark.parametrize(("x", "y"), POINTS)
def test_the_axis_goes_through_the_point_and_level_stays_level(x: float, y: float) -> None:
    square = aimed_square(CAMERA, x, y)
    middle = torch.tensor([[square.width / 2, square.height / 2]], dtype=torch.float64)
    point = torch.tensor([[x * 300, y * 200]], dtype=torch.float64)
    assert torch.equal(square.intrinsics[:2, 2], middle[0])
    assert torch.allclose(seen_in(CAMERA, square, middle), point, atol=1e-9, rtol=0)
    assert float(square.rotation[0, 1]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("x", "y"), POINTS)
def test_it_is_the_largest_square_between_the_centres_of_the_outermost_pixels(x: float, y: float) -> None:
    square = aimed_square(CAMERA, x, y)
    pixels = seen_in(CAMERA, square, corners(square))
    slack = torch.stack([pixels - 0.5, torch.tensor([299.5, 199.5]) - pixels])
    assert float(slack.min()) == pytest.approx(0, abs=1e-9)
    _, known = turned_view(View(torch.zeros(3, 200, 300, dtype=torch.uint8), CAMERA), square)
    assert bool(known.all())


def test_the_size_of_a_square_that_is_panned_in_closed_form() -> None:
    """At theta, a ray of half side t is at height t/(cos - t sin), which meets that of the picture's border, h."""
    focal = float(CAMERA.intrinsics[0, 0])
    for x in (0.42, 0.55, 0.65):
        theta, h = math.atan(abs(x - 0.5) * 300 / focal), 99.5 / focal
        expected = h * math.cos(theta) / (1 + h * math.sin(theta))
        square = aimed_square(CAMERA, x, 0.5)
        assert square.width / 2 / float(square.intrinsics[0, 0]) == pytest.approx(expected)
    square = aimed_square(CAMERA, 0.5, 0.5)
    assert torch.allclose(square.rotation, torch.eye(3, dtype=torch.float64), atol=1e-15)
    assert float(square.intrinsics[0, 0]) == pytest.approx(focal, rel=0.01)


def test_it_shows_what_a_camera_that_is_turned_there_sees() -> None:
    """Against renderings of a scene, through the camera itself and out of the picture of the first one."""
    scene = random_scene(torch.Generator().manual_seed(3))
    view = render(scene, CAMERA)
    square = aimed_square(CAMERA, 0.35, 0.55)
    ours, inside = turned_view(view, square)
    truth = render(scene, square).image
    assert bool(inside.all())
    unturned = render(scene, Camera(square.intrinsics, torch.eye(3, 4), square.width, square.height)).image
    error, other = ((ours.float() - picture.float()).abs().mean() for picture in (truth, unturned))
    assert error < 3
    assert other > 5 * error


def test_a_principal_point_off_the_middle_is_no_hindrance() -> None:
    camera = Camera(intrinsics_matrix(*torch.tensor([250.0, 240, 120, 110]).double()), torch.eye(3, 4), 300, 200)
    square = aimed_square(camera, 0.5, 0.5)
    middle = torch.tensor([[square.width / 2] * 2], dtype=torch.float64)
    assert torch.allclose(seen_in(camera, square, middle), torch.tensor([[150.0, 100]]).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 1), (0.5, 0.2), (0.5, 1), (0.001, 0.5)])
def test_points_near_the_border_are_refused(x: float, y: float) -> None:
    with pytest.raises(UserError, match="no square of half the shorter side of 300x200: choose a point nearer"):
        aimed_square(CAMERA, x, y)
