"""Camera moves against closed forms, and how paths are placed before a photograph."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.trajectories import PATHS, Move, follow, named_path, thin_out
from dnnlib import UserError
from torch_utils.cameras import Camera, check_rotation, relative_pose
from torch_utils.warping import euler_rotation

CAMERA = Camera.from_fov(60, 120, 80)
AHEAD = torch.tensor([[0.0, 0.0, 3.5]])
CENTER = (60.0, 40.0)
TURNED = torch.cat([euler_rotation(10, 30, -20), torch.tensor([[1.0], [2.0], [-3.0]])], dim=1)


def seen(camera: Camera, point: torch.Tensor = AHEAD) -> tuple[float, float]:
    return tuple(camera.project(point)[0][0].tolist())


@pytest.mark.parametrize(
    ("move", "where"),  # a point straight ahead, at 3.5, is then seen so far right of and below the centre
    [
        (Move(pan_deg=10), (-1, 0)),
        (Move(tilt_deg=10), (0, 1)),
        (Move(right=0.5), (-1, 0)),
        (Move(up=0.5), (0, 1)),
        (Move(forward=0.5), (0, 0)),
        (Move(roll_deg=30), (0, 0)),
        (Move(zoom=2), (0, 0)),
    ],
)
def test_signs(move: Move, where: tuple[int, int]) -> None:
    x, y = seen(move.camera(CAMERA))
    assert (round(math.copysign(abs(x - CENTER[0]) > 1e-9, x - CENTER[0])), np.sign(round(y - CENTER[1], 9))) == where


def test_closed_forms() -> None:
    focal = float(CAMERA.intrinsics[0, 0])
    assert seen(Move(pan_deg=10).camera(CAMERA)) == pytest.approx((60 - focal * math.tan(math.radians(10)), 40))
    assert seen(Move(right=0.7).camera(CAMERA)) == pytest.approx((60 - focal * 0.2, 40))
    assert seen(Move(forward=1.5).camera(CAMERA), torch.tensor([[1.0, 0, 3.5]])) == pytest.approx((60 + focal / 2, 40))
    assert seen(Move(zoom=2).camera(CAMERA), torch.tensor([[0.5, 0, 1]])) == pytest.approx((60 + focal, 40))
    # A camera that rolls clockwise sees the world turn the other way: what was above is now to the left.
    x, y = seen(Move(roll_deg=90).camera(CAMERA), torch.tensor([[0.0, -1, 1]]))
    assert (x, y) == pytest.approx((60 - focal, 40))
    # Pan is about the upright of the photograph: the horizon of a camera that looks down stays level.
    points = torch.tensor([[-0.2, 0.0, 1.0], [0.2, 0.0, 1.0]])
    pixels, _ = Move(tilt_deg=-20).camera(CAMERA).project(points)
    assert float(pixels[0, 1] - pixels[1, 1]) == pytest.approx(0, abs=1e-9)


@given(
    st.builds(Move, *[st.floats(-80, 80)] * 3, *[st.floats(-3, 3)] * 3, st.floats(0.3, 3)),
    st.floats(0.1, 10),
)
@settings(max_examples=25, deadline=None)
def test_a_move_is_relative_to_the_photograph(move: Move, scale: float) -> None:
    photograph = replace(CAMERA, extrinsics=TURNED)
    here, there = move.camera(CAMERA, scale), move.camera(photograph, scale)
    check_rotation(there.rotation)
    torch.testing.assert_close(relative_pose(CAMERA, here), relative_pose(photograph, there), rtol=0, atol=1e-9)
    distance = math.sqrt(move.right**2 + move.up**2 + move.forward**2)
    assert float(relative_pose(photograph, there)[:3, 3].norm()) == pytest.approx(scale * distance, abs=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_named_paths_begin_at_the_photograph(name: str) -> None:
    cameras = named_path(name, CAMERA, 8)
    assert len(cameras) == 8
    torch.testing.assert_close(cameras[0].extrinsics, CAMERA.extrinsics, rtol=0, atol=1e-12)
    torch.testing.assert_close(cameras[0].intrinsics, CAMERA.intrinsics)
    assert any(
        not torch.equal(c.extrinsics, CAMERA.extrinsics) or c.intrinsics[0, 0] != CAMERA.intrinsics[0, 0]
        for c in cameras
    )
    again = named_path(name, CAMERA, 8)
    assert all(torch.equal(a.extrinsics, b.extrinsics) for a, b in zip(cameras, again, strict=True))


def test_open_paths_reach_their_amount_and_closed_ones_come_back() -> None:
    last = named_path("pan", CAMERA, 5, 12)[-1]
    torch.testing.assert_close(last.extrinsics, Move(pan_deg=12).camera(CAMERA).extrinsics)
    assert float(named_path("zoom", CAMERA, 5, 2.0)[-1].intrinsics[0, 0] / CAMERA.intrinsics[0, 0]) == pytest.approx(2)
    assert float(named_path("dolly", CAMERA, 5, 1, scene_scale=3)[-1].center[2]) == pytest.approx(3)
    for path in PATHS.values():
        if path.closed:
            assert asdict(path.move(1, 1)) == pytest.approx(asdict(path.move(1, 0)), abs=1e-6)


@pytest.mark.parametrize("name", ["orbit", "spiral"])
def test_orbit_and_spiral_keep_their_eye_on_the_subject(name: str) -> None:
    for camera in named_path(name, CAMERA, 12):
        assert seen(camera) == pytest.approx(CENTER)
    distances = [float((camera.center - AHEAD[0]).norm()) for camera in named_path("orbit", CAMERA, 12)]
    assert distances == pytest.approx([3.5] * 12)


def test_following_a_path_takes_poses_and_zoom_relative_to_its_first_camera() -> None:
    moves = [Move(), Move(5, -3, 2, 0.1, 0.2, 0.3, 1.5)]
    path = [move.camera(replace(Camera.from_fov(40, 640, 360), extrinsics=TURNED)) for move in moves]
    for got, move in zip(follow(path, CAMERA, 2.0), moves, strict=True):
        expected = move.camera(CAMERA, 2.0)
        torch.testing.assert_close(got.extrinsics, expected.extrinsics, rtol=0, atol=1e-12)
        torch.testing.assert_close(got.intrinsics, expected.intrinsics)
        assert (got.width, got.height) == (CAMERA.width, CAMERA.height)


def test_thinning_keeps_both_ends() -> None:
    path = named_path("pan", CAMERA, 10)
    chosen = thin_out(path, 4)
    assert [path.index(camera) for camera in chosen] == [0, 3, 6, 9]
    assert thin_out(path, None) == path
    with pytest.raises(UserError, match="has 10 frames, 11 were asked for"):
        thin_out(path, 11)


@pytest.mark.parametrize("name", PATHS)
def test_two_frames_of_every_path_differ(name: str) -> None:
    """Half an orbit is where it began."""
    first, second = named_path(name, Camera.from_fov(58, 64, 48), 2)
    assert not torch.allclose(first.to_normalized(), second.to_normalized(), atol=1e-3)
