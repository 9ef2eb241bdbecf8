"""Pixels that a source view does not show, and how far from them samples are."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.variety import unseen
from datasets.trajectories import Move
from metrics.image import psnr
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View

SIDE = 16
CAMERA = Camera.from_fov(90, SIDE, SIDE)  # a focal length of 8 pixels
GREY = torch.full((3, SIDE, SIDE), 128, dtype=torch.uint8)


def pair_of(depth: torch.Tensor, move: Move) -> Pair:
    return Pair(View(GREY, CAMERA, depth), View(GREY, move.camera(CAMERA)), "", 0, 1)


def test_a_step_aside_shows_what_was_beyond_the_border() -> None:
    """A wall at depth 2: one unit to the right moves it by 8 / 2 = 4 pixels."""
    found = unseen(pair_of(torch.full((SIDE, SIDE), 2.0), Move(right=1.0)))
    assert not found[:, : SIDE - 4].any()
    assert found[:, SIDE - 4 :].all()


def test_a_step_aside_shows_what_was_hidden() -> None:
    """A post at depth 2 before a wall at depth 8: it moves by 4 pixels, the wall by 1, and 3 of it come to light."""
    depth = torch.full((SIDE, SIDE), 8.0)
    depth[:, 8:12] = 2.0
    found = unseen(pair_of(depth, Move(right=1.0)))
    columns = found.all(dim=0).nonzero().flatten().tolist()
    assert columns == [8, 9, 10, SIDE - 1]


def test_psnr_is_of_the_chosen_pixels() -> None:
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[:2] = True
    images = torch.stack([GREY, GREY, GREY])
    images[1, :, :2] += 10
    images[2, :, 2:] += 10
    off, near = psnr(images, GREY, where[None, None])[1:].tolist()
    assert off == pytest.approx(20 * math.log10(255 / 10))
    assert near > 100
