"""Files of torch.save: what they hold, and nothing that is not there."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import pytest
import torch

from tests.torch_utils.bombs import bombs
from torch_utils.tensor_files import load_tensor_file


def test_plain_data_and_tensors_come_back(tmp_path: Path) -> None:
    content = {"a": [torch.arange(6).reshape(2, 3).T, "text", 1.5, None], "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(content, tmp_path / "a.pt")
    found = load_tensor_file(tmp_path / "a.pt")
    assert torch.equal(found["a"][0], content["a"][0])
    assert torch.equal(found["b"], content["b"])
    assert found["a"][1:] == content["a"][1:]


def archive(path: Path, pickle: bytes) -> Path:
    """A file of torch.save with another pickle in it."""
    file = io.BytesIO()
    torch.save([torch.ones(3)], file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle if name.endswith("data.pkl") else old.read(name))
    return path


@pytest.mark.parametrize("name", sorted(bombs().keys() - {"opcodes"}))
def test_bombs(name: str, tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(
        ValueError, match=r"opcode|damaged|no place|frame|nested|part of|over and over|length|a mark"
    ) as caught:
        load_tensor_file(archive(tmp_path / "a.torch", bombs()[name].replace(b"\x80\x04", b"\x80\x02")))
    assert time.process_time() - start < 10
    assert "\n" not in str(caught.value)


def test_calls_that_take_memory_are_no_part_of_such_files(tmp_path: Path) -> None:
    for name in ("builtins\nbytearray", "torch.storage\nUntypedStorage", "torch._utils\n_rebuild_qtensor"):
        call = b"\x80\x02c" + name.encode() + b"\n\x8a\x08" + (1 << 40).to_bytes(8, "little") + b"\x85R."
        with pytest.raises(ValueError, match="no part of such files"):
            load_tensor_file(archive(tmp_path / "a.torch", call))


def test_a_storage_longer_than_the_file(tmp_path: Path) -> None:
    torch.save([torch.ones(3)], tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as file:
        pickle = next(file.read(name) for name in file.namelist() if name.endswith("data.pkl"))
    assert pickle.count(b"K\x03") >= 2  # numbers of the storage and of the tensor
    long = pickle.replace(b"K\x03", b"\x8a\x06" + (1 << 40).to_bytes(6, "little"))
    with pytest.raises(ValueError, match=r"storage|bounds|record"):
        load_tensor_file(archive(tmp_path / "a.pt", long))
