"""dnnlib.util: safe writes and the small grammars of the command line."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib.util import (
    UserError,
    atomic_path,
    format_bytes,
    format_count,
    format_seconds,
    harmless,
    one_line,
    parse_count,
    parse_int_list,
    parse_range_selection,
    parse_seeds,
    writable_directory,
)

ROOT = Path(__file__).parents[2]
few = settings(deadline=None, max_examples=60)


def test_atomic_path_replaces_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"  # libraries choose a format by it
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_keeps_the_old_file_when_the_body_raises(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_keeps_the_old_file_when_the_process_is_killed(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    code = (
        "import os, signal, sys; from dnnlib.util import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(target)], cwd=ROOT, check=False)
    assert result.returncode == -9
    assert target.read_text() == "old"


def test_atomic_path_needs_a_file_to_put_in_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_writable_directory_creates_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert writable_directory(str(folder)) == folder
    assert writable_directory(folder) == folder  # again
    assert not list(folder.iterdir())


@pytest.mark.parametrize("below", ["", "deeper"])
def test_writable_directory_refuses_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        writable_directory(tmp_path / "file" / below)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses even the administrator")
def test_writable_directory_refuses_what_the_system_refuses() -> None:
    with pytest.raises(UserError, match="cannot write to /proc/vivid"):
        writable_directory("/proc/vivid")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 30, "5.0 GiB"), (7 << 40, "7.0 TiB")],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.26, "0.3 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (4000, "1 h 06 min")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@few
@given(st.integers(0, 10**9), st.sampled_from([("", 0), ("Ki", 10), ("Mi", 20), ("Gi", 30)]))
def test_parse_count_is_binary(number: int, unit: tuple[str, int]) -> None:
    assert parse_count(f" {number}{unit[0]} ") == number << unit[1]
    assert parse_count(format_count(number << unit[1])) == number << unit[1]


def test_format_count_takes_the_largest_suffix_of_long_numbers() -> None:
    assert [format_count(count) for count in (1024, 128 << 10, 8 << 20, 3 << 30, 10_000_000)] == [
        *("1024", "128Ki", "8Mi", "3Gi"),
        "10000000",
    ]


@pytest.mark.parametrize("text", ["", "4K", "4ki", "-1", "1.5Mi", "Ki", "4 Ki", "٣", "1e3"])
def test_parse_count_refuses(text: str) -> None:
    with pytest.raises(UserError, match="is no count"):
        parse_count(text)


@few
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), min_size=1, max_size=6))
def test_parse_seeds_is_the_ordered_union_of_its_ranges(ranges: list[tuple[int, int]]) -> None:
    text = ", ".join(str(first) if not more else f"{first}-{first + more}" for first, more in ranges)
    everything = [seed for first, more in ranges for seed in range(first, first + more + 1)]
    assert parse_seeds(text) == sorted(set(everything), key=everything.index)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no list of seeds"),
        ("1,,2", "no list of seeds"),
        ("-1", "no list of seeds"),
        ("a", "no list of seeds"),
        ("1-2-3", "no list of seeds"),
        ("9-5", "write 5-9"),
        ("0-99999999999", "more than"),
    ],
)
def test_parse_seeds_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_seeds(text)


def test_parse_range_selection_knows_the_published_names() -> None:
    assert parse_range_selection("mid") == (30, 60)
    assert parse_range_selection("long") == (60, 120)
    assert parse_range_selection(None) is None


@few
@given(st.integers(1, 500), st.integers(1, 500))
def test_parse_range_selection_reads_every_range_that_holds_a_gap(low: int, width: int) -> None:
    assert parse_range_selection(f"{low}-{low + width}") == (low, low + width)


@pytest.mark.parametrize("text", ["", "short", "3", "3-", "-3", "0-4", "8-3", "5-5", "3–8", "3-8-9"])
def test_parse_range_selection_refuses(text: str) -> None:
    with pytest.raises(UserError, match="range of frame gaps"):
        parse_range_selection(text)


@few
@given(st.text(max_size=8), st.sampled_from([parse_count, parse_seeds, parse_range_selection]))
def test_no_text_gets_anything_but_a_value_or_one_line(text: str, parse: object) -> None:
    message = ""
    try:
        parse(text)
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


def test_atomic_path_leaves_links_and_pipes_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "target.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("target.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "new"

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="cannot write to"), atomic_path(tmp_path / "pipe") as temporary:
        temporary.write_text("nobody reads")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic_path(tmp_path / "pipe") as temporary:
        temporary.write_text("read")
    assert os.read(reader, 100) == b"read"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "pipe", "target.txt"]


def test_a_full_disk_says_where(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("text", ["18446744073709551616", "0-18446744073709551616", "9" * 5000])
def test_seeds_of_more_than_64_bits_are_refused(text: str) -> None:
    assert parse_seeds("18446744073709551615") == [2**64 - 1]
    with pytest.raises(UserError, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize("parse", [parse_count, parse_int_list, parse_seeds, parse_range_selection])
def test_numbers_of_thousands_of_digits_are_refused(parse: Callable) -> None:
    for text in ("9" * 5000, "1-" + "9" * 5000, "9" * 5000 + "Ki"):
        with pytest.raises(UserError):
            parse(text)


def test_one_line_is_obeyed_by_no_terminal() -> None:
    assert one_line("a\n\x1b]0;pwned\x07 \x9b31m é \u202e") == r"a \x1b]0;pwned\x07 \x9b31m é \u202e"
    assert one_line("x" * 1000, 10) == "xxxxxxxxx…"
    assert harmless("a\tb\n") == "a\tb\n"
    assert one_line(b"\xff".decode(errors="surrogateescape")) == r"\udcff"
