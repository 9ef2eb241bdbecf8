"""One's own photographs, of any size, upright, with the focal length that EXIF or the user gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from datasets.exif import exif_fov_deg
from datasets.image_folder import image_files
from dnnlib.imaging import read_image
from dnnlib.util import UserError, present, safe_name
from torch_utils.aiming import aimed_square
from torch_utils.cameras import Camera, View
from torch_utils.warping import turned_view

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
        view: the picture. The camera of a photograph stands at the origin of the world, and is not turned there unless
            it is cropped.
        fov_deg: field of view of the shorter side.
        fov_from: where that is known from: "given", "EXIF", "path", "clip" or "default".
        crop: what the square is taken around, see `cropped`.
    """

    name: str
    view: View
    fov_deg: float
    fov_from: str
    crop: tuple[float, float] | None = None

    @cached_property
    def start(self) -> Camera:
        """The camera that paths begin with: the photograph's, or the one that is turned to `crop`, which is 1 then."""
        if not self._is_aimed:
            return self.view.camera
        return replace(aimed_square(self.view.camera, *present(self.crop)), extrinsics=torch.eye(3, 4))

    @cached_property
    def source(self) -> View:
        """What the networks see the square of: the photograph, or what the camera that is turned to `crop` sees."""
        return View(turned_view(self.view, self.start)[0], self.start) if self._is_aimed else self.view

    @property
    def outline(self) -> list[tuple[float, float]]:
        """The corners, in turn, of what the networks see of the photograph, in pixels of it."""
        square = self.start.square()
        side = square.width
        corners = torch.tensor([[0, 0], [side, 0], [side, side], [0, side]], dtype=torch.float64)
        points, _ = self.view.camera.project(square.unproject(corners, torch.ones(4)))
        return [(x, y) for x, y in points.tolist()]

    @property
    def _is_aimed(self) -> bool:
        """Whether the crop is another one than the square that is taken anyway."""
        if self.crop is None:
            return False
        camera = self.view.camera
        if camera.is_centered:
            return self.crop != (0.5, 0.5)
        size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
        return not torch.allclose(torch.tensor(self.crop, dtype=torch.float64) * size, camera.intrinsics[:2, 2])

    def cropped(self, crop: tuple[float, float] | None) -> Photograph:
        """The same photograph before a world whose origin is a camera turned to a point of it, see `aimed_square`.

        Args:
            crop: the point, fractions of width and height; None, as the middle, for the square that is taken anyway.

        Raises UserError where the point is too near to the border.
        """
        upright = replace(self.view.camera, extrinsics=torch.eye(3, 4))
        found = replace(self, view=View(self.view.image, upright), crop=crop)
        if not found._is_aimed:
            return found
        turned = aimed_square(upright, *present(crop)).extrinsics
        back = torch.cat([turned[:, :3].mT, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
        return replace(found, view=View(self.view.image, replace(upright, extrinsics=back)))

    def with_lens(self, fov_deg: float, fov_from: str, center: Sequence[float] | None = None) -> Photograph:
        """The same picture taken through another lens; `center`: its principal point in pixels, None for the old one.

        Raises UserError where that is so far from the middle that there is no square around it.
        """
        old = self.view.camera
        camera = Camera.from_fov(fov_deg, old.width, old.height)
        intrinsics = camera.intrinsics.clone()
        intrinsics[:2, 2] = old.intrinsics[:2, 2] if center is None else torch.tensor(center, dtype=torch.float64)
        camera = replace(camera, intrinsics=intrinsics, frame_side=old.frame_side)
        if self.crop is None:
            camera.square_box()
        taken = replace(self, view=View(self.view.image, camera), fov_deg=fov_deg, fov_from=fov_from)
        return taken.cropped(self.crop)

    def record(self) -> dict[str, Any]:
        """What there is to know of it beside its pixels, ready for JSON; `center` is the principal point in pixels."""
        center = self.view.camera.intrinsics[:2, 2].tolist()
        lens = {"name": self.name, "fov_deg": self.fov_deg, "fov_from": self.fov_from, "center": center}
        return {**lens, "crop": self.crop and list(self.crop)}


def read_photograph(
    file: str | PathLike, fov_deg: float | None = None, crop: tuple[float, float] | None = None
) -> Photograph:
    """Read a photograph; `crop` as for `Photograph.cropped`.

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
    image = rearrange(torch.from_numpy(read_image(file)), "h w c -> c h w")
    height, width = image.shape[1:]
    if min(width, height) < _SMALLEST_SIDE:
        raise UserError(f"{file} is {width}x{height} pixels; a photograph needs {_SMALLEST_SIDE} or more a side")
    fov_from = "given"
    if fov_deg is None:
        fov_deg, fov_from = exif_fov_deg(file, width, height), "EXIF"
    if fov_deg is None:
        fov_deg, fov_from = DEFAULT_FOV_DEG, "default"
    view = View(image, Camera.from_fov(fov_deg, width, height))
    scale = min(_SHORTER_SIDE / min(width, height), 1)
    view = view.resize(round(width * scale), round(height * scale))
    return Photograph(name, view, fov_deg, fov_from).cropped(crop)


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
    if not all(map(str, paths)):
        raise UserError("the name of a photograph is empty")
    files = [file for path in map(Path, paths) for file in (image_files(path) if path.is_dir() else [path])]
    stems = [safe_name(file.stem) for file in files]
    named: dict[str, Path] = {}
    for stem, file in zip(stems, files, strict=True):
        name = stem if stems.count(stem) == 1 else safe_name(file.name)
        if name in named:
            raise UserError(
                f"two of the photographs are called {name}: {named[name]} and {file}; rename one, or give one at a time"
            )
        named[name] = file
    return named
