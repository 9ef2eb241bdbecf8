"""The pictures in a folder."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dnnlib.util import UserError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def image_files(folder: str | PathLike) -> list[Path]:
    """All pictures in a folder and the folders below, sorted by path. Raises UserError where there is none."""
    if not Path(folder).is_dir():
        raise UserError(f"there is no folder of pictures {folder}")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder} holds no pictures; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return files
