"""Camera paths in files, each under the convention its format has (docs/trajectories.md).

format         what                                     axes      matrices
realestate10k  the .txt file of a RealEstate10K clip    OpenCV    world-to-camera
nerfstudio     transforms.json, of Blender too          OpenGL    camera-to-world
colmap         images.txt and cameras.txt               OpenCV    world-to-camera
matrices       3x4 or 4x4, in .txt, .json or .npy       as told   as told

OpenCV: x right, y down, z forward. OpenGL: x right, y up, z backward. All become cameras in this project's
convention, OpenCV and world-to-camera. Lens distortion is left out: cameras are pinholes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch

from dnnlib.text_files import parse_json, read_text
from dnnlib.util import UserError, atomic_path, one_line
from torch_utils.cameras import (
    Camera,
    check_rotation,
    format_realestate10k,
    homogeneous,
    intrinsics_matrix,
    parse_realestate10k,
)

Axes = Literal["opencv", "opengl"]
Direction = Literal["w2c", "c2w"]

FORMATS = ("realestate10k", "nerfstudio", "colmap", "matrices")
_STATED: dict[str, tuple[Axes, Direction]] = {
    "realestate10k": ("opencv", "w2c"),
    "nerfstudio": ("opengl", "c2w"),
    "colmap": ("opencv", "w2c"),
}
_REALESTATE10K_COLUMNS = 19
_FRAME_US = 33_333  # 30 frames a second, in files that want time stamps
_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))  # between the axes, both ways
# Models of COLMAP that begin with one focal length for both axes; all others begin with fx, fy, cx, cy.
_COLMAP_ONE_FOCAL = {
    "SIMPLE_PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
}
_QUATERNION_TOLERANCE = 1e-2


def read_trajectory(
    path: str | PathLike, like: Camera, axes: Axes | None = None, direction: Direction | None = None
) -> list[Camera]:
    """The cameras of a path, in the order of the file (COLMAP: sorted by name of the image).

    Args:
        path: a file; for COLMAP also the folder, or either of the two files.
        like: gives image size and intrinsics where the file has none.
        axes, direction: the convention, for a file of plain matrices, which does not tell; others do.

    Raises UserError that names file, line (or frame) and what is wrong.
    """
    path = _find(Path(path))
    try:
        kind = _detect(path)
        if kind in _STATED:
            for given, stated in zip((axes, direction), _STATED[kind], strict=True):
                if given not in (None, stated):
                    raise ValueError(f"{kind} files are {' '.join(_STATED[kind])}, not {given}: leave the option out")
            cameras = _READERS[kind](path, like)
        else:
            matrices = list(_read_matrices(path))
            if axes is None or direction is None:
                raise ValueError(
                    "plain matrices do not tell their convention: add --convention opencv or opengl, "
                    "and --pose c2w or w2c"
                )
            poses = [_extrinsics(matrix, axes, direction, place) for place, matrix in matrices]
            cameras = [Camera(like.intrinsics, pose, like.width, like.height) for pose in poses]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: {one_line(error) or type(error).__name__}") from None
    if not cameras:
        raise UserError(f"{path} holds no camera")
    return cameras


def write_trajectory(
    path: str | PathLike,
    cameras: Sequence[Camera],
    kind: str = "nerfstudio",
    names: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    axes: Axes = "opencv",
    direction: Direction = "w2c",
) -> None:
    """Write a path in one of `FORMATS`, numbers with all their digits (RealEstate10K: nine, as published).

    Args:
        path: the file; for COLMAP the folder that gets images.txt, cameras.txt and an empty points3D.txt.
        names: file names of the images, for formats that have them.
        extra: more entries at the top of a nerfstudio file; readers ignore them.
        axes, direction: the convention of plain matrices.
    """
    path = Path(path)
    names = names or [f"{k:06d}.png" for k in range(len(cameras))]
    if kind == "realestate10k":
        rows = torch.stack([camera.to_normalized() for camera in cameras])
        texts = {path: format_realestate10k("path:", [k * _FRAME_US for k in range(len(cameras))], rows)}
    elif kind == "nerfstudio":
        texts = {path: _format_nerfstudio(cameras, names, extra or {})}
    elif kind == "colmap":
        texts = {path / name: text for name, text in _colmap_files(cameras, names).items()}
    elif kind == "matrices":
        rows = [_matrix(camera.extrinsics, axes, direction).flatten().tolist() for camera in cameras]
        texts = {path: "".join(" ".join(map(repr, row)) + "\n" for row in rows)}
    else:
        raise UserError(f"there is no path format {kind!r}; known are {', '.join(FORMATS)}")
    for file, text in texts.items():
        with atomic_path(file) as temporary:
            temporary.write_text(text)


def _find(path: Path) -> Path:
    """The file that tells the format: of COLMAP's two, images.txt."""
    if path.is_dir():
        for name in ("images.txt", "transforms.json", "trajectory.json"):
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path} is a folder without images.txt (COLMAP) or transforms.json")
    if path.name == "cameras.txt" and path.with_name("images.txt").is_file():
        return path.with_name("images.txt")
    if not path.is_file():
        raise UserError(f"there is no camera path {path}: give a file, or the name of a path")
    return path


def _detect(path: Path) -> str:
    if path.suffix == ".npy":
        return "matrices"
    if path.suffix == ".json":
        return "nerfstudio" if isinstance(_read_json(path), dict) else "matrices"
    if path.with_name("cameras.txt").is_file() and path.name == "images.txt":
        return "colmap"
    head = [line.split() for line in read_text(path).splitlines()[:2]]
    return "realestate10k" if any(len(fields) in (1, _REALESTATE10K_COLUMNS) for fields in head) else "matrices"


def _read_json(path: Path) -> Any:
    return parse_json(read_text(path), "its text")


def _extrinsics(matrix: torch.Tensor, axes: Axes, direction: Direction, place: str) -> torch.Tensor:
    """World-to-camera in OpenCV's axes, [3, 4], from [3 or 4, 4]; `place` is where errors say it stands."""
    try:
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("numbers that are not finite")
        check_rotation(matrix[:3, :3])
        if len(matrix) == 4 and not torch.allclose(matrix[3], matrix.new_tensor([0, 0, 0, 1])):
            raise ValueError("the last row of a 4x4 pose must be 0 0 0 1")
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    pose = homogeneous(matrix[:3])
    if direction == "c2w":
        pose = torch.linalg.inv(pose)
    return (_OPENGL @ pose if axes == "opengl" else pose)[:3]


def _matrix(extrinsics: torch.Tensor, axes: Axes, direction: Direction) -> torch.Tensor:
    """The inverse of `_extrinsics`, [4, 4]."""
    pose = homogeneous(extrinsics)
    if axes == "opengl":
        pose = _OPENGL @ pose
    return (torch.linalg.inv(pose) if direction == "c2w" else pose) + 0.0  # -0 becomes 0


def _read_realestate10k(path: Path, like: Camera) -> list[Camera]:
    """The image's size is not in the file: the ratio of its sides is that of square pixels, the height `like`'s."""
    _, _, rows = parse_realestate10k(read_text(path))
    widths = [max(round(like.height * float(row[1] / row[0])), 1) for row in rows]
    return [Camera.from_normalized(row, width, like.height) for row, width in zip(rows, widths, strict=True)]


def _read_nerfstudio(path: Path, like: Camera) -> list[Camera]:
    document = _read_json(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError('no list of "frames"; expected a transforms.json as nerfstudio or Blender write it')
    cameras = []
    for number, frame in enumerate(frames):
        place = f"frame {number}"
        try:
            matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
            width, height, *focal_center = _nerfstudio_intrinsics({**document, **frame}, like)
            intrinsics = _intrinsics(*focal_center)
        except KeyError as error:
            raise ValueError(f"{place}: no {error}") from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place}: {error}") from None
        if matrix.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"{place}: transform_matrix is {list(matrix.shape)}, expected 4x4")
        cameras.append(Camera(intrinsics, _extrinsics(matrix, *_STATED["nerfstudio"], place), width, height))
    return cameras


def _nerfstudio_intrinsics(values: Mapping[str, Any], like: Camera) -> tuple[int, int, float, float, float, float]:
    """(width, height, fx, fy, cx, cy) in pixels, from what a frame and its document say."""
    width, height = int(values.get("w", like.width)), int(values.get("h", like.height))
    if "fl_x" in values:
        fx = float(values["fl_x"])
    elif "camera_angle_x" in values:
        fx = width / 2 / math.tan(float(values["camera_angle_x"]) / 2)
    else:  # the file leaves the lens open
        fx, fy, cx, cy = like.resize(width, height).focal_and_center.tolist()
        return width, height, fx, fy, cx, cy
    return (
        width,
        height,
        fx,
        float(values.get("fl_y", fx)),
        float(values.get("cx", width / 2)),
        float(values.get("cy", height / 2)),
    )


def _format_nerfstudio(cameras: Sequence[Camera], names: Sequence[str], extra: Mapping[str, Any]) -> str:
    """JSON with a line for each frame."""
    rows = []
    for camera, name in zip(cameras, names, strict=True):
        lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), camera.focal_and_center.tolist(), strict=True))
        matrix = _matrix(camera.extrinsics, *_STATED["nerfstudio"]).tolist()
        frame = {"file_path": name, "w": camera.width, "h": camera.height, **lens, "transform_matrix": matrix}
        rows.append("  " + json.dumps(frame))
    head = json.dumps({"camera_model": "OPENCV", **extra}, indent=1).removesuffix("\n}")
    return head + ',\n "frames": [\n' + ",\n".join(rows) + "\n ]\n}\n"


def _intrinsics(fx: float, fy: float, cx: float, cy: float) -> torch.Tensor:
    numbers = torch.tensor([fx, fy, cx, cy], dtype=torch.float64)
    if not (bool(torch.isfinite(numbers).all()) and fx > 0 and fy > 0):
        raise ValueError(f"a lens of {fx:g} {fy:g} {cx:g} {cy:g}: focal lengths must be positive")
    return intrinsics_matrix(*numbers)


def _read_colmap(path: Path, like: Camera) -> list[Camera]:
    from scipy.spatial.transform import Rotation

    lenses = _read_colmap_lenses(path.with_name("cameras.txt"))
    views: list[tuple[str, Camera]] = []
    lines = iter(enumerate(read_text(path).splitlines(), start=1))
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        next(lines, None)  # the line of the image's points, which may be empty
        fields = line.split(maxsplit=9)
        try:
            if len(fields) != 10:
                raise ValueError(f"{len(fields)} columns where 10 are expected")
            w, x, y, z, *translation = map(float, fields[1:8])
            if not abs(math.hypot(w, x, y, z) - 1) <= _QUATERNION_TOLERANCE:
                raise ValueError(f"not a rotation: its quaternion has length {math.hypot(w, x, y, z):.4f}, not 1")
            if fields[8] not in lenses:
                raise ValueError(f"there is no camera {fields[8]} in cameras.txt")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        rotation = torch.from_numpy(Rotation.from_quat([x, y, z, w]).as_matrix())
        pose = torch.cat([rotation, torch.tensor(translation, dtype=torch.float64)[:, None]], dim=1)
        intrinsics, width, height = lenses[fields[8]]
        views.append(
            (fields[9], Camera(intrinsics, _extrinsics(pose, *_STATED["colmap"], f"line {number}"), width, height))
        )
    return [camera for _, camera in sorted(views, key=lambda view: view[0])]


def _read_colmap_lenses(path: Path) -> dict[str, tuple[torch.Tensor, int, int]]:
    """Camera id to (intrinsics, width, height)."""
    lenses = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        try:
            identity, model, width, height, *numbers = fields
            lens = [float(text) for text in numbers]
            if model in _COLMAP_ONE_FOCAL:
                lens = lens[:1] + lens
            lenses[identity] = _intrinsics(*lens[:4]), int(width), int(height)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from None
    return lenses


def _colmap_files(cameras: Sequence[Camera], names: Sequence[str]) -> dict[str, str]:
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


def _read_matrices(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(where it stands, [3 or 4, 4]) for each matrix of a .npy, .json or text file."""
    if path.suffix == ".txt":
        yield from _read_text_matrices(read_text(path))
        return
    if path.suffix == ".npy":
        import numpy as np

        array = torch.from_numpy(np.load(path, allow_pickle=False)).to(torch.float64)
    else:
        try:
            array = torch.tensor(_read_json(path), dtype=torch.float64)
        except TypeError as error:
            raise ValueError(f"not a list of matrices ({error})") from None
    if array.ndim != 3 or array.shape[1:] not in ((3, 4), (4, 4)):
        raise ValueError(f"matrices of shape {list(array.shape)}, expected [N, 3, 4] or [N, 4, 4]")
    yield from ((f"matrix {k}", matrix) for k, matrix in enumerate(array))


def _read_text_matrices(text: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Matrices one a line, as 12 or 16 numbers, or as 3 or 4 lines of 4 numbers each, one shape throughout."""
    rows: list[tuple[int, list[float]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.partition("#")[0].replace(",", " ").split()
        if not fields:
            continue
        if len(fields) not in (4, 12, 16) or (rows and len(fields) != len(rows[0][1])):
            expected = f"{len(rows[0][1])} are" if rows else "12 or 16 (a pose), or 4 (a row of one), are"
            raise ValueError(f"line {number}: {len(fields)} columns where {expected} expected")
        try:
            rows.append((number, [float(field) for field in fields]))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    height = 1
    if rows and len(rows[0][1]) == 4:  # a fourth row is 0 0 0 1, which no third row of a rotation followed by 1 can be
        height = 4 if len(rows) > 3 and rows[3][1] == [0, 0, 0, 1] else 3
        if len(rows) % height:
            raise ValueError(f"line {rows[-1][0]}: {len(rows)} rows are no whole number of {height}x4 matrices")
    for start in range(0, len(rows), height):
        numbers = [value for _, row in rows[start : start + height] for value in row]
        yield f"line {rows[start][0]}", torch.tensor(numbers, dtype=torch.float64).reshape(-1, 4)


_READERS = {"realestate10k": _read_realestate10k, "nerfstudio": _read_nerfstudio, "colmap": _read_colmap}
