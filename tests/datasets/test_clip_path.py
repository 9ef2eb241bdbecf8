"""The path that a clip took: which clip, which frames, and what they show."""

from __future__ import annotations

import pytest
import torch

from datasets.clip_path import clip_path, open_clip
from datasets.synthetic import SyntheticClips
from dnnlib.util import UserError


def test_clips_are_opened_by_name_or_by_number_among_the_sorted_names(clips: SyntheticClips) -> None:
    name, clip = open_clip(clips, "test-00003")
    assert name == "test-00003"
    assert torch.equal(clip.cameras, clips.open(3).cameras)
    assert open_clip(clips, "1")[0] == "test-00001"
    clips_backwards = SyntheticClips("test", 5, frames=12, width=48, height=32)
    clips_backwards.names = clips.names[::-1]
    name, clip = open_clip(clips_backwards, "0")
    assert name == "test-00000"
    assert torch.equal(clip.cameras, clips_backwards.open(4).cameras)


@pytest.mark.parametrize("wanted", ["5", "-1", "test-00005", ""])
def test_what_there_is_not_is_told(clips: SyntheticClips, wanted: str) -> None:
    with pytest.raises(UserError, match=r"number from 0 to 4, or a name: test-00000, test-00001, test-00002, \.\."):
        open_clip(clips, wanted)


def test_frames_are_spread_from_the_first_to_the_last(clips: SyntheticClips) -> None:
    clip = clips.open(2)
    path = clip_path("name", clip, 4, 16)
    assert path.positions[0] == 0
    assert path.positions[-1] == 11
    assert len(path.positions) == len(path.truth) == 4
    assert (path.source.view.camera.width, path.source.view.camera.height) == (48, 32)
    for position, view in zip(path.positions, path.truth, strict=True):
        assert torch.equal(view.image, clip.view(position).square(16).image)
    assert clip_path("name", clip, None, 16).positions == list(range(12))
    with pytest.raises(UserError):
        clip_path("name", clip, 13, 16)
