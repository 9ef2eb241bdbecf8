"""Standard-library helpers that every part of the project may use."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

# The published ranges of |i - j| between the two frames of a pair (docs/method.md, section 2.4).
_NAMED_RANGES = {"mid": (30, 60), "long": (60, 120)}
STORED = "file"  # in place of a depth model: depth that lies beside the frames
_COUNT_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_LONGEST_NAME = 100  # characters, of four bytes each at most: file systems take 255 bytes, suffixes included
_OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")  # lead to what is open, also to files
_MOST_COUNT = 1 << 60
# What zipfile says of damage; of encryption, and of what it does not know, it says RuntimeError.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)
MOST_SEED = (1 << 64) - 1  # that torch takes
_MAX_SEEDS = 1 << 24  # a longer list is a slip of the pen, and would fill the memory

_Value = TypeVar("_Value")


class UserError(ValueError):
    """Something the user can put right: one line that says what is wrong and what to do.

    The command lines print it without a traceback and exit with code 2.
    """


def present(value: _Value | None) -> _Value:
    """The value, where the code has made sure that there is one and types do not say so."""
    assert value is not None
    return value


def one_line(text: object, most: int = 300) -> str:
    """A text, which may come from anywhere, as one line that no terminal obeys: control characters are escaped."""
    line = harmless(" ".join(str(text).split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def harmless(text: str) -> str:
    """A text with all but its line ends and tabs as signs that no terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


class IncompleteError(Exception):
    """Not all of the work could be done: one line that says what was not, and why. The rest is complete.

    The command lines print it without a traceback and exit with code 1.
    """


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its extension; afterwards it takes the place of `path` in one step.

    Readers see the old file or the new one, never half of one, also after a power cut. When the body raises, the
    temporary file goes and `path` stays as it was. The body must create the file; the folder must exist. A link stays
    a link, and what it leads to is replaced; devices and pipes are written to.
    """
    path = Path(path)
    if _is_device(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / f"content{path.suffix}"
            yield temporary
            _write_through(temporary.read_bytes(), path)
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.stem[:200]}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        commit_file(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Whether there is something that must not be replaced: a device or a pipe, or what is open elsewhere."""
    with suppress(OSError):
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or str(path).startswith(_OPEN_FILES)
    return False


def _write_through(data: bytes, path: Path) -> None:
    """Write to a device or pipe; UserError where nobody reads at the other end, and one would wait for ever."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"cannot write to {one_line(path)}: {error.strerror}") from None
    os.set_blocking(number, True)
    with os.fdopen(number, "wb") as file:
        file.write(data)


def commit_file(temporary: Path, path: Path) -> None:
    """Bring the bytes of `temporary` to the disk, then rename it to `path`, a name in the same folder."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    with suppress(OSError):  # some systems cannot open or sync a folder; there the rename is all one can do
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise UserError where there is something that is no file: a folder, or a pipe, which would be waited for.

    Says nothing where there is nothing: whoever opens it says that best.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or the like"
        raise UserError(f"{path} is {kind}, where a file is expected")


def writable_directory(path: str | os.PathLike[str]) -> Path:
    """Create the folder where it is missing and prove, by a file that vanishes at once, that it can be written to.

    Raises UserError where it is a file, read-only, forbidden or the disk is full.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path} is not a folder (or lies below a file); choose another folder to write to") from None
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}; choose another folder") from None


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """The name of a file or folder to be made, from a name in data that nobody checked.

    Letters, digits, blanks and the usual signs stay; what could lead elsewhere, or hide, becomes an underscore.
    """
    plain = re.sub(r"[^\w .()+,=@#&-]", "_", name)[:_LONGEST_NAME]
    begin = len(plain) - len(plain.lstrip(". -"))
    return "_" * begin + plain[begin:].rstrip(". ") or "_"


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """To sort names by: digits count as the number they are, so that img2 comes before img10."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def public_address(address: str) -> str:
    """An address without name, password, query and fragment, which may be secrets: for messages and records."""
    return re.sub(r"(?<=://)[^/?#]*@", "", re.split(r"[?#]", address, maxsplit=1)[0])


def format_bytes(count: float) -> str:
    """``format_bytes(1536) == "1.5 KiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """``format_seconds(4000) == "1 h 06 min"``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def parse_count(text: str) -> int:
    """``"100"``, ``"4Ki"``, ``"2Mi"`` or ``"1Gi"`` to a number; the suffixes are powers of 1024."""
    match = re.fullmatch(r"([0-9]{1,18})(Ki|Mi|Gi)?", text.strip())
    if not match or int(match[1]) * _COUNT_UNITS[match[2] or ""] > _MOST_COUNT:
        raise UserError(f"{text!r} is no count; write a whole number, if need be with Ki, Mi or Gi, as in 4Ki")
    return int(match[1]) * _COUNT_UNITS[match[2] or ""]


def format_count(count: int) -> str:
    """Return a number as `parse_count` reads it, with the largest suffix that fits; up to four digits stay."""
    for suffix in ("Gi", "Mi", "Ki") if count > 9999 else ():
        if count % _COUNT_UNITS[suffix] == 0:
            return f"{count // _COUNT_UNITS[suffix]}{suffix}"
    return str(count)


def parse_int_list(text: str) -> list[int]:
    """``"16,8"`` to ``[16, 8]``; an empty text to an empty list."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
        raise UserError(f"{text!r} is no list of whole numbers; write them with commas, as in 16,8")
    return [int(part) for part in parts]


def parse_seeds(text: str) -> list[int]:
    """``"1,2,5-10"`` to ``[1, 2, 5, 6, 7, 8, 9, 10]``. A seed names one output, so one that comes again is dropped."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", part.strip())
        if not match:
            raise UserError(f"{text!r} is no list of seeds; write numbers and ranges from 0 up, as in 1,2,5-10")
        first, last = int(match[1]), int(match[2] or match[1])
        if max(first, last) > MOST_SEED:
            raise UserError(f"the seed {max(first, last)} is too large; seeds are below 2^64")
        if last < first:
            raise UserError(f"the seed range {part.strip()!r} runs backwards; write {last}-{first}")
        if last - first + len(seeds) >= _MAX_SEEDS:
            raise UserError(f"{text!r} is more than {_MAX_SEEDS} seeds; ask for fewer at a time")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def parse_range_selection(text: str | None) -> tuple[int, int] | None:
    """Parse gaps between two frames: ``"mid"``, ``"long"`` or ``"A-B"`` to (A, B), meaning A <= |i - j| < B.

    None means any two different frames, and stays None.
    """
    if text is None:
        return None
    if text.strip() in _NAMED_RANGES:
        return _NAMED_RANGES[text.strip()]
    match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text.strip())
    if not match:
        raise UserError(f"{text!r} is no range of frame gaps; write mid, long or A-B, as in 3-8")
    low, high = int(match[1]), int(match[2])
    if not 1 <= low < high:
        raise UserError(f"the range of frame gaps {text.strip()!r} is empty; A-B means A <= |i - j| < B, with A from 1")
    return low, high
