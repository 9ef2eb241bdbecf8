from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dnnlib import UserError
from metrics import compute_metrics
from metrics.image import as_uint8, psnr, ssim
from metrics.lpips import load_lpips
from tests.golden import tensors, vectors
from tests.metrics.scenes import noisy, photographs
from torch_utils.cameras import pixels_to_float

SHARED = Path(__file__).resolve().parents[3] / "shared"


def test_golden_psnr() -> None:
    numbers = psnr(tensors()["psnr/a"], tensors()["psnr/b"])
    np.testing.assert_allclose(numbers, vectors()["psnr"], rtol=1e-6)


@pytest.mark.parametrize("sigma", [3, 40])
def test_psnr_and_ssim_are_those_of_scikit_image(sigma: float) -> None:
    target = photographs()
    images = noisy(target, sigma)
    for number, structure, image, truth in zip(
        psnr(images, target), ssim(images, target), images.numpy(), target.numpy(), strict=True
    ):
        assert number == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255), abs=1e-9)
        expected = structural_similarity(
            truth,
            image,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=0,
        )
        assert structure == pytest.approx(expected, abs=1e-10)  # asked for: 1e-4


def test_equal_images() -> None:
    images = photographs()
    assert psnr(images, images).tolist() == [float("inf")] * 4
    np.testing.assert_allclose(ssim(images, images), 1, atol=1e-12)
    assert load_lpips()(images, images).tolist() == [0] * 4


def test_psnr_of_a_part() -> None:
    """Visible and disoccluded errors, weighted by their areas, make up the whole; an empty part has no number."""
    target = photographs()
    images = noisy(target, 20)
    where = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.3
    where[3] = True
    visible, hidden, whole = psnr(images, target, where), psnr(images, target, ~where), psnr(images, target)
    share = where.double().mean(dim=(1, 2, 3))
    mse = share * 10 ** (-visible / 10) + (1 - share) * 10 ** (-hidden.nan_to_num() / 10)
    np.testing.assert_allclose(mse[:3], 10 ** (-whole[:3] / 10), rtol=1e-12)
    assert torch.isnan(hidden[3])
    assert visible[3] == whole[3]


def test_too_small_images() -> None:
    images = torch.zeros(1, 3, 10, 10, dtype=torch.uint8)
    with pytest.raises(UserError, match="11 pixels"):
        ssim(images, images)
    with pytest.raises(UserError, match="32 pixels"):
        load_lpips()(images, images)


def test_every_form_of_images_is_the_same() -> None:
    images = photographs()
    last = images.permute(0, 2, 3, 1)
    for form in (images, images.numpy(), last, last.numpy(), pixels_to_float(images), pixels_to_float(last).numpy()):
        converted = as_uint8(form)
        assert converted.dtype == torch.uint8
        assert int((converted.int() - images.int()).abs().max()) <= (
            1 if form.dtype not in (torch.uint8, np.uint8) else 0
        )


def test_a_value_range_says_what_floats_mean() -> None:
    """PSNR of images in [0, 1], the field's usual range, as of the same 8-bit images."""
    target = photographs(32)
    images = noisy(target, 30)
    expected = compute_metrics(images, target, metrics=("psnr",))
    for low, high in ((0, 1), (-1, 1), (0, 255), (-0.5, 0.5)):
        floats = [of.float() / 255 * (high - low) + low for of in (images, target)]
        assert all(
            torch.equal(as_uint8(of, (low, high)), exact) for of, exact in zip(floats, (images, target), strict=True)
        )
        assert compute_metrics(*floats, metrics=("psnr",), value_range=(low, high)) == expected


@pytest.mark.parametrize(
    ("low", "high", "value_range", "message"),
    [
        (0, 1, None, r"from 0 to 1 or from -1 to 1: give value_range=\(0, 1\)"),
        (-1, 1, (0, 1), "do not fit the range 0 to 1"),
        (0, 255, (0, 1), "do not fit the range 0 to 1"),
        (0, 255, None, "do not fit the range -1 to 1"),
        (0, 1, (0, 255), "all but black"),
        (0, 1, (1, 0), "black and white"),
        (0, 1, (0, float("nan")), "black and white"),
        (0, 1, (0, float("inf")), "black and white"),
        (0, 1, "1-0", "black and white"),
        (0, 1, (0, 1, 2), "black and white"),
        (0, 1, 255, "black and white"),
    ],
)
def test_floats_that_do_not_fit_their_range(
    low: float, high: float, value_range: tuple[float, float] | None, message: str
) -> None:
    images = photographs(32).float() / 255 * (high - low) + low
    with pytest.raises(UserError, match=message):
        as_uint8(images, value_range)


def test_lists_and_single_images() -> None:
    target = photographs(32)
    images = noisy(target, 30)
    expected = compute_metrics(images, target, metrics=("psnr", "ssim"))
    arrays = [list(of.permute(0, 2, 3, 1).numpy()) for of in (images, target)]
    assert compute_metrics(*arrays, metrics=("psnr", "ssim")) == pytest.approx(expected)
    pillow = [[Image.fromarray(array) for array in of] for of in arrays]
    assert compute_metrics(*pillow, metrics=("psnr", "ssim")) == pytest.approx(expected)
    assert compute_metrics(list(images), [target[:3], target[3]], metrics=("psnr", "ssim")) == pytest.approx(expected)
    single = compute_metrics(images[0], arrays[1][0], metrics=("psnr",))["psnr"]
    assert single == pytest.approx(psnr(images[:1], target[:1]).item())


def test_arrays_from_other_libraries() -> None:
    """Views with the channels turned round, as of OpenCV; arrays that may not be written to; tensors with gradients."""
    target = photographs(32)
    images = noisy(target, 30)
    expected = compute_metrics(images, target, metrics=("psnr", "ssim"))
    turned = [of.permute(0, 2, 3, 1).flip(-1).numpy()[..., ::-1] for of in (images, target)]
    assert compute_metrics(*turned, metrics=("psnr", "ssim")) == pytest.approx(expected)
    locked = [of.numpy().copy() for of in (images, target)]
    for array in locked:
        array.flags.writeable = False
    assert compute_metrics(*locked, metrics=("psnr", "ssim")) == pytest.approx(expected)
    learned = [(of / 255).requires_grad_() for of in (images, target)]
    assert compute_metrics(*learned, metrics=("psnr", "ssim"), value_range=(0, 1)) == pytest.approx(expected)


def test_grey_images() -> None:
    """Of one channel, as three that are equal, in every form; of Pillow at 16 bits, too."""
    grey = photographs(32)[:, :1]
    expected = compute_metrics(grey.expand(-1, 3, -1, -1), photographs(32), metrics=("psnr", "ssim"))
    last = grey.permute(0, 2, 3, 1)
    pillow = [Image.fromarray(array) for array in grey[:, 0].numpy()]
    deep = [Image.fromarray(array.astype(np.uint16) * 257) for array in grey[:, 0].numpy()]
    flat = list(grey[:, 0].numpy())
    for form in (grey, grey.numpy(), last, last.numpy(), pillow, deep, list(grey), flat):
        assert compute_metrics(form, photographs(32), metrics=("psnr", "ssim")) == pytest.approx(expected)


def test_transparency_is_laid_over_white_as_in_files() -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    white = np.full((16, 16, 3), 255, np.uint8)
    assert np.isnan(compute_metrics(image, white, metrics=("psnr",))["psnr"])  # equal


def test_a_metric_may_stand_alone() -> None:
    images = photographs(32)
    assert compute_metrics(images, images.flip(0), metrics="psnr") == compute_metrics(
        images, images.flip(0), metrics=["psnr"]
    )


@pytest.mark.parametrize("nothing", [None, 3, Path("a.png"), "a.png", ["a.png"], {"a": 1}, np.array([[None]])])
def test_what_are_no_images(nothing: object) -> None:
    images = photographs(32)
    for arguments in ((nothing, images), (images, nothing)):
        with pytest.raises(UserError, match="images are"):
            compute_metrics(*arguments, metrics=("psnr",))


def test_ambiguous_shapes() -> None:
    images = torch.arange(2 * 3 * 5 * 3, dtype=torch.uint8).reshape(2, 3, 5, 3)
    assert as_uint8(images).shape == (2, 3, 5, 3)
    assert as_uint8(images.numpy()).shape == (2, 3, 3, 5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 3, 8, 8), float("nan")), "not finite"),
        (torch.full((1, 3, 8, 8), 200.0), "convert them to uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        (torch.zeros(3, 8, 8), r"\[3, 8, 8\]"),
        (np.zeros((1, 4, 8, 8), np.uint8), r"\[1, 4, 8, 8\]"),
        (torch.zeros(1, 3, 0, 8, dtype=torch.uint8), "no pixels"),
        (np.zeros((1, 8, 8, 3), complex), "complex"),
    ],
)
def test_images_that_are_none(images: torch.Tensor | np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_uint8(images)
