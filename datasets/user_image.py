"""One's own photographs, of any size, upright, with the focal length that EXIF or the user gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch

from datasets.exif import exif_fov_deg
from datasets.image_folder import image_files
from dnnlib.imaging import read_image
from dnnlib.util import UserError, safe_name
from torch_utils.cameras import Camera, View

# Of the shorter side, in the middle of the training data: 57.7 pixels of focal length on 64 (docs/method.md,
# section 2.2).
DEFAULT_FOV_DEG = 58.0
_SHORTER_SIDE = 1024  # pixels at most: more than any network reads
_SMALLEST_SIDE = 8
_FOV_LIMITS_DEG = (1.0, 170.0)


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph, or the first frame of a clip, and the camera that took it: the beginning of a path.

    Attributes:
        name: file name, for the eye.
        view: the picture. The camera of a photograph stands at the origin of the world.
        fov_deg: field of view of the shorter side.
        fov_from: where that is known from: "given", "EXIF", "path", "clip" or "default".
    """

    name: str
    view: View
    fov_deg: float
    fov_from: str

    def with_lens(self, fov_deg: float, fov_from: str, center: Sequence[float] | None = None) -> Photograph:
        """The same picture taken through another lens; `center`: its principal point in pixels, None for the old one.

        Raises UserError where that is so far from the middle that there is no square around it.
        """
        old = self.view.camera
        camera = Camera.from_fov(fov_deg, old.width, old.height)
        intrinsics = camera.intrinsics.clone()
        intrinsics[:2, 2] = old.intrinsics[:2, 2] if center is None else torch.tensor(center, dtype=torch.float64)
        camera = replace(camera, intrinsics=intrinsics, frame_side=old.frame_side)
        camera.square_box()
        return Photograph(self.name, View(self.view.image, camera), fov_deg, fov_from)


def read_photograph(file: str | PathLike, fov_deg: float | None = None) -> Photograph:
    """Read a photograph.

    EXIF orientation is applied. The focal length is `fov_deg` (of the shorter side, in degrees), else EXIF's (see
    `datasets.exif`), else `DEFAULT_FOV_DEG`. The principal point is the centre.

    A shorter side of more than 1024 pixels is shrunk to that.

    Raises UserError for what is no image or smaller than 8 pixels a side, and for a field of view beyond 1 .. 170.
    """
    if fov_deg is not None and not _FOV_LIMITS_DEG[0] <= fov_deg <= _FOV_LIMITS_DEG[1]:
        raise UserError(
            "the field of view is {:g} degrees; it must lie between {:g} and {:g}".format(fov_deg, *_FOV_LIMITS_DEG)
        )
    name = Path(file).name
    image = torch.from_numpy(read_image(file)).permute(2, 0, 1)
    height, width = image.shape[1:]
    if min(width, height) < _SMALLEST_SIDE:
        raise UserError(f"{name} is {width}x{height} pixels; a photograph needs {_SMALLEST_SIDE} or more a side")
    fov_from = "given"
    if fov_deg is None:
        fov_deg, fov_from = exif_fov_deg(file, width, height), "EXIF"
    if fov_deg is None:
        fov_deg, fov_from = DEFAULT_FOV_DEG, "default"
    view = View(image, Camera.from_fov(fov_deg, width, height))
    scale = min(_SHORTER_SIDE / min(width, height), 1)
    return Photograph(name, view.resize(round(width * scale), round(height * scale)), fov_deg, fov_from)


def shorter_fov_deg(camera: Camera) -> float:
    """Return how many degrees the shorter side of a camera's picture spans."""
    side = min(camera.width, camera.height)
    focal_px = float(camera.intrinsics[0, 0] if camera.width == side else camera.intrinsics[1, 1])
    return math.degrees(2 * math.atan(0.5 * side / focal_px))


def photograph_files(paths: Sequence[str | PathLike]) -> dict[str, Path]:
    """Files and all pictures in folders, under a name each that no other has: its stem, or its file name.

    The names serve for folders: they are no paths, whatever the files are called.

    Raises UserError for a folder without pictures, and where two files have one name.
    """
    files = [file for path in map(Path, paths) for file in (image_files(path) if path.is_dir() else [path])]
    stems = [safe_name(file.stem) for file in files]
    named = {
        stem if stems.count(stem) == 1 else safe_name(file.name): file for stem, file in zip(stems, files, strict=True)
    }
    if len(named) < len(files):
        raise UserError("two of the photographs have the same name; rename one, or give one at a time")
    return named
