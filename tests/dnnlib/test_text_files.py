"""Text and JSON from files that anybody may have written."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from dnnlib.text_files import decode, is_plain_name, json_document, parse_json, read_json, read_text
from dnnlib.util import UserError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_in_the_encodings_that_editors_write(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é = 1", encoding=encoding)
    assert read_text(tmp_path / "a.txt") == "é = 1"


def test_what_is_no_text_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xe9")
    with pytest.raises(UserError, match=r"a\.txt is no text in UTF-8"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.txt")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match=path.name):
            read_text(path)
    with pytest.raises(UserError, match="bytes is no text"):
        decode(b"\xff\xff", "bytes")


def test_json_as_python_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.JSON").write_text('{"a": [1, NaN, Infinity]}')
    found = read_json(tmp_path / "a.JSON")
    assert found["a"][0] == 1
    assert math.isnan(found["a"][1])
    assert json_document(tmp_path / "a.JSON")["a"][2] == math.inf
    assert json_document(tmp_path / "none.json") is None
    (tmp_path / "a.txt").write_text("{}")
    assert json_document(tmp_path / "a.txt") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "here is damaged, or no JSON"),
        ("{", "here is damaged, or no JSON"),
        ("9" * 5000, "here holds a number of thousands of digits"),
        ("[" * 101 + "]" * 101, "here is nested too deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "here is nested too deep"),
        ("[" * 100_000, "here is "),
    ],
)
def test_absurd_json_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_json(text, "here")
    assert "\n" not in str(error.value)


def test_a_hundred_levels_are_deep_enough() -> None:
    assert parse_json("[" * 100 + "]" * 100, "here")


@pytest.mark.parametrize("name", ["a", "a b.png", ".hidden", "ab:c", "é" * 127])
def test_plain_names(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "c:", "é" * 256, 3, None])
def test_names_that_lead_elsewhere(name: object) -> None:
    assert not is_plain_name(name)
