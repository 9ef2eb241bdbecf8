"""The pictures in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from dnnlib.util import UserError, natural_key

# What `dnnlib.imaging.open_image` reads; HEIC is listed also where the package that reads it is missing, to be named.
IMAGE_SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".heic", ".heif", ".hif", ".gif",
    ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pnm",
})  # fmt: skip


def is_picture(path: Path) -> bool:
    """Whether a file is one to take for a picture, by its name.

    Hidden files are none: among them are those in which macOS keeps what is no picture of `a.jpg`, called `._a.jpg`.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def image_files(folder: str | PathLike) -> list[Path]:
    """All pictures in a folder and the folders below, linked ones too, in natural order of their paths.

    Raises UserError where there is none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder of pictures {folder}")
    files = [path for below in _folders(root) for path in sorted(below.iterdir()) if is_picture(path)]
    if not files:
        raise UserError(f"{folder} holds no pictures; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(files, key=lambda path: [natural_key(part) for part in path.relative_to(root).parts])


def _folders(root: Path) -> Iterator[Path]:
    """A folder and those below that are not hidden, each once, however links go."""
    seen = set()
    for path, folders, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield Path(path)
