"""Photographs of all kinds: size, orientation, focal length."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.trajectories import Move
from datasets.user_image import DEFAULT_FOV_DEG, Photograph, photograph_files, read_photograph, shorter_fov_deg
from dnnlib import UserError
from tests.datasets.pictures import save
from torch_utils.cameras import Camera, View
from torch_utils.known_pixels import keep_known
from torch_utils.warping import turned_view


def test_orientation_is_applied_and_the_camera_fits(tmp_path: Path) -> None:
    view = read_photograph(save(tmp_path / "a.jpg", orientation=6)).view  # a quarter turn clockwise to be upright
    assert view.image.shape == (3, 90, 60)
    assert (view.camera.width, view.camera.height) == (60, 90)
    assert view.image[:, :25].float().mean() > 240  # what was left is now above
    assert view.image[:, 35:].float().mean() < 15


def test_who_tells_the_field_of_view(tmp_path: Path) -> None:
    file = save(tmp_path / "a.jpg", film_mm=28)
    assert (read_photograph(file, 40).fov_deg, read_photograph(file, 40).fov_from) == (40, "given")
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
    with pytest.raises(UserError, match=r"two of the photographs are called a\.png: "):
        photograph_files([tmp_path / "x/a.png", tmp_path / "x/a.png"])
    with pytest.raises(UserError, match="the name of a photograph is empty"):
        photograph_files([""])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.hidden.jpg").touch()
    with pytest.raises(UserError, match="holds no pictures"):
        photograph_files([tmp_path / "empty"])


def test_names_of_photographs_are_no_paths(tmp_path: Path) -> None:
    """`...png` has the stem `..`: its pictures went to the folder above."""
    for name in ("...png", "x/-rf.png", "x/C:a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / "plain.png").rename(tmp_path / name)
    names = list(photograph_files([tmp_path / "...png", tmp_path / "x/-rf.png", tmp_path / "x/C:a.png"]))
    assert names == ["__", "_rf", "C_a"]


def taken(crop: tuple[float, float] | None, fov_deg: float = 58) -> Photograph:
    """A smooth picture, all places of which differ."""
    y, x = torch.meshgrid(torch.arange(200), torch.arange(300), indexing="ij")
    waves = 127.5 + 127.5 * torch.sin(x / 300 * 9) * torch.cos(y / 200 * 7)
    image = torch.stack([x / 300 * 255, y / 200 * 255, waves]).to(torch.uint8)
    return Photograph("", View(image, Camera.from_fov(fov_deg, 300, 200)), fov_deg, "given").cropped(crop)


def test_a_crop_in_the_middle_is_the_square_that_is_taken_anyway_to_the_bit() -> None:
    plain, middle = taken(None), taken((0.5, 0.5))
    assert middle.source is middle.view
    assert middle.start is middle.view.camera
    assert torch.equal(middle.source.square(64).image, plain.source.square(64).image)
    assert torch.equal(middle.view.camera.extrinsics, plain.view.camera.extrinsics)
    for outline in (middle.outline, plain.outline):
        assert np.allclose(outline, [(50, 0), (250, 0), (250, 200), (50, 200)], atol=1e-9)


@pytest.mark.parametrize("crop", [(0.35, 0.5), (0.6, 0.45), (0.5, 0.6)])
def test_the_middle_of_a_cropped_square_is_the_photograph_there(crop: tuple[float, float]) -> None:
    photograph = taken(crop)
    start = photograph.start
    assert torch.equal(start.extrinsics, torch.eye(3, 4, dtype=torch.float64))
    (seen,), _ = photograph.view.camera.project(torch.tensor([[0, 0, 1.0]]))
    assert seen.tolist() == pytest.approx([crop[0] * 300, crop[1] * 200], abs=1e-9)
    middle = turned_view(photograph.source, start.resize(99))[0][:, 49, 49]
    x, y = round(crop[0] * 300), round(crop[1] * 200)
    there = photograph.view.image[:, y - 1 : y + 1, x - 1 : x + 1].float().mean(dim=(1, 2))
    assert (middle.float() - there).abs().max() <= 1.5


def test_what_the_whole_photograph_knows_is_the_same_out_of_a_cropped_square() -> None:
    """Known pixels are taken out of the photograph itself, in one step; here they are compared with two."""
    photograph = taken((0.35, 0.55))
    camera = Move(pan_deg=3, tilt_deg=-2).camera(photograph.start)
    once, known = turned_view(photograph.view, camera)
    twice, inside = turned_view(photograph.source, camera)
    assert inside.float().mean() > 0.8
    assert bool(known[inside].all())
    assert known.float().mean() > inside.float().mean(), "beyond the square the photograph knows more"
    assert (once.float() - twice.float()).abs()[:, inside].max() <= 3
    kept = keep_known(torch.zeros_like(once), photograph.view, camera)
    assert torch.equal(kept[:, camera.height // 2], once[:, camera.height // 2])


def test_a_cropped_photograph_through_another_lens_has_the_same_crop() -> None:
    one, other = taken((0.35, 0.5)).with_lens(40, "path"), taken((0.35, 0.5), 40)
    assert torch.equal(one.view.camera.extrinsics, other.view.camera.extrinsics)
    assert torch.equal(one.start.intrinsics, other.start.intrinsics)
    assert one.record()["crop"] == [0.35, 0.5]
