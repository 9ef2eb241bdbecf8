"""Camera files of RealEstate10K: a line a frame, nine digits a number, and what such files look like in the wild."""

from __future__ import annotations

import math
from contextlib import suppress
from os import PathLike
from pathlib import Path

import torch

from dnnlib.text_files import numbers
from dnnlib.util import check_regular
from torch_utils.cameras import Camera

REALESTATE10K_COLUMNS = 19  # of a line of a camera file


def read_realestate10k_text(path: str | PathLike) -> str:
    """The text of a camera file, of whose first line nothing is needed: that may be in any encoding.

    Raises OSError, and UnicodeDecodeError for what is no text.
    """
    check_regular(path)
    head, newline, rest = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    return (head.decode("utf-8", errors="replace") if newline else head.decode()) + newline.decode() + rest.decode()


def parse_realestate10k(text: str) -> tuple[str, list[int], torch.Tensor]:
    """A RealEstate10K clip file: its URL, the timestamps in microseconds and the cameras, float64 [N, 18].

    A line a frame: ``timestamp fx fy cx cy 0 0 r11 r12 r13 t1 r21 .. t3``. A first line that is no frame is the URL,
    whatever it holds; where it is missing the URL is empty. Raises ValueError that names the line.
    """
    lines = text.splitlines()
    url = lines[0].strip() if lines and not _is_frame(lines[0]) else ""
    places, timestamps, rows = [], [], []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or (number == 1 and not _is_frame(line)):
            continue
        if len(fields) != REALESTATE10K_COLUMNS:
            raise ValueError(f"line {number}: {len(fields)} columns where {REALESTATE10K_COLUMNS} are expected")
        try:
            timestamps.append(_timestamp(fields[0]))
            rows.append(numbers(fields[1:]))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        places.append(number)
    cameras = torch.tensor(rows, dtype=torch.float64).reshape(-1, 18)
    try:
        Camera.from_normalized(cameras, 1, 1)  # all at once, twenty times faster than one by one
    except ValueError:
        for number, camera in zip(places, cameras, strict=True):
            try:
                Camera.from_normalized(camera, 1, 1)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return url, timestamps, cameras


def _is_frame(line: str) -> bool:
    """Whether a first line is meant as a frame: numbers alone, and about as many."""
    fields = line.split()
    return len(fields) > REALESTATE10K_COLUMNS // 2 and all(_is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


def _timestamp(text: str) -> int:
    """``"33367"`` or ``"33367.0"`` to a number of microseconds; ValueError for what is none."""
    with suppress(ValueError):
        return int(text)
    if not _is_number(text) or not math.isfinite(float(text)):
        raise ValueError(f"{text!r} is no timestamp")
    return round(float(text))


def format_realestate10k(url: str, timestamps: list[int], cameras: torch.Tensor) -> str:
    """The inverse of `parse_realestate10k`, with the nine digits of the published files."""
    lines = [url]
    for timestamp, row in zip(timestamps, cameras.tolist(), strict=True):
        lines.append(" ".join([str(timestamp), *(f"{number:.9f}" for number in row)]))
    return "\n".join(lines) + "\n"
