"""COLMAP's models: images and cameras, as text or binary. Points and rigs are not read."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.camera_files.lens import MODELS, Lens, colmap_lens
from datasets.camera_files.poses import PosedFrame, check_pose, pose_of_quaternion
from dnnlib.text_files import numbers, read_text
from dnnlib.util import natural_key
from torch_utils.cameras import Camera

IMAGE_FILES = ("images.bin", "images.txt")  # in this order, as COLMAP does
CAMERA_FILES = ("cameras.bin", "cameras.txt")
_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0")  # below the folder of a project
_IMAGE_COLUMNS = 10
_MOST_NAME_BYTES = 4096


def find_model(folder: Path) -> Path | None:
    """The file of images in the folder of a model or of a project; None where there is none."""
    files = (folder / below / name for below in _MODEL_FOLDERS for name in IMAGE_FILES)
    return next((file for file in files if file.is_file()), None)


def read_model(images: Path) -> list[PosedFrame]:
    """The frames of images.txt or images.bin with the file of cameras beside it, in natural order of their names.

    Raises ValueError that names the line, or the image, and of cameras the file too.
    """
    cameras = images.with_name(images.name.replace("images", "cameras"))
    if not cameras.is_file():
        raise ValueError(f"there is no {cameras.name} beside it, which has the lenses")
    read_lenses, read_images = (_binary_lenses, _binary_images) if images.suffix == ".bin" else (_lenses, _images)
    try:
        lenses = dict(read_lenses(cameras))
    except ValueError as error:
        raise ValueError(f"{cameras.name}, {error}") from None
    frames = [_frame(*image, lenses, cameras.name) for image in read_images(images)]
    return sorted(frames, key=lambda frame: natural_key(frame.name))


def _frame(place: str, name: str, camera: int, pose: Sequence[float], lenses: Mapping, file: str) -> PosedFrame:
    try:
        if camera not in lenses:
            raise ValueError(f"there is no camera {camera} in {file}")
        extrinsics = pose_of_quaternion(tuple(pose[:4]), tuple(pose[4:]))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return PosedFrame(check_pose(extrinsics, place), lenses[camera], name)


def _images(path: Path) -> Iterator[tuple[str, str, int, list[float]]]:
    """(place, name, camera, quaternion wxyz and translation) of each image of images.txt.

    A line of points follows each, which may be empty; where it was stripped the next image follows. Points are three
    numbers each, and an image never has a multiple of three numbers alone.
    """
    after_image = False
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.startswith("#") or (after_image and _is_points(line)) or not line.strip():
            after_image = after_image and line.startswith("#")
            continue
        fields, place = line.split(maxsplit=_IMAGE_COLUMNS - 1), f"line {number}"
        try:
            if len(fields) != _IMAGE_COLUMNS:
                raise ValueError(f"{len(fields)} columns where {_IMAGE_COLUMNS} are expected")
            yield place, fields[9].strip(), int(fields[8]), numbers(fields[1:8])
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        after_image = True


def _is_points(line: str) -> bool:
    fields = line.split()
    try:
        return len(fields) % 3 == 0 and all(float(field) is not None for field in fields)
    except ValueError:
        return False


def _lenses(path: Path) -> Iterator[tuple[int, Lens]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        try:
            if len(fields) < 5:
                raise ValueError(f"{len(fields)} columns where 5 or more are expected")
            identity, model, width, height, *values = fields
            yield int(identity), colmap_lens(model, int(width), int(height), numbers(values))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None


class _Bytes:
    """A binary file, little-endian, read from front to back."""

    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 0

    def take(self, form: str) -> tuple[Any, ...]:
        """Values as `struct` names them; ValueError where the file is shorter."""
        size = struct.calcsize(form)
        self.skip(size)
        return struct.unpack_from(form, self._data, self._at - size)

    def skip(self, size: int) -> None:
        if self._at + size > len(self._data):
            raise ValueError("the file ends in the middle of it")
        self._at += size

    def text(self) -> str:
        """Up to the next zero byte."""
        end = self._data.find(b"\0", self._at, self._at + _MOST_NAME_BYTES)
        if end < 0:
            raise ValueError("a name without end")
        start, self._at = self._at, end + 1
        return self._data[start:end].decode("utf-8", errors="replace")


def _binary_images(path: Path) -> Iterator[tuple[str, str, int, list[float]]]:
    file = _Bytes(path)
    (count,) = file.take("<Q")
    for number in range(count):
        place = f"image {number}"
        try:
            _, *pose, camera = file.take("<I7dI")
            name = file.text()
            (points,) = file.take("<Q")
            file.skip(24 * points)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        yield place, name, camera, pose


def _binary_lenses(path: Path) -> Iterator[tuple[int, Lens]]:
    file, models = _Bytes(path), tuple(MODELS)
    (count,) = file.take("<Q")
    for number in range(count):
        try:
            identity, kind, width, height = file.take("<IiQQ")
            if not 0 <= kind < len(models):
                raise ValueError(f"there is no camera model {kind}; known are 0 to {len(models) - 1}")
            model = MODELS[models[kind]]
            size = 0 if model is None else model.focals + 2 + len(model.coefficients)
            yield identity, colmap_lens(models[kind], width, height, file.take(f"<{size}d"))
        except ValueError as error:
            raise ValueError(f"camera {number}: {error}") from None


def format_model(cameras: Sequence[Camera], names: Sequence[str]) -> dict[str, str]:
    """The text files of a model, by name: images and cameras, without points."""
    from scipy.spatial.transform import Rotation

    lenses: dict[str, int] = {}
    images = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of POINTS2D"]
    for number, (camera, name) in enumerate(zip(cameras, names, strict=True), start=1):
        lens = " ".join(map(repr, [camera.width, camera.height, *camera.focal_and_center.tolist()]))
        identity = lenses.setdefault(lens, len(lenses) + 1)
        x, y, z, w = Rotation.from_matrix(camera.rotation.numpy()).as_quat(canonical=True).tolist()
        numbers = " ".join(map(repr, [w, x, y, z, *camera.translation.tolist()]))
        images += [f"{number} {numbers} {identity} {name}", ""]
    rows = ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY"]
    rows += [f"{identity} PINHOLE {lens}" for lens, identity in lenses.items()]
    return {"cameras.txt": "\n".join(rows) + "\n", "images.txt": "\n".join(images) + "\n", "points3D.txt": ""}
