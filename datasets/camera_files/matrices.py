"""Files of poses alone: plain matrices, whose convention the file does not tell, and TUM's lines of quaternions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from datasets.camera_files.poses import (
    OPENCV_C2W,
    Convention,
    PosedFrame,
    check_pose,
    pose_of_quaternion,
    read_json,
    tensor_of,
)
from dnnlib.arrays import read_array
from dnnlib.text_files import numbers, read_text
from dnnlib.util import UserError
from torch_utils.cameras import Camera

TUM_COLUMNS = 8


def read_matrices(path: Path, convention: Convention) -> list[PosedFrame]:
    """The poses of a .npy, .json or text file. Raises ValueError that names the line, or the matrix."""
    return [PosedFrame(convention.to_extrinsics(check_pose(matrix, place))) for place, matrix in _matrices(path)]


def count_matrices(path: Path) -> int:
    """How many a file holds. Raises ValueError where it holds something else."""
    return sum(1 for _ in _matrices(path))


def read_tum(text: str) -> list[PosedFrame]:
    """Poses as TUM's benchmark has them: ``timestamp tx ty tz qx qy qz qw``, camera-to-world in OpenCV's axes."""
    frames = []
    for number, fields in data_lines(text):
        place = f"line {number}"
        try:
            if len(fields) != TUM_COLUMNS:
                raise ValueError(f"{len(fields)} columns where {TUM_COLUMNS} are expected")
            _, x, y, z, *quaternion = numbers(fields)
            pose = pose_of_quaternion((quaternion[3], *quaternion[:3]), (x, y, z))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        frames.append(PosedFrame(OPENCV_C2W.to_extrinsics(pose)))
    return frames


def data_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number, columns) of the lines that hold any; `#` begins a comment, commas are as good as blanks."""
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.partition("#")[0].replace(",", " ").split()
        if fields:
            yield number, fields


def format_matrices(cameras: Sequence[Camera], convention: Convention) -> str:
    """A 4x4 matrix a line."""
    rows = [convention.from_extrinsics(camera.extrinsics).flatten().tolist() for camera in cameras]
    return "".join(" ".join(map(repr, row)) + "\n" for row in rows)


def _matrices(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(where it stands, [3 or 4, 4]) for each matrix."""
    if path.suffix.lower() == ".npy":
        import numpy as np

        try:
            array = torch.from_numpy(read_array(path).astype(np.float64))
        except (ValueError, TypeError, EOFError) as error:
            if isinstance(error, UserError):
                raise
            raise ValueError(f"not an array of matrices ({error})") from None
    elif path.suffix.lower() == ".json":
        array = tensor_of(read_json(path))
    else:
        yield from _text_matrices(read_text(path))
        return
    if array.ndim != 3 or array.shape[1:] not in ((3, 4), (4, 4)):
        raise ValueError(f"matrices of shape {list(array.shape)}, expected [N, 3, 4] or [N, 4, 4]")
    yield from ((f"matrix {k}", matrix) for k, matrix in enumerate(array))


def _text_matrices(text: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Matrices one a line, as 12 or 16 numbers, or as 3 or 4 lines of 4 numbers each, one shape throughout."""
    rows: list[tuple[int, list[float]]] = []
    for number, fields in data_lines(text):
        if len(fields) not in (4, 12, 16) or (rows and len(fields) != len(rows[0][1])):
            expected = f"{len(rows[0][1])} are" if rows else "12 or 16 (a pose), or 4 (a row of one), are"
            raise ValueError(f"line {number}: {len(fields)} columns where {expected} expected")
        try:
            rows.append((number, numbers(fields)))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    height = 1
    if rows and len(rows[0][1]) == 4:  # a fourth row is 0 0 0 1, which no third row of a rotation followed by 1 can be
        height = 4 if len(rows) > 3 and rows[3][1] == [0, 0, 0, 1] else 3
        if len(rows) % height:
            raise ValueError(f"line {rows[-1][0]}: {len(rows)} rows are no whole number of {height}x4 matrices")
    for start in range(0, len(rows), height):
        values = [value for _, row in rows[start : start + height] for value in row]
        yield f"line {rows[start][0]}", torch.tensor(values, dtype=torch.float64).reshape(-1, 4)
