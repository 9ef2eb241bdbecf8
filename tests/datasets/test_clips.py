"""Pairs of frames of clips, whatever these are stored in: here in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.clips import ClipPairs, UnusableClip, view_from_row
from datasets.pairs import FramePair
from dnnlib.util import UserError
from torch_utils.cameras import Camera, View


class InMemory:
    """Clips of black frames by name; None is one that cannot be used."""

    def __init__(self, frames: Mapping[str, Sequence[int] | None]) -> None:
        self.frames, self.names, self.opened = frames, list(frames), []

    def open(self, number: int) -> SimpleNamespace:
        name = self.names[number]
        self.opened.append(name)
        frames = self.frames[name]
        if frames is None:
            raise UnusableClip("broken", name)
        return SimpleNamespace(frames=frames, view=self.view)

    @staticmethod
    def view(position: int) -> View:
        return View(torch.full((3, 6, 8), position, dtype=torch.uint8), Camera.from_fov(60, 8, 6))


CLIPS = {"b": range(10), "a": [0, 1, 2, 7, 8], "short": range(2), "c": None}


def test_pairs_are_drawn_from_the_clips_that_can_be_used() -> None:
    pairs = ClipPairs(InMemory(CLIPS), "3-6", None)
    assert (pairs.names, len(pairs)) == (["a", "b"], 2)
    assert pairs.skipped == {"too short for gap 3-6": 1, "broken": 1}
    assert pairs.summary() == (
        "2 clips, gap 3-6; skipped 2: 1 too short for gap 3-6 (such as short: 2 frames), 1 broken (such as c)"
    )
    drawn = [pairs.choose(k) for k in range(200)]
    assert all(3 <= abs(source - target) < 6 for _, source, target in drawn)
    assert all({source, target} <= set(CLIPS[clip]) for clip, source, target in drawn)
    for epoch in range(100):  # each clip once
        assert {pair.clip for pair in drawn[2 * epoch : 2 * epoch + 2]} == {"a", "b"}
    assert drawn != [ClipPairs(InMemory(CLIPS), "3-6", None, seed=1).choose(k) for k in range(200)]


def test_any_two_frames_without_a_range() -> None:
    pairs = ClipPairs(InMemory({**CLIPS, "single": [4]}), None, 4)
    assert pairs.skipped == {"broken": 1, "fewer than 2 frames": 1}
    pair, chosen = pairs[5], pairs.choose(5)
    assert (pair.clip, pair.source_index, pair.target_index) == tuple(chosen)
    assert int(pair.source.image[0, 0, 0]) == chosen.source
    assert pair.target.image.shape == (3, 4, 4)
    assert ClipPairs(InMemory(CLIPS), None, None)[5].source.image.shape == (3, 6, 8)


def test_listed_pairs_come_in_their_order_and_what_is_not_there_is_counted() -> None:
    clips = InMemory(CLIPS)
    listed = [FramePair("b", 9, 0), FramePair("a", 3, 1), FramePair("x", 0, 1), FramePair("a", 7, 2)]
    pairs = ClipPairs(clips, None, None, pairs=listed)
    assert (len(pairs), [pairs.choose(k) for k in range(3)]) == (2, [listed[0], listed[3], listed[0]])
    assert "1 listed pairs of clips that are not here (such as clip x)" in pairs.summary()
    assert "a: frames 3 and 1, it has 5 frames from 0 to 8" in pairs.summary()

    plain = ClipPairs(clips, "3-6", None)
    clips.opened.clear()
    again = plain.with_pairs(listed[:1])
    assert clips.opened == []  # nothing is read anew
    assert (again.choose(4), len(plain), plain.frame_range) == (listed[0], 2, (3, 6))
    assert list(plain.frames("b")) == list(range(10))
    with pytest.raises(UserError, match="none of the 1 listed pairs is in the 2 clips"):
        plain.with_pairs([FramePair("x", 0, 1)])


def test_what_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"none of 4 clips can be used: .*; try another range or data"):
        ClipPairs(InMemory(CLIPS), "30-60")
    with pytest.raises(UserError, match="leave the range out"):
        ClipPairs(InMemory(CLIPS), "mid", pairs=[FramePair("a", 0, 1)])


def test_a_view_of_numbers_of_realestate10k() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    row = torch.tensor([0.9, 1.2, 0.5, 0.4, 0, 0, *range(12)], dtype=torch.float64)
    view = view_from_row(image, row, torch.ones(6, 8))
    expected = Camera.from_normalized(row[:6].tolist() + torch.eye(3, 4).flatten().tolist(), 8, 6)
    torch.testing.assert_close(view.camera.intrinsics, expected.intrinsics, rtol=0, atol=0)
    assert view.camera.extrinsics.flatten().tolist() == list(range(12))
    assert (view.camera.width, view.camera.height) == (8, 6)
    assert torch.equal(view.image, torch.from_numpy(image).permute(2, 0, 1))
    assert view.depth.shape == (6, 8)
