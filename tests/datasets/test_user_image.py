"""Photographs of all kinds: size, orientation, focal length."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.user_image import DEFAULT_FOV_DEG, photograph_files, read_photograph, shorter_fov_deg
from dnnlib import UserError


def save(path: Path, width: int = 90, height: int = 60, **exif: float) -> Path:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 3] = 255
    image = Image.fromarray(pixels)
    tags = image.getexif()
    if "orientation" in exif:
        tags[0x0112] = exif["orientation"]
    if "film_mm" in exif:
        tags.get_ifd(0x8769)[0xA405] = exif["film_mm"]
    image.save(path, exif=tags)
    return path


def test_orientation_is_applied_and_the_camera_fits(tmp_path: Path) -> None:
    view = read_photograph(save(tmp_path / "a.jpg", orientation=6)).view  # a quarter turn clockwise to be upright
    assert view.image.shape == (3, 90, 60)
    assert (view.camera.width, view.camera.height) == (60, 90)
    assert view.image[:, :25].float().mean() > 240  # what was left is now above
    assert view.image[:, 35:].float().mean() < 15


@pytest.mark.parametrize("orientation", [1, 6])
def test_focal_length_from_exif(orientation: int, tmp_path: Path) -> None:
    """A 3:2 picture is the film's own shape, so that the focal length relates to its height, 24 mm."""
    photograph = read_photograph(save(tmp_path / "a.jpg", orientation=orientation, film_mm=35))
    assert photograph.fov_from == "EXIF"
    assert photograph.fov_deg == pytest.approx(math.degrees(2 * math.atan(12 / 35)))
    assert shorter_fov_deg(photograph.view.camera) == pytest.approx(photograph.fov_deg)
    assert photograph.view.camera.focal_and_center[:2].tolist() == pytest.approx([60 / 24 * 35] * 2)


def test_who_tells_the_field_of_view(tmp_path: Path) -> None:
    file = save(tmp_path / "a.jpg", film_mm=28)
    assert (read_photograph(file, 40).fov_deg, read_photograph(file, 40).fov_from) == (40, "--fov")
    for film_mm in (0, 65535):  # unknown, and nonsense: a telescope
        photograph = read_photograph(save(tmp_path / "b.jpg", film_mm=film_mm))
        assert (photograph.fov_deg, photograph.fov_from) == (DEFAULT_FOV_DEG, "default")
    for fov in (0, 180, math.nan):
        with pytest.raises(UserError, match="must lie between 1 and 170"):
            read_photograph(file, fov)


def test_large_photographs_are_made_smaller_with_their_camera(tmp_path: Path) -> None:
    """50 megapixels."""
    photograph = read_photograph(save(tmp_path / "large.jpg", 8400, 6000), 50)
    assert photograph.view.image.shape == (3, 1024, 1434)
    assert shorter_fov_deg(photograph.view.camera) == pytest.approx(50)


def test_what_is_no_photograph(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(UserError, match="is not a whole image"):
        read_photograph(tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"dot\.png is 1x1 pixels; a photograph needs 8 or more a side"):
        read_photograph(save(tmp_path / "dot.png", 1, 1))
    with pytest.raises(UserError, match="cannot read the image"):
        read_photograph(tmp_path / "nothing.png")


def test_every_file_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/b.png", "y/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name)
    assert list(photograph_files([tmp_path])) == ["a", "b.png", "b.jpg"]
    assert photograph_files([tmp_path / "y", tmp_path / "x/a.png"]) == {
        "b": tmp_path / "y/b.jpg",
        "a": tmp_path / "x/a.png",
    }
    with pytest.raises(UserError, match="have the same name"):
        photograph_files([tmp_path / "x/a.png", tmp_path / "x/a.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        photograph_files([tmp_path / "empty"])
