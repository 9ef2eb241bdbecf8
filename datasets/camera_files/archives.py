"""ZIP archives of camera files, as one sends a model of COLMAP."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from dnnlib.util import ZIP_DAMAGE, UserError, check_regular, one_line

_MOST_BYTES = 1 << 30  # of camera files: a COLMAP model of a thousand pictures has a third of that
_MOST_DEPTH = 16  # folders within folders
_CHUNK = 1 << 20


@contextmanager
def unpacked(archive: Path, names: Sequence[str]) -> Iterator[Path]:
    """The folder with files of these names in a ZIP archive, unpacked while the block lasts: the outermost one.

    Whatever the archive says, no more than 1 GiB is written, and nothing outside of that folder. Errors of the block
    name the archive. Raises UserError where it is no whole archive, or holds no such file.
    """
    with TemporaryDirectory(prefix="camera-files-") as temporary:
        folder = _unpack(archive, names, Path(temporary))
        try:
            yield folder
        except UserError as error:
            raise UserError(str(error).replace(temporary, str(archive))) from None


def _unpack(archive: Path, names: Sequence[str], target: Path) -> Path:
    check_regular(archive)
    left, folders = _MOST_BYTES, []
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                path = PurePosixPath(member.filename.replace("\\", "/"))
                if path.name not in names or not _harmless(path):
                    continue
                folder = target / path.parent
                folder.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, (folder / path.name).open("wb") as file:
                    left -= _copy(source, file, left)
                folders.append(folder)
    except ZIP_DAMAGE as error:
        if isinstance(error, UserError):
            raise UserError(f"{archive}: {error}") from None
        raise UserError(f"{archive} is damaged, encrypted, or no ZIP archive ({one_line(error, 80)})") from None
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}") from None
    if not folders:
        raise UserError(f"{archive} holds none of the files of a path: {', '.join(names)}")
    return min(folders, key=lambda folder: (len(folder.parts), str(folder)))


def _harmless(path: PurePosixPath) -> bool:
    """Whether a member lies below the folder that it is unpacked to; what macOS adds of its own is left out, too."""
    parts = path.parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not (path.is_absolute() or ":" in parts[0] or hidden or len(parts) > _MOST_DEPTH)


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> int:
    """How many bytes were copied; UserError where there are more."""
    count = 0
    while chunk := source.read(_CHUNK):
        count += len(chunk)
        if count > most:
            raise UserError(f"more than {_MOST_BYTES >> 30} GiB of camera files")
        target.write(chunk)
    return count
