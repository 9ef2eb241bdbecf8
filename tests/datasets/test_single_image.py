"""Virtual views of photographs: exact poses, nothing from outside, any kind of file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.config import DataConfig, open_pairs
from datasets.single_image import RECIPES, Mixed, Recipe, SingleImages, virtual_view
from datasets.synthetic import Synthetic, SyntheticClips, write_chunks
from dnnlib.util import UserError
from torch_utils.batches import Pair
from torch_utils.cameras import pixel_centers
from torch_utils.warping import euler_rotation, rotation_homography, warp_homography


def smooth_picture(width: int, height: int) -> np.ndarray:
    """Waves of a few periods across the picture: uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width] / min(width, height)
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y - 5 * x), np.sin(6 * x * y + 2)], axis=-1)
    return (127.5 + 110 * waves).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number, size in enumerate([(700, 520), (520, 900), (512, 512)]):
        Image.fromarray(smooth_picture(*size)).save(tmp_path / f"{number}.png")
    return tmp_path


def psnr_by_pose(pair: Pair) -> float:
    """One view, moved by K_tgt R K_src^-1 of the cameras, against the other: dB where it is covered."""
    source, target = pair.source.camera, pair.target.camera
    homography = target.intrinsics @ target.rotation @ source.rotation.mT @ torch.linalg.inv(source.intrinsics)
    warped, inside = warp_homography(pair.source.image.double(), homography)
    assert inside.float().mean() > 0.4
    return float(10 * torch.log10(255**2 / (warped - pair.target.image)[:, inside].square().mean()))


@pytest.mark.parametrize("resolution", [64, 256])
def test_the_pose_of_a_pair_is_exact(photographs: Path, resolution: int) -> None:
    """55 dB on smooth pictures; rounding both views to 8 bits alone leaves 56, the inverse rotation would leave 15."""
    data = SingleImages(photographs, resolution)
    psnr = [psnr_by_pose(data[k]) for k in range(12)]
    assert min(psnr) > 53


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: str(recipe.crop))
def test_no_pixel_comes_from_outside_at_the_extremes(recipe: Recipe) -> None:
    white = torch.full((3, 512, 512), 255.0)
    for signs in itertools.product((-1, 0, 1), repeat=3):
        roll, yaw, pitch = (
            s * limit for s, limit in zip(signs, (recipe.roll_deg, *2 * [recipe.pitch_yaw_deg]), strict=True)
        )
        view = virtual_view(white, euler_rotation(roll, yaw, pitch), recipe.crop)  # raises where one would
        assert bool((view.image == 255).all())
        corners = pixel_centers(recipe.crop, recipe.crop)[[0, recipe.crop - 1, -recipe.crop, -1]]
        _, directions = view.camera.rays(corners)
        indices = directions[:, :2] / directions[:, 2:] * 0.6 * 512 + 256
        assert indices.min() >= 0
        assert indices.max() <= 511


def test_turning_too_far_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond the photograph"):
        virtual_view(torch.zeros(3, 512, 512), euler_rotation(3.5, 12, 12), 320)


def test_views_are_drawn_as_the_contract_says(photographs: Path) -> None:
    """Ranges are filled but not exceeded, recipes are equally likely, the two views do not depend on each other."""
    cameras = [
        (pair.source.camera, pair.target.camera) for pair in map(SingleImages(photographs, 8).__getitem__, range(300))
    ]
    crops = torch.tensor([[round(0.6 * 512 * 8 / float(c.intrinsics[0, 0])) for c in pair] for pair in cameras])
    assert set(crops.flatten().tolist()) == {320, 384}
    wide = (crops == 320).double()
    assert wide.mean() == pytest.approx(0.5, abs=0.06)
    assert (wide[:, 0] * wide[:, 1]).mean() == pytest.approx(0.25, abs=0.08)
    rotations = torch.stack([torch.stack([c.rotation for c in pair]) for pair in cameras])
    pitch = torch.rad2deg(torch.atan2(rotations[..., 2, 1], rotations[..., 2, 2]))
    yaw = torch.rad2deg(-torch.asin(rotations[..., 2, 0]))
    roll = torch.rad2deg(torch.atan2(rotations[..., 1, 0], rotations[..., 0, 0]))
    for angle, limits in ((pitch, (8.3, 5.5)), (yaw, (8.3, 5.5)), (roll, (3.5, 1e-9))):
        for crop, limit in zip((320, 384), limits, strict=True):
            largest = float(angle[crops == crop].abs().max())
            assert largest <= limit + 1e-9
            assert largest > 0.95 * limit or limit < 1e-6
        assert abs(float(torch.corrcoef(angle.T)[0, 1])) < 0.2
    assert all(bool((c.translation == 0).all()) for pair in cameras for c in pair)


def test_the_first_recipe_by_hand() -> None:
    """docs/method.md, section 7.5: f = 0.6 * 512 and the centre at index 256, so that a 320 crop starts at 96."""
    camera = virtual_view(torch.zeros(3, 512, 512), torch.eye(3, dtype=torch.float64), 320).camera
    assert camera.focal_and_center.tolist() == pytest.approx([307.2, 307.2, 160.5, 160.5])


def test_homography_of_the_published_convention() -> None:
    """A virtual view is the crop of the photograph warped by K R K^-1, the centre at pixel 256, and nothing else."""
    photograph = torch.from_numpy(smooth_picture(512, 512)).permute(2, 0, 1).float()
    matrix = torch.tensor([[307.2, 0, 256.5], [0, 307.2, 256.5], [0, 0, 1]], dtype=torch.float64)
    rotation = euler_rotation(2, 5, -6)
    whole, _ = warp_homography(photograph, rotation_homography(matrix, rotation))
    image = virtual_view(photograph, rotation, 320).image
    assert (image - whole[:, 96:416, 96:416]).abs().max() <= 0.51  # rounding


def test_all_kinds_of_files(tmp_path: Path) -> None:
    picture = Image.fromarray(smooth_picture(600, 530))
    picture.save(tmp_path / "plain.jpg", quality=95)
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.rotate(90, expand=True).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    picture.resize((40, 30)).save(tmp_path / "small.png")
    whole = (tmp_path / "plain.jpg").read_bytes()
    (tmp_path / "below").mkdir()
    (tmp_path / "below/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "no_image.png").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.txt").touch()

    data = SingleImages(tmp_path, 32)
    assert data.skipped == {"broken": 3}
    assert data.summary().startswith("7 photographs; skipped 3: 3 broken (such as ")
    views = {pair.clip: pair.source for pair in map(data.__getitem__, range(7))}
    assert set(views) == {"plain.jpg", "grey.png", "palette.png", "alpha.png", "turned.jpg", "deep.png", "small.png"}
    for k in range(7):
        assert psnr_by_pose(data[k]) > 25, data[k].clip  # the palette's dither costs most

    def mean(name: str) -> torch.Tensor:
        return views[name].image.float().mean(dim=(1, 2))

    assert torch.allclose(mean("deep.png"), mean("grey.png"), atol=25)


def test_no_photographs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        SingleImages(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no pictures"):
        SingleImages(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match="no photograph can be read: 1 broken"):
        SingleImages(tmp_path)


def assert_same(one: Pair, other: Pair) -> None:
    assert one.clip == other.clip
    assert torch.equal(one.source.image, other.source.image)
    assert torch.equal(one.target.image, other.target.image)
    assert torch.equal(one.target.camera.extrinsics, other.target.camera.extrinsics)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(photographs: Path, workers: int) -> None:
    data = Mixed(Synthetic(resolution=16), SingleImages(photographs, 16, seed=1), 0.5, seed=1)
    order = [5, 0, 7, 2, 3, 11]
    loader = DataLoader(data, sampler=order, batch_size=2, num_workers=workers, collate_fn=list)
    for k, pair in zip(order, (pair for batch in loader for pair in batch), strict=True):
        assert_same(pair, data[k])


def test_a_photograph_an_epoch_and_seeds(photographs: Path) -> None:
    data = SingleImages(photographs, 8)
    assert sorted(pair.clip for pair in data) == ["0.png", "1.png", "2.png"]
    assert not torch.equal(data[0].source.image, data[0].target.image)
    other = SingleImages(photographs, 8, seed=1)
    assert not torch.equal(data[0].source.camera.extrinsics, other[0].source.camera.extrinsics)


def test_the_share_of_photographs(photographs: Path) -> None:
    singles, clips = SingleImages(photographs, 8), Synthetic(resolution=8)
    mixed = Mixed(clips, singles, 0.25)
    assert len(mixed) == len(clips)
    single = [mixed[k].clip.endswith(".png") for k in range(300)]
    assert np.mean(single) == pytest.approx(0.25, abs=0.05)
    assert not any(Mixed(clips, singles, 0.0)[k].clip.endswith(".png") for k in range(10))
    assert "25% from 3 photographs" in mixed.summary()
    k = single.index(True)
    assert_same(mixed[k], singles[k])
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="share of single photographs"):
            Mixed(clips, singles, fraction)


def test_three_kinds_of_pairs_in_their_shares(photographs: Path, tmp_path: Path) -> None:
    write_chunks(tmp_path, "train", SyntheticClips("train", 3, frames=4, width=16, height=16))
    shares = {"single_image_mix": 0.5, "synthetic_mix": 0.4}
    pairs = open_pairs(DataConfig(str(tmp_path), "train", single_image_data=str(photographs), **shares), 16)
    drawn = [pairs[k] for k in range(60)]
    rooms = sum(pair.source.depth is not None for pair in drawn)
    singles = sum(pair.clip.endswith(".png") for pair in drawn)
    assert rooms == pytest.approx(24, abs=11)  # three standard deviations of 60 draws
    assert singles == pytest.approx(18, abs=10)  # half of what rooms leave
    assert "mixed with 40% from 1000 clips" in pairs.summary()
    with pytest.raises(UserError, match="synthetic_mix"):
        DataConfig(synthetic_mix=1.0)
