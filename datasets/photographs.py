"""Photographs as clips of one frame, so that they are packed like all else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from einops import rearrange

from datasets.clips import UnusableClip
from datasets.image_folder import image_files
from datasets.packed import PACK_INDEX, PackedClips
from dnnlib.imaging import read_image
from dnnlib.util import UserError
from torch_utils.cameras import Camera, View, intrinsics_matrix

_FOCAL = 0.6  # of the shorter side: what single-image training assumes (docs/method.md, section 7.5)


@dataclass(frozen=True, eq=False)
class PhotographClip:
    """One photograph of an assumed focal length; see `datasets.layouts.StoredClip`."""

    file: Path
    frames: Sequence[int] = (0,)
    timestamps: Sequence[int] = (0,)

    @property
    def cameras(self) -> torch.Tensor:
        try:
            return self._view.camera.to_normalized()[None]
        except UserError as error:
            raise UnusableClip("unreadable photograph", str(error)) from None

    def read(self, position: int) -> bytes:
        return self.file.read_bytes()

    def view(self, position: int) -> View:
        return self._view

    @cached_property
    def _view(self) -> View:
        image = rearrange(torch.from_numpy(read_image(self.file)), "h w c -> c h w")
        height, width = image.shape[1:]
        focal, x, y = (torch.tensor(value) for value in (_FOCAL * min(width, height), width / 2, height / 2))
        return View(image, Camera(intrinsics_matrix(focal, focal, x, y), torch.eye(3, 4), width, height))


class PhotographClips:
    """The photographs in a folder and the folders below, named by their paths; see `datasets.layouts.StoredClips`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = [file.relative_to(folder).as_posix() for file in image_files(folder)]

    def open(self, number: int) -> PhotographClip:
        return PhotographClip(self._folder / self.names[number])

    def audit(self) -> Iterator[tuple[str, str]]:
        """Nothing lists photographs that could miss one."""
        return iter(())


def open_photographs(folder: Path) -> PackedClips | PhotographClips:
    """The photographs of a pack, or of a folder. Raises UserError where there is none."""
    return PackedClips(folder) if (folder / PACK_INDEX).is_file() else PhotographClips(folder)
