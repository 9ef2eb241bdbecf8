"""Known pixels of a novel view against the photograph itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.trajectories import Move
from torch_utils.cameras import Camera, View, pixel_centers
from torch_utils.known_pixels import SEAM, keep_known, seam_weights

WIDE = Camera.from_fov(50, 240, 120)
SIDE = 48
EDGE = 0.5 * WIDE.height / SIDE  # half a pixel of the photograph once it has the scale of the view


def photograph(camera: Camera = WIDE) -> View:
    """Smooth, so that bilinear interpolation is nearly exact."""
    x, y = (pixel_centers(camera.width, camera.height) / camera.height).unbind(dim=1)
    colors = torch.stack([(5 * x).sin(), (4 * y + x).cos(), (3 * x - 2 * y).sin()])
    return View(colors_to_uint8(colors).unflatten(1, (camera.height, camera.width)), camera)


def colors_to_uint8(colors: torch.Tensor) -> torch.Tensor:
    return (127.5 + 120 * colors).round().to(torch.uint8)


def seen_by(camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """What a camera in the photograph's place sees, ray by ray, float [3, H, W], and where the photograph shows it."""
    points = camera.unproject(pixel_centers(camera.width, camera.height), torch.ones(camera.width * camera.height))
    pixels, _ = WIDE.project(points)
    x, y = (pixels / WIDE.height).unbind(dim=1)
    colors = 127.5 + 120 * torch.stack([(5 * x).sin(), (4 * y + x).cos(), (3 * x - 2 * y).sin()])
    far = torch.tensor([WIDE.width, WIDE.height]) - EDGE
    inside = ((pixels > EDGE - 1e-3) & (pixels < far + 1e-3)).all(dim=1)
    size = (camera.height, camera.width)
    return colors.unflatten(1, size), inside.unflatten(0, size)


def square(move: Move) -> Camera:
    return move.camera(WIDE).crop_center().resize(SIDE)


@pytest.mark.parametrize("move", [Move(), Move(pan_deg=15, zoom=1.4), Move(pan_deg=-12, roll_deg=2, zoom=1.6)])
def test_within_the_wide_photograph_the_view_is_the_photograph(move: Move) -> None:
    """Also beyond the central square, which is all that networks see."""
    camera = square(move)
    expected, inside = seen_by(camera)
    assert bool(inside.all())
    kept = keep_known(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), photograph(), camera)
    assert float((kept - expected).abs().max()) < 3


def test_beyond_the_photograph_the_sample_stays_and_fades_in() -> None:
    camera = square(Move(pan_deg=40))
    expected, inside = seen_by(camera)
    assert 0.2 < float(inside.float().mean()) < 0.8
    sample = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept = keep_known(sample, photograph(), camera)
    assert torch.equal(kept[:, ~inside], sample[:, ~inside])
    share = seam_weights(inside, SEAM * SIDE)
    deep = share == 1
    assert float((kept - expected)[:, deep].abs().max()) < 3
    between = inside & ~deep
    mixed = sample * (1 - share) + expected * share
    assert bool(between.any())
    assert float((kept - mixed)[:, between].abs().max()) < 4


def test_where_the_camera_has_moved_nothing_is_known() -> None:
    sample = torch.full((3, SIDE, SIDE), 7, dtype=torch.uint8)
    assert torch.equal(keep_known(sample, photograph(), square(Move(pan_deg=3, forward=0.01))), sample)


def test_the_place_of_the_photograph_in_the_world_does_not_matter() -> None:
    pose = Move(30, 10, 5, 3, 2, 1).camera(WIDE).extrinsics
    elsewhere = replace(WIDE, extrinsics=pose)
    sample = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    here = keep_known(sample, photograph(), square(Move(pan_deg=40)))
    there = Move(pan_deg=40).camera(elsewhere).crop_center().resize(SIDE)
    assert int((keep_known(sample, photograph(elsewhere), there).int() - here.int()).abs().max()) <= 1


def test_the_seam_rises_from_what_is_outside_and_not_from_the_border() -> None:
    inside = torch.ones(5, 40, dtype=torch.bool)
    assert torch.equal(seam_weights(inside, 8), torch.ones(5, 40))
    inside[:, :10] = False
    row = seam_weights(inside, 8)[2].numpy()
    assert (row[:10] == 0).all()
    assert (row[17:] == 1).all()
    assert (np.diff(row[9:18]) > 0).all()
    assert row[13] == pytest.approx(0.5)  # half way, four pixels from the nearest outside
