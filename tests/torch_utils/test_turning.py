"""A turned camera's view against the synthetic room, rendered from there, and against exact shifts."""

from __future__ import annotations

from dataclasses import replace

import torch

from datasets.synthetic import SyntheticClip
from torch_utils.cameras import Camera, View, homogeneous, pixel_centers
from torch_utils.turning import same_place, turned_view
from torch_utils.warping import euler_rotation


def smooth(camera: Camera) -> View:
    """A picture of what lies infinitely far: a smooth function of direction, so any camera's view is known."""
    _, directions = camera.rays(pixel_centers(camera.width, camera.height))
    x, y, z = directions.unbind(-1)
    colours = torch.stack([torch.sin(9 * x + 2), torch.cos(7 * y), torch.sin(5 * z * x + y)])
    return View((127 * colours + 128).round().to(torch.uint8).reshape(3, camera.height, camera.width), camera)


def turn(camera: Camera, rotation: torch.Tensor, zoom: float = 1.0) -> Camera:
    intrinsics = camera.intrinsics * torch.tensor([zoom, zoom, 1.0], dtype=torch.float64)[:, None]
    intrinsics[:2, 2] = camera.intrinsics[:2, 2]
    pose = torch.cat([rotation, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    return replace(camera, intrinsics=intrinsics, extrinsics=pose @ homogeneous(camera.extrinsics))


def test_exact_for_what_is_far() -> None:
    source = smooth(Camera.from_fov(60, 160, 120))
    start = replace(source.camera, extrinsics=torch.cat([euler_rotation(3, 40, 5), torch.ones(3, 1)], dim=1))
    source = smooth(start)
    for rotation, zoom in (
        (euler_rotation(7, -9, 4), 1.0),
        (euler_rotation(0, 0, 0), 1.6),
        (euler_rotation(-5, 6, 8), 0.8),
    ):
        camera = turn(start, rotation, zoom).crop_center()
        image, inside = turned_view(source, camera)
        error = (image.int() - smooth(camera).image.int()).abs()[:, inside]
        assert inside.float().mean() > 0.6
        assert error.max() <= 6  # bilinear interpolation of a curved function
        assert error.float().mean() < 0.6
        assert not image[:, ~inside].any()


def test_the_same_camera_sees_the_same() -> None:
    view = SyntheticClip("test-0", range(2), 64, 48).view(0)
    image, inside = turned_view(view, view.camera)
    assert inside.all()
    assert torch.equal(image, view.image)


def test_smaller_views_are_antialiased() -> None:
    stripes = (torch.arange(128) % 2 * 255).to(torch.uint8).expand(3, 128, 128)
    view = View(stripes, Camera.from_fov(60, 128, 128))
    image, _ = turned_view(view, view.camera.resize(32))
    assert (image.int() - 127).abs().max() <= 12  # the filter is cut off at the edge


def test_same_place() -> None:
    camera = Camera.from_fov(60, 10, 10, torch.cat([euler_rotation(1, 2, 3), torch.ones(3, 1)], dim=1))
    assert same_place(camera, turn(camera, euler_rotation(10, 20, 30), 2.0))
    assert not same_place(camera, replace(camera, extrinsics=camera.extrinsics + 1e-3))
