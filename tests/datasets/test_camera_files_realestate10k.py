from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.camera_files.realestate10k import format_realestate10k, parse_realestate10k
from tests.torch_utils.some_cameras import random_cameras
from torch_utils.cameras import Camera


@given(st.lists(random_cameras(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_camera_files_round_trip(cameras: list[Camera]) -> None:
    rows = torch.stack([camera.to_normalized() for camera in cameras])
    stamps = [33000 * (k + 1) for k in range(len(cameras))]
    url, timestamps, again = parse_realestate10k(format_realestate10k("https://example.org/v", stamps, rows))
    assert (url, timestamps) == ("https://example.org/v", stamps)
    torch.testing.assert_close(again, rows, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3", "line 2: 3 columns where 19"),
        ("x" + " 1" * 18, "line 2: 'x' is no timestamp"),
        ("1 1 1 .5 .5 0 0 2 0 0 0 0 1 0 0 0 0 1 0", "line 2: not a rotation: determinant 2.0000"),
        ("1 1 1 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 -1 0", "line 2: not a rotation: determinant -1.0000"),
        ("1 nan 1 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 1 0", "line 2: a camera has numbers that are not finite"),
        ("1 0 1 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 1 0", "line 2: a camera has a focal length"),
    ],
)
def test_bad_camera_lines_are_named(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        parse_realestate10k(f"https://example.org\n{line}\n")


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=100)
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(ValueError):
        _, timestamps, cameras = parse_realestate10k(text)
        assert cameras.shape == (len(timestamps), 18)


def test_a_broken_first_frame_is_no_address() -> None:
    with pytest.raises(ValueError, match="line 1: 18 columns where 19 are expected"):
        parse_realestate10k(" ".join(["1"] * 18))
    with pytest.raises(ValueError, match="line 1: 'inf' is no timestamp"):
        parse_realestate10k("inf" + " 1" * 18)
