"""Pixel metrics: numbers for each image from 8-bit values, in float64 on the CPU, so that no device changes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from dnnlib import UserError

Images = torch.Tensor | np.ndarray

_OVERSHOOT = 0.2  # of the range, on each side: samples and resized images overshoot a little
_UNIT_RANGES = 2  # [0, 1] and [-1, 1] are no longer than this

_SSIM_WINDOW = 11  # Wang et al. 2004, section III.C


def as_uint8(images: Images, value_range: tuple[float, float] | None = None) -> torch.Tensor:
    """RGB images in any usual form as uint8 [N, 3, H, W] on the CPU.

    Args:
        images: uint8, or floating point (rounded, as samples are saved); tensor or array [N, 3, H, W] or [N, H, W, 3],
            or with one channel, which is grey. Where both fit, tensors are read as the first, arrays as the second.
        value_range: black and white of floating-point images, such as (0, 1), (-1, 1) or (0, 255). None is (-1, 1), the
            range of the networks, where negative numbers show that it is meant.
    Raises UserError for anything else: for numbers that are not finite or do not fit the range, and where it is
    not given and cannot be told.
    """
    tensor = _as_tensor(images)
    axes = (1, 3) if isinstance(images, torch.Tensor) else (3, 1)
    found = [axis for count in (3, 1) for axis in axes if tensor.ndim == 4 and tensor.shape[axis] == count]
    if not found:
        raise UserError(f"images are [N, 3, H, W] or [N, H, W, 3], or grey with 1 for 3, not {list(tensor.shape)}")
    tensor = tensor.movedim(found[0], 1)
    tensor = tensor.expand(-1, 3, -1, -1)
    if 0 in tensor.shape[2:]:
        raise UserError(f"images are of {image_size(tensor)}: they have no pixels")
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise UserError(f"images are uint8, or floating point with a value_range, not {tensor.dtype}")
    if not bool(torch.isfinite(tensor).all()):
        raise UserError("images have numbers that are not finite")
    if not tensor.numel():
        return tensor.to(torch.uint8)
    low, high = _value_range(tensor, value_range)
    return ((tensor.double() - low) * (255 / (high - low)) + 0.5).clip(0, 255).to(torch.uint8)


def _as_tensor(images: Images) -> torch.Tensor:
    if isinstance(images, torch.Tensor):
        return images.detach().cpu()
    try:
        return torch.from_numpy(np.array(images, order="C"))  # a copy: torch takes no negative strides
    except TypeError:
        raise UserError(f"images are arrays of numbers, not of type {np.asarray(images).dtype}") from None


def _value_range(images: torch.Tensor, value_range: tuple[float, float] | None) -> tuple[float, float]:
    """Black and white of floating-point images. Raises UserError where they do not fit, or cannot be told."""
    darkest, brightest = float(images.min()), float(images.max())
    try:
        low, high = map(float, (-1, 1) if value_range is None else value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(f"value_range is black and white, such as (0, 1), not {value_range}")
    if min(darkest - low, high - brightest) < -_OVERSHOOT * (high - low):
        raise UserError(
            f"floating-point images from {darkest:g} to {brightest:g} do not fit the range {low:g} to {high:g}: "
            "give their value_range, or convert them to uint8"
        )
    if value_range is None and darkest >= 0:
        raise UserError(
            f"floating-point images from {darkest:g} to {brightest:g} may be meant from 0 to 1 or from -1 to 1: "
            "give value_range=(0, 1) or value_range=(-1, 1)"
        )
    steps = darkest >= 0 and brightest <= 1 and high - low > _UNIT_RANGES
    if steps and not bool((images == images.round()).all()):
        raise UserError(
            f"floating-point images from {darkest:g} to {brightest:g} are all but black in the range {low:g} to "
            f"{high:g}: give value_range=(0, 1) if they are meant so"
        )
    return low, high


def psnr(images: torch.Tensor, target: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB: float64 [N]; infinite for equal images.

    Args: uint8 [N, 3, H, W] both; `where`, bool [N, 1, H, W], the pixels that count. NaN where an image has none.
    """
    error = (images.double() - target.double()).square().mean(dim=1, keepdim=True)
    weight = torch.ones_like(error) if where is None else where.to(error)
    mse = (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / mse)


def finite_mean(values: Sequence[float]) -> float | None:
    """The mean of those that are finite, as the PSNR of equal images is not; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def ssim(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, mean over channels and over places of the whole window: float64 [N].

    Wang et al. 2004: Gaussian window of 11 pixels with sigma 1.5, population covariances, data range 255.
    Args: uint8 [N, 3, H, W] both. Raises UserError where an image is smaller than the window.
    """
    from kornia.metrics import ssim as ssim_map

    if min(images.shape[-2:]) < _SSIM_WINDOW:
        raise UserError(f"SSIM needs images of {_SSIM_WINDOW} pixels a side or more, not {list(images.shape[-2:])}")
    found = ssim_map(images.double(), target.double(), _SSIM_WINDOW, max_val=255.0, eps=0.0, padding="valid")
    return found.mean(dim=(1, 2, 3))


def image_size(images: torch.Tensor) -> str:
    """``256x256``: width x height of [..., H, W]."""
    return "{1}x{0}".format(*images.shape[-2:])
