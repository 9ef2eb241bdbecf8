"""The lens of a photograph, in every way that cameras write it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from datasets.user_image import DEFAULT_FOV_DEG, read_photograph, shorter_fov_deg
from tests.datasets.pictures import save


@pytest.mark.parametrize("orientation", [1, 6])
def test_focal_length_from_exif(orientation: int, tmp_path: Path) -> None:
    """A 3:2 picture is the film's own shape, so that the focal length relates to its height, 24 mm."""
    photograph = read_photograph(save(tmp_path / "a.jpg", orientation=orientation, film_mm=35))
    assert photograph.fov_from == "EXIF"
    assert photograph.fov_deg == pytest.approx(math.degrees(2 * math.atan(12 / 35)))
    assert shorter_fov_deg(photograph.view.camera) == pytest.approx(photograph.fov_deg)
    assert photograph.view.camera.focal_and_center[:2].tolist() == pytest.approx([60 / 24 * 35] * 2)


@pytest.mark.parametrize(
    ("tags", "focal_px"),
    [
        ({"film_mm": 35, "mm": 5}, 35 * math.hypot(90, 60) / math.hypot(36, 24)),
        ({"mm": 50, "density": 90 / 36, "unit": 4}, 50 * 90 / 36),  # of a sensor 36 mm wide, in pixels a mm
        ({"mm": 50, "density": 25.4 * 90 / 36}, 50 * 90 / 36),  # an inch, unless it says otherwise
        ({"mm": 50, "density": 10 * 900 / 36, "unit": 3, "stored": 900}, 50 * 90 / 36),  # made smaller since
        ({"mm": 50, "make": "NIKON CORPORATION", "model": "NIKON D90"}, 1.53 * 50 * 90 / 36),
        ({"mm": 50, "make": "Canon", "model": "Canon EOS 5D Mark III"}, 50 * 90 / 36),
        ({"mm": 25, "make": "OLYMPUS IMAGING CORP.", "model": "E-M5"}, 50 * 90 / 36),
        ({"mm": 50, "make": "Box", "model": "Brownie"}, None),
        ({"mm": 0, "density": 9, "make": "Canon", "model": "Canon EOS 5D"}, None),
        ({"density": 9}, None),
    ],
)
def test_the_lens_in_every_way_that_cameras_write_it(tags: dict, focal_px: float | None, tmp_path: Path) -> None:
    photograph = read_photograph(save(tmp_path / "a.jpg", **tags))
    assert photograph.fov_from == ("default" if focal_px is None else "EXIF")
    expected = DEFAULT_FOV_DEG if focal_px is None else math.degrees(2 * math.atan(30 / focal_px))
    assert photograph.fov_deg == pytest.approx(expected)
