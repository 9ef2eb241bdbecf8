"""Text and JSON from files that anybody may have written: read here and nowhere else, refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnnlib.util import UserError, check_regular, one_line

_MOST_NESTING = 100


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file: UTF-8, also with a byte order mark, or UTF-16 with one.

    Raises UserError where it is no such text or cannot be read, FileNotFoundError where there is none.
    """
    check_regular(path)
    try:
        return decode(Path(path).read_bytes(), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {one_line(path)}: {error.strerror or error}") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file. Raises as `read_text` does, and where it is no JSON."""
    return parse_json(read_text(path), path)


def json_document(path: str | os.PathLike[str]) -> Any:
    """The content of a file that is JSON by its name; None for any other, and where there is no file."""
    return read_json(path) if Path(path).suffix.lower() == ".json" and os.path.isfile(path) else None


def parse_json(data: str | bytes, name: object) -> Any:
    """The content of JSON text, `name` being where it is from. Raises UserError where it is none, or absurd.

    Numbers of thousands of digits and nesting of more than 100 levels count as absurd. NaN and infinity, which Python
    writes and the standard lacks, are read.
    """
    text = decode(data, name) if isinstance(data, bytes) else data
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{one_line(name)} is damaged, or no JSON ({one_line(error)})") from None
    except ValueError:  # of int(), which Python limits
        raise UserError(f"{one_line(name)} holds a number of thousands of digits") from None
    except RecursionError:
        raise UserError(f"{one_line(name)} is nested too deep") from None
    level = [content]
    for _ in range(_MOST_NESTING):
        level = [
            item
            for value in level
            if isinstance(value, (dict, list))
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return content
    raise UserError(f"{one_line(name)} is nested too deep")


def number(value: object, name: str) -> float:
    """A number that a file gives for `name`. Raises ValueError, in plain words, where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]  # anything may stand there
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {one_line(value, 40) or 'empty'}, which is no number") from None


def numbers(fields: Sequence[str]) -> list[float]:
    """The numbers in the columns of a line. Raises ValueError that names the column that is none."""
    return [number(field, f"column {column}") for column, field in enumerate(fields, start=1)]


def decode(data: bytes, name: object) -> str:
    """Bytes as the text that they are; raises UserError, with `name`, where they are none."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{one_line(name)} is no text in UTF-8") from None


def is_plain_name(name: object) -> bool:
    """Whether this, from a file, is the name of something in a folder: no path, nothing that leads elsewhere."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and len(name.encode(errors="replace")) < 256
        and not set(name) & set("/\\\0")
        and ":" not in name[1:2]
    )
