"""Camera files in ZIP archives: they are what they are in a folder, and do no harm."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from datasets.camera_files import archives
from datasets.trajectories import named_path
from datasets.trajectory_files import describe_path, read_trajectory, write_trajectory
from dnnlib import UserError
from torch_utils.cameras import Camera

LIKE = Camera.from_fov(58, 64, 48)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_trajectory(folder, named_path("spiral", LIKE, 4), "colmap")
    return folder


def pack(model: Path, inside: str, **more: bytes) -> Path:
    archive = model.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for file in model.iterdir():
            content.writestr(zipfile.ZipInfo(f"{inside}{file.name}"), file.read_bytes(), zipfile.ZIP_DEFLATED)
        for name, data in more.items():
            content.writestr(name, data)
    return archive


@pytest.mark.parametrize("inside", ["", "sparse/0/", "my model/sparse/0/", "back\\slash\\"])
def test_an_archive_is_what_is_in_it(model: Path, inside: str) -> None:
    more = {"__MACOSX/images.txt": b"\0", "photos/images.jpg": b"?", "other/deeper/than/that/images.txt": b"?"}
    archive = pack(model, inside, **more)
    for one, other in zip(read_trajectory(archive, LIKE), read_trajectory(model, LIKE), strict=True):
        assert torch.equal(one.extrinsics, other.extrinsics)
        assert torch.equal(one.intrinsics, other.intrinsics)
    assert describe_path(archive) == ("colmap", 4)


def test_what_is_wrong_in_an_archive_is_said_of_the_archive(model: Path, tmp_path: Path) -> None:
    (model / "images.txt").write_text("1 2 3\n")
    with pytest.raises(UserError, match=r"model.zip/sparse/0/images.txt: line 1: 3 columns") as error:
        read_trajectory(pack(model, "sparse/0/"), LIKE)
    assert "camera-files-" not in str(error.value)


@pytest.mark.parametrize("inside", ["../", "/", "C:/", ".git/", "a/../../", "/".join("a" * 20) + "/"])
def test_nothing_is_unpacked_elsewhere(model: Path, inside: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    archive = pack(model, inside)
    with pytest.raises(UserError, match="holds none of the files of a path"):
        read_trajectory(archive, LIKE)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, archive])


def test_what_is_too_large_damaged_or_empty_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(model, "")
    whole = archive.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_MOST_BYTES", 100)
        with pytest.raises(UserError, match=r"model.zip: more than 0 GiB"):
            read_trajectory(archive, LIKE)
    for damaged in (b"", b"PK", whole[:-30], whole[:60] + b"\xff" * 40 + whole[100:]):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged, encrypted, or no ZIP archive") as error:
            read_trajectory(archive, LIKE)
        assert "\n" not in str(error.value)
    archive.unlink()
    with pytest.raises(UserError, match="there is no camera path"):
        read_trajectory(archive, LIKE)
