"""Homographies of rotations against the golden vectors, kornia, and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from torch_utils.cameras import Camera
from torch_utils.warping import euler_rotation, rotation_homography, warp_homography

DATA = Path(__file__).parents[1] / "data"
angles = st.floats(-60, 60)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


def intrinsics(focal: float, center: float) -> torch.Tensor:
    return torch.tensor([[focal, 0, center], [0, focal, center], [0, 0, 1]], dtype=torch.float64)


def test_golden_homography() -> None:
    golden = load_file(DATA / "vectors.safetensors")
    call = json.loads((DATA / "vectors.json").read_text())["homography"]
    rotation = euler_rotation(call["roll_deg"], call["yaw_deg"], call["pitch_deg"])
    homography = rotation_homography(intrinsics(call["fx"], call["cx"]), rotation)
    warped, _ = warp_homography(golden["homography/image"], homography)
    for name, result in (("R", rotation), ("H", homography), ("warped", warped)):
        assert relative_error(result, golden[f"homography/{name}"]) < 1e-5


def test_zero_outside_and_the_mask_says_where() -> None:
    homography = rotation_homography(intrinsics(30, 16), euler_rotation(5, 20, -10))
    warped, inside = warp_homography(torch.full((1, 32, 32), 7.0), homography)
    torch.testing.assert_close(warped[0][inside], torch.full_like(warped[0][inside], 7.0))
    assert 0.3 < inside.float().mean() < 0.9
    assert float((warped[0] == 0).float().mean()) > 0.1
    assert not (warped[0] == 0)[inside].any()


def test_what_lies_behind_is_not_seen() -> None:
    homography = rotation_homography(intrinsics(30, 16), euler_rotation(0, 180, 0))
    warped, inside = warp_homography(torch.rand(1, 32, 32), homography)
    assert not warped.any()
    assert not inside.any()


def test_a_box_is_a_crop_of_the_whole() -> None:
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    homography = rotation_homography(intrinsics(50, 24), euler_rotation(3, -4, 5))
    whole, inside = warp_homography(image, homography)
    part, part_inside = warp_homography(image, homography, (10, 4, 30, 20))
    torch.testing.assert_close(part, whole[:, 4:24, 10:40], rtol=0, atol=1e-6)
    assert torch.equal(part_inside, inside[4:24, 10:40])


def test_whole_pixel_shifts_are_exact() -> None:
    image = torch.rand(2, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[1.0, 0, 2], [0, 1, 3], [0, 0, 1]])
    warped, inside = warp_homography(image, shift)
    torch.testing.assert_close(warped[:, 3:, 2:], image[:, :-3, :-2], rtol=0, atol=1e-12)
    assert int(inside.sum()) == 9 * 7


@settings(deadline=None, max_examples=25)
@given(angles, angles, angles)
def test_rotations(roll: float, yaw: float, pitch: float) -> None:
    rotation = euler_rotation(roll, yaw, pitch)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    composed = euler_rotation(roll, 0, 0) @ euler_rotation(0, yaw, 0) @ euler_rotation(0, 0, pitch)
    torch.testing.assert_close(rotation, composed, rtol=0, atol=1e-12)
    back = rotation_homography(intrinsics(40, 20), rotation) @ rotation_homography(intrinsics(40, 20), rotation.mT)
    torch.testing.assert_close(back, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_axes_are_those_of_the_cameras() -> None:
    """A quarter turn about y (down) takes z (forward) to x (right), and so on cyclically."""
    x, y, z = torch.eye(3, dtype=torch.float64)
    for rotation, one, other in (((0, 90, 0), z, x), ((90, 0, 0), x, y), ((0, 0, 90), y, z)):
        torch.testing.assert_close(euler_rotation(*rotation) @ one, other, rtol=0, atol=1e-12)


def test_many_angles_at_once() -> None:
    yaw = torch.tensor([10.0, -20.0])
    looped = torch.stack([euler_rotation(3, float(degrees), 5) for degrees in yaw])
    assert torch.equal(euler_rotation(3, yaw, 5), looped)


@settings(deadline=None, max_examples=25)
@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20), st.floats(0, 48), st.floats(0, 48))
def test_homography_is_the_projection_of_a_turned_camera(r: float, y: float, p: float, u: float, v: float) -> None:
    rotation = euler_rotation(r, y, p)
    turned = torch.cat([rotation, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    matrix, pixel = intrinsics(40, 24), torch.tensor([[u, v]], dtype=torch.float64)
    point = Camera(matrix, torch.eye(3, 4), 48, 48).unproject(pixel, torch.tensor([3.0]))
    expected, _ = Camera(matrix, turned, 48, 48).project(point)
    moved = rotation_homography(matrix, rotation) @ torch.tensor([u, v, 1.0], dtype=torch.float64)
    torch.testing.assert_close(moved[:2] / moved[2], expected[0], rtol=1e-9, atol=1e-9)


def test_agrees_with_kornia() -> None:
    kornia = pytest.importorskip("kornia.geometry.transform")
    image = torch.rand(3, 31, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    homography = rotation_homography(intrinsics(40, 22), euler_rotation(4, -7, 3))
    expected = kornia.warp_perspective(image[None], homography[None], (31, 45), align_corners=True)[0]
    warped, _ = warp_homography(image, homography)
    assert relative_error(warped, expected) < 1e-9
