"""Which files of a folder are pictures, and their order."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from datasets.image_folder import image_files
from datasets.user_image import read_photograph
from dnnlib import UserError


def test_a_folder_takes_what_a_single_file_does_and_no_more(tmp_path: Path) -> None:
    """macOS leaves `._a.jpg` beside `a.jpg` where its file system cannot keep what is in it."""
    album, elsewhere = tmp_path / "album", tmp_path / "elsewhere"
    for folder in (album / "dir.jpg", album / "__MACOSX", album / ".thumbs", elsewhere):
        folder.mkdir(parents=True)
    for name in ("img10.jpg", "img2.JPEG", "a.gif", "b.ppm", "c.jfif", "dir.jpg/d.bmp"):
        Image.new("RGB", (90, 60)).save(album / name)
    Image.new("RGB", (90, 60)).save(elsewhere / "linked.png")
    (album / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(album)  # round and round
    for name in ("._img10.jpg", ".hidden.jpg", "__MACOSX/img.jpg", ".thumbs/t.png", "notes.txt"):
        (album / name).write_bytes(b"Mac OS X")
    names = [file.relative_to(album).as_posix() for file in image_files(album)]
    assert names == ["a.gif", "b.ppm", "c.jfif", "dir.jpg/d.bmp", "img2.JPEG", "img10.jpg", "link/linked.png"]
    for name in names:
        assert read_photograph(album / name).view.camera.width == 90


def test_a_folder_without_pictures_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="holds no pictures; expected files ending in"):
        image_files(tmp_path)
    with pytest.raises(UserError, match="there is no folder of pictures"):
        image_files(tmp_path / "notes.txt")
