"""Paths through key frames: they go through them, nowhere beyond, and without a jump."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from datasets.key_frames import KeyFrame, key_frame_path, parse_keys, read_keys
from datasets.trajectories import Move
from dnnlib.util import UserError
from torch_utils.cameras import Camera

PHOTOGRAPH = Camera.from_fov(58, 90, 60)
MOVES = [Move(), Move(pan_deg=30, right=1), Move(pan_deg=30, tilt_deg=-20, roll_deg=10, right=1, up=1, zoom=2)]


def close(first: Camera, second: Camera, tolerance: float = 1e-9) -> bool:
    numbers = zip((first.intrinsics, first.extrinsics), (second.intrinsics, second.extrinsics), strict=True)
    return all(torch.allclose(a, b, atol=tolerance, rtol=0) for a, b in numbers)


def test_a_path_goes_through_its_key_frames_at_their_times() -> None:
    keys = [KeyFrame(time, move) for time, move in zip((0, 1, 4), MOVES, strict=True)]
    path = key_frame_path(keys, PHOTOGRAPH, 5, scene_scale=2)
    assert [k for k in range(5) if any(close(path[k], move.camera(PHOTOGRAPH, 2)) for move in MOVES)] == [0, 1, 4]
    assert all(close(a, b) for a, b in zip(path, key_frame_path(keys[::-1], PHOTOGRAPH, 5, 2), strict=True))


def test_between_two_key_frames_it_turns_by_the_shortest_way_and_goes_straight() -> None:
    ends = [Move(pan_deg=170), Move(pan_deg=-170, right=1)]
    path = key_frame_path([KeyFrame(k, move) for k, move in enumerate(ends)], PHOTOGRAPH, 11)
    matrices = torch.stack([move.camera(PHOTOGRAPH).rotation for move in ends]).numpy()
    slerp = Slerp([0, 1], Rotation.from_matrix(matrices))(torch.arange(11) / 10).as_matrix()
    assert torch.allclose(torch.stack([camera.rotation for camera in path]), torch.from_numpy(slerp), atol=1e-9)
    assert torch.allclose(
        torch.stack([c.center for c in path])[:, 0], torch.arange(11).double() / 10, atol=1e-9, rtol=0
    )


def test_nothing_goes_beyond_its_key_frames_or_jumps() -> None:
    moves = [Move(), Move(right=1, zoom=2), Move(right=1, pan_deg=40), Move(pan_deg=40)]
    path = key_frame_path([KeyFrame(k, move) for k, move in enumerate(moves)], PHOTOGRAPH, 301)
    rights = torch.stack([camera.center for camera in path])[:, 0]
    zooms = torch.stack([camera.intrinsics[0, 0] for camera in path]) / PHOTOGRAPH.intrinsics[0, 0]
    assert rights.min() > -1e-9
    assert rights.max() < 1 + 1e-9
    assert zooms.min() > 1 - 1e-9
    assert zooms.max() < 2 + 1e-9
    speeds = rights.diff()
    assert speeds.diff().abs().max() < 0.1 * speeds.abs().max()
    for first, second in pairwise(path):
        assert torch.allclose(second.rotation @ second.rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-9)
        assert (first.rotation - second.rotation).abs().max() < 0.02


@pytest.mark.parametrize(
    ("times", "frames", "said"),
    [
        ([], 5, "0 key frames make no path"),
        ([0], 5, "1 key frames make no path"),
        ([0, 0], 5, "at the same time"),
        ([0, float("nan")], 5, "at the same time"),
        ([0, float("inf")], 5, "at the same time"),
        ([0, 1], 0, "0 frames"),
    ],
)
def test_what_makes_no_path(times: list[float], frames: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        key_frame_path([KeyFrame(time, Move()) for time in times], PHOTOGRAPH, frames)


def test_key_frames_in_the_words_of_named_paths() -> None:
    keys = parse_keys(["pan=10,truck=0.5", "dolly=1, zoom=2, time=5"])
    assert keys == [
        KeyFrame(0.0, Move()),
        KeyFrame(1.0, Move(pan_deg=10, right=0.5)),
        KeyFrame(5.0, Move(forward=1, zoom=2)),
    ]


@pytest.mark.parametrize("text", ["", "pan", "pan=", "pan=x", "fly=1", "pan=1,pan=2", "pan=1,time=0", "pan=nan"])
def test_what_is_no_key_frame_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_keys([text])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_file_of_key_frames_says_the_same_in_the_same_words(file: Path) -> None:
    words = {"pan": 10, "tilt": -2.5, "roll": 1, "truck": 0.1, "pedestal": 0.2, "dolly": 0.3, "zoom": 1.1}
    file.write_text(json.dumps({"key_frames": [words, {"time": 5, "pan": 3}, {}]}))
    text = ",".join(f"{word}={value}" for word, value in words.items())
    assert read_keys(file) == parse_keys([text, "time=5,pan=3", "pan=0"])


def test_a_file_is_json_however_its_ending_is_written(file: Path) -> None:
    file.with_name("KEYS.JSON").write_text('{"key_frames": [{"pan": 10}]}')
    assert read_keys(file.with_name("KEYS.JSON")) == parse_keys(["pan=10"])


@pytest.mark.parametrize("text", ["[]", '{"frames": []}', "3"])
def test_other_files_hold_no_key_frames(text: str, file: Path) -> None:
    file.write_text(text)
    assert read_keys(file) is None
    assert read_keys(file.with_name("nothing.json")) is read_keys(file.parent) is None


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ("3", '"key_frames" is a list'),
        ('["pan=10"]', "key frame 1 is no object"),
        ('[{"pan": 1}, {"fly": 1}]', "key frame 2 is no key frame: write pan, tilt"),
        ('[{"pan": "10"}]', "key frame 1: pan is no number"),
        ('[{"pan": true}]', "key frame 1: pan is no number"),
        ('[{"pan": NaN}]', "pan is no number that could be meant"),
        ('[{"time": 0}]', "key frame 1: the photograph is the key frame at time 0"),
        ('[{"zoom": 0}]', "must be positive"),
        ('[{"pan": 1' + "0" * 400 + "}]", "key frame 1: pan is no number"),
    ],
)
def test_a_file_that_is_no_such_thing_is_refused_in_one_line(frames: str, said: str, file: Path) -> None:
    file.write_text(f'{{"key_frames": {frames}}}')
    with pytest.raises(UserError, match=said) as error:
        read_keys(file)
    assert "\n" not in str(error.value)


def test_only_proportions_of_times_count_and_what_no_lens_does_is_refused() -> None:
    photograph = Camera.from_fov(58, 64, 48)
    tiny = key_frame_path(parse_keys(["pan=1,time=1e-300", "pan=2,time=2e-300"]), photograph, 3)
    usual = key_frame_path(parse_keys(["pan=1", "pan=2"]), photograph, 3)
    for one, other in zip(tiny, usual, strict=True):
        assert torch.allclose(one.extrinsics, other.extrinsics, atol=1e-12)
    with pytest.raises(UserError, match="at the same time"):
        key_frame_path(parse_keys(["pan=1,time=1e-300", "pan=2,time=1"]), photograph, 3)
    for zoom in ("1e300", "1e-5"):
        with pytest.raises(UserError, match="a zoom is from 1/1000 to 1000"):
            key_frame_path(parse_keys([f"zoom={zoom}"]), photograph, 3)
    with pytest.raises(UserError, match="pan is no number that could be meant"):
        parse_keys(["pan=nan"])
