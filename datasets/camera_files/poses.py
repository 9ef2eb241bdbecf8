"""Poses in the conventions that files have, and what a file tells of a frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from datasets.camera_files.lens import Lens
from dnnlib.text_files import parse_json, read_text
from torch_utils.cameras import check_rotation, homogeneous

Axes = Literal["opencv", "opengl"]
Direction = Literal["w2c", "c2w"]

_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))  # between the axes, both ways
_QUATERNION_TOLERANCE = 1e-2


class Convention(NamedTuple):
    """How a file writes poses: the axes of the camera, and the direction of the matrices."""

    axes: Axes
    direction: Direction

    def to_extrinsics(self, matrices: torch.Tensor) -> torch.Tensor:
        """Stored matrices [..., 3 or 4, 4] to world-to-camera in OpenCV's axes, [..., 3, 4]."""
        pose = homogeneous(matrices[..., :3, :])
        if self.direction == "c2w":
            pose = torch.linalg.inv(pose)
        return (_OPENGL @ pose if self.axes == "opengl" else pose)[..., :3, :]

    def from_extrinsics(self, extrinsics: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_extrinsics`: [..., 4, 4]."""
        pose = homogeneous(extrinsics)
        if self.axes == "opengl":
            pose = _OPENGL @ pose
        return (torch.linalg.inv(pose) if self.direction == "c2w" else pose) + 0.0  # -0 becomes 0


OPENCV_W2C = Convention("opencv", "w2c")
OPENCV_C2W = Convention("opencv", "c2w")
OPENGL_W2C = Convention("opengl", "w2c")
OPENGL_C2W = Convention("opengl", "c2w")


class PosedFrame(NamedTuple):
    """One frame, as a camera file describes it.

    Attributes:
        extrinsics: world-to-camera in OpenCV's axes, float64 [3, 4].
        lens: None where the file has none.
        name: of the frame's file, as it is written; empty where there is none.
    """

    extrinsics: torch.Tensor
    lens: Lens | None = None
    name: str = ""


def check_pose(matrix: torch.Tensor, place: str) -> torch.Tensor:
    """The same matrix [3 or 4, 4]. Raises ValueError that names the place unless it is finite and a pose."""
    try:
        if matrix.shape not in ((4, 4), (3, 4)):
            raise ValueError(f"transform_matrix is {list(matrix.shape)}, expected 4x4")
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("numbers that are not finite")
        check_rotation(matrix[:3, :3])
        if len(matrix) == 4 and not torch.allclose(matrix[3], matrix.new_tensor([0, 0, 0, 1])):
            raise ValueError("the last row of a 4x4 pose must be 0 0 0 1")
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return matrix


def tensor_of(value: object) -> torch.Tensor:
    """Lists of numbers, of JSON, in float64. Raises ValueError where they are none, or lists differ in length."""
    try:
        return torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError("not a matrix of numbers") from None


def pose_of_quaternion(wxyz: tuple[float, ...], translation: tuple[float, ...]) -> torch.Tensor:
    """[R | t], float64 [3, 4]. Raises ValueError where the quaternion is not of length 1, to a hundredth."""
    from scipy.spatial.transform import Rotation

    w, x, y, z = wxyz
    if not abs(math.hypot(w, x, y, z) - 1) <= _QUATERNION_TOLERANCE:
        raise ValueError(f"not a rotation: its quaternion has length {math.hypot(w, x, y, z):.4f}, not 1")
    if not all(map(math.isfinite, translation)):
        raise ValueError("numbers that are not finite")
    rotation = torch.from_numpy(Rotation.from_quat([x, y, z, w]).as_matrix())
    return torch.cat([rotation, torch.tensor(translation, dtype=torch.float64)[:, None]], dim=1)


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError, without the name of the file, where it is none."""
    return parse_json(read_text(path), "its text")
