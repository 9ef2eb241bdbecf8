"""Camera paths in files: the cameras of a photograph's path, read and written (docs/trajectories.md).

`datasets.camera_files` knows the formats and their conventions. All become cameras in this project's convention,
OpenCV and world-to-camera. Lens distortion is left out, and noted: cameras are pinholes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datasets.camera_files import colmap, matrices, nerfstudio
from datasets.camera_files.archives import unpacked
from datasets.camera_files.poses import (
    OPENCV_C2W,
    OPENCV_W2C,
    OPENGL_C2W,
    Axes,
    Convention,
    Direction,
    PosedFrame,
    read_json,
)
from datasets.camera_files.realestate10k import (
    REALESTATE10K_COLUMNS,
    format_realestate10k,
    parse_realestate10k,
    read_realestate10k_text,
)
from dnnlib.text_files import read_text
from dnnlib.util import UserError, atomic_path, one_line
from torch_utils.cameras import Camera

FORMATS = ("realestate10k", "nerfstudio", "colmap", "matrices")
_STATED = {
    "realestate10k": OPENCV_W2C,
    "nerfstudio": OPENGL_C2W,
    "camera_path": OPENGL_C2W,
    "colmap": OPENCV_W2C,
    "TUM": OPENCV_C2W,
}
_JSON_FILES = ("transforms.json", "trajectory.json", "camera_path.json")
_FILES_OF_FOLDERS = (*colmap.IMAGE_FILES, *colmap.CAMERA_FILES, *_JSON_FILES)
# Of the files that tell a path: what a browser offers to choose.
PATH_SUFFIXES = (".txt", ".json", ".npy", ".bin", ".zip")
_EMPTY = "the file holds no camera"
_FRAME_US = 33_333  # 30 frames a second, in files that want time stamps
_HEAD_LINES = 64  # that tell of a text file which it is: comments may come first


class CameraPath(NamedTuple):
    """A path from a file.

    Attributes:
        cameras: in the order that the format has.
        has_lens: whether the file tells the field of view of its cameras. Focal lengths may still tell how it changes.
        notes: what is left out of the file, a sentence each.
    """

    cameras: list[Camera]
    has_lens: bool
    notes: tuple[str, ...] = ()


def read_trajectory(
    path: str | PathLike, like: Camera, convention: Axes | None = None, pose: Direction | None = None
) -> list[Camera]:
    """The cameras of `read_path`."""
    return read_path(path, like, convention, pose).cameras


def read_path(
    path: str | PathLike, like: Camera, convention: Axes | None = None, pose: Direction | None = None
) -> CameraPath:
    """A path from a file of any format of `datasets.camera_files`, or of RealEstate10K.

    Args:
        path: a file; for COLMAP also the folder of a model or project, either file of a model, or a ZIP archive of it.
        like: gives image size and intrinsics where the file has none.
        convention, pose: axes and direction of the matrices of a file of plain ones, which does not tell; others do.

    Raises UserError that names file, line (or frame) and what is wrong.
    """
    with _opened(path) as file:
        kind = _detect(file)
        stated = _stated_convention(file, kind, convention, pose)
        if kind == "realestate10k":
            found = CameraPath(_read_realestate10k(file, like), True)
        else:
            found = _as_path(_read_frames(file, kind, stated, like), like)
        if not found.cameras:
            raise ValueError(_EMPTY)
        return found


def _stated_convention(path: Path, kind: str, convention: Axes | None, pose: Direction | None) -> Convention:
    """Return that of the format; of plain matrices, what the caller says. Raises ValueError for contradictions."""
    if kind in _STATED:
        for given, stated in zip((convention, pose), _STATED[kind], strict=True):
            if given not in (None, stated):
                raise ValueError(f"{kind} files are {' '.join(_STATED[kind])}, not {given}: leave the option out")
        return _STATED[kind]
    if convention is None or pose is None:
        matrices.count_matrices(path)  # what holds none says that first
        raise ValueError(
            "plain matrices do not tell what they are: give `convention` opencv or opengl, and `pose` c2w or w2c"
        )
    return Convention(convention, pose)


def describe_path(path: str | PathLike) -> tuple[str, int]:
    """The format of a file that `read_path` reads, and how many cameras there are. Raises UserError as that does.

    "matrices" are the one format that does not tell its convention.
    """
    with _opened(path) as file:
        if (kind := _detect(file)) == "matrices":
            if not (count := matrices.count_matrices(file)):
                raise ValueError(_EMPTY)
            return kind, count
    return kind, len(read_path(path, Camera.from_fov(58, 64, 64)).cameras)


@contextmanager
def _opened(path: str | PathLike) -> Iterator[Path]:
    """The file that tells the format, unpacked where it is in an archive; all errors are said of it in one line."""
    with ExitStack() as stack:
        path = Path(path)
        if path.suffix.lower() == ".zip" and os.path.isfile(path):
            path = stack.enter_context(unpacked(path, _FILES_OF_FOLDERS))
        path = _find(path)
        try:
            yield path
        except UserError as error:
            raise error if str(error).startswith(str(path)) else UserError(f"{path}: {error}") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a text file") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        except (
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            AttributeError,
            RuntimeError,
            MemoryError,
        ) as error:
            raise UserError(f"{path}: {one_line(error) or type(error).__name__}") from None


def _read_frames(path: Path, kind: str, convention: Convention, like: Camera) -> list[PosedFrame]:
    if kind == "nerfstudio":
        sizes = nerfstudio.picture_size_beside(path.parent)
        return nerfstudio.read_transforms(read_json(path), sizes, (like.width, like.height))
    if kind == "camera_path":
        return nerfstudio.read_camera_path(read_json(path))
    if kind == "colmap":
        return colmap.read_model(path)
    if kind == "TUM":
        return matrices.read_tum(read_text(path))
    return matrices.read_matrices(path, convention)


def _as_path(frames: Sequence[PosedFrame], like: Camera) -> CameraPath:
    """Cameras of the frames; notes on what is left out of their lenses."""
    notes = []
    bent = [frame.lens for frame in frames if frame.lens is not None and (frame.lens.distortion or frame.lens.fisheye)]
    if bent:
        worst = max(bent, key=lambda lens: lens.distortion)
        coefficients = f", coefficients up to {worst.distortion:g}" if worst.distortion else ""
        notes.append(f"lens distortion is left out ({worst.model}{coefficients}): views are a pinhole's")
    cameras = [
        Camera(like.intrinsics, frame.extrinsics, like.width, like.height)
        if frame.lens is None
        else frame.lens.camera(frame.extrinsics, like.width, like.height)
        for frame in frames
    ]
    has_lens = bool(frames) and frames[0].lens is not None and frames[0].lens.size is not None
    return CameraPath(cameras, has_lens, tuple(notes))


def write_trajectory(
    path: str | PathLike,
    cameras: Sequence[Camera],
    kind: str = "nerfstudio",
    names: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    convention: Axes = "opencv",
    pose: Direction = "w2c",
) -> None:
    """Write a path in one of `FORMATS`, numbers with all their digits (RealEstate10K: nine, as published).

    Args:
        path: the file; for COLMAP the folder that gets images.txt, cameras.txt and an empty points3D.txt.
        names: file names of the images, for formats that have them.
        extra: more entries at the top of a nerfstudio file; readers ignore them.
        convention, pose: axes and direction of plain matrices.
    """
    path = Path(path)
    names = names or [f"{k:06d}.png" for k in range(len(cameras))]
    if kind == "realestate10k":
        rows = torch.stack([camera.to_normalized() for camera in cameras])
        texts = {path: format_realestate10k("path:", [k * _FRAME_US for k in range(len(cameras))], rows)}
    elif kind == "nerfstudio":
        texts = {path: nerfstudio.format_transforms(cameras, names, extra or {})}
    elif kind == "colmap":
        texts = {path / name: text for name, text in colmap.format_model(cameras, names).items()}
    elif kind == "matrices":
        texts = {path: matrices.format_matrices(cameras, Convention(convention, pose))}
    else:
        raise UserError(f"there is no path format {kind!r}; known are {', '.join(FORMATS)}")
    for file, text in texts.items():
        with atomic_path(file) as temporary:
            temporary.write_text(text)


def _find(path: Path) -> Path:
    """The file that tells the format: of a COLMAP model, that of the images."""
    if path.is_dir():
        files = [path / name for name in (*colmap.IMAGE_FILES, *_JSON_FILES)]
        file = next((file for file in files if file.is_file()), None) or colmap.find_model(path)
        if file is None:
            names = ", ".join((*colmap.IMAGE_FILES, "sparse/0 (COLMAP)", *_JSON_FILES))
            raise UserError(f"{path} holds none of the files of a path: {names}")
        return file
    if (
        path.name in colmap.CAMERA_FILES
        and (images := path.with_name(path.name.replace("cameras", "images"))).is_file()
    ):
        return images
    if not path.is_file():
        raise UserError(f"there is no camera path {path}: give a file, or the name of a path")
    return path


def _detect(path: Path) -> str:
    """Return which format a file has: a key of `_STATED`, or "matrices"."""
    if path.name in colmap.IMAGE_FILES and path.with_name(path.name.replace("images", "cameras")).is_file():
        return "colmap"
    if path.name in (*colmap.IMAGE_FILES, *colmap.CAMERA_FILES):
        raise ValueError("half of a model of COLMAP: images and cameras are read together, both as .txt or as .bin")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return "matrices"
    if suffix == ".bin":
        raise ValueError("of binary files those of COLMAP are known, images.bin together with cameras.bin")
    if suffix == ".json":
        document = read_json(path)
        if not isinstance(document, dict):
            return "matrices"
        return "camera_path" if isinstance(document.get("camera_path"), list) else "nerfstudio"
    lines = read_realestate10k_text(path).splitlines()[:_HEAD_LINES]
    if any(len(line.split()) == REALESTATE10K_COLUMNS for line in lines[:2]):
        return "realestate10k"
    columns = {len(fields) for _, fields in matrices.data_lines("\n".join(lines))}
    if columns == {matrices.TUM_COLUMNS}:
        return "TUM"
    return "realestate10k" if len(lines) == 1 and columns == {1} else "matrices"


def _read_realestate10k(path: Path, like: Camera) -> list[Camera]:
    """The image's size is not in the file: the ratio of its sides is that of square pixels, the height `like`'s."""
    _, _, rows = parse_realestate10k(read_realestate10k_text(path))
    widths = [max(round(like.height * float(row[1] / row[0])), 1) for row in rows]
    return [Camera.from_normalized(row, width, like.height) for row, width in zip(rows, widths, strict=True)]
