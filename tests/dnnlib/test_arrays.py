"""Arrays from files that anybody may have written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dnnlib.arrays import read_array
from dnnlib.util import UserError


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "bool"])
def test_numbers_are_read_as_they_are(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    found = read_array(tmp_path / "a.npy")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_no_file_is_for_the_caller_to_say(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "array", [np.array(["text"]), np.array([{"a": 1}], dtype=object), np.zeros(2, "M8[s]"), np.zeros(2, complex)]
)
def test_what_holds_no_numbers_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy"):
        read_array(tmp_path / "a.npy")


def test_archives_and_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").rename(tmp_path / "whole.npy")
    for content in ((tmp_path / "a.npz").read_bytes(), b"", b"text", whole[:-1], whole.replace(b"(3,)", b"(9,)")):
        (tmp_path / "b.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"b\.npy") as error:
            read_array(tmp_path / "b.npy")
        assert "\n" not in str(error.value)
