"""Protocols once more, from their papers, in numpy and scikit-image: nothing of the package is used here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from skimage.color import rgb2gray
from skimage.feature import SIFT, match_descriptors
from skimage.metrics import structural_similarity

Pair = tuple[str, int, int]  # clip, source, target


def bits(purpose: str, *key: int, count: int = 1) -> np.ndarray:
    return np.random.PCG64(np.random.SeedSequence((zlib.crc32(purpose.encode()), *key))).random_raw(count)


def drawn(
    clips: Mapping[str, Sequence[int]], forward: tuple[int, int], backward: tuple[int, int], count: int
) -> list[Pair]:
    """Pairs whose target is so many frames ahead, or behind, ends included; clips in turn, in a new order each time."""
    allowed = {
        clip: [
            (source, target)
            for source in frames
            for target in frames
            if forward[0] <= target - source <= forward[1] or backward[0] <= source - target <= backward[1]
        ]
        for clip, frames in clips.items()
    }
    names = [clip for clip in sorted(allowed) if allowed[clip]]
    pairs = []
    for k in range(count):
        epoch, place = divmod(k, len(names))
        clip = names[np.argsort(bits("epoch order", 0, epoch, count=len(names)), kind="stable")[place]]
        pairs.append((clip, *allowed[clip][int(bits("frames", 0, k)[0]) % len(allowed[clip])]))
    return pairs


def cut(image: np.ndarray, share: float) -> np.ndarray:
    """Without that share at each side, as Flash3D cuts it."""
    height, width = image.shape[:2]
    return image[
        math.ceil(share * height) : math.floor((1 - share) * height),
        math.ceil(share * width) : math.floor((1 - share) * width),
    ]


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((image.astype(float) - target) ** 2))


def ssim(image: np.ndarray, target: np.ndarray) -> float:
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return structural_similarity(image, target, channel_axis=2, **how)


def epipolar(image: np.ndarray, source: np.ndarray, row: np.ndarray, source_row: np.ndarray, border: float) -> float:
    """Median symmetric epipolar distance in pixels at 256 of uncut images and rows of a camera file; inf: < 10 matches.

    SIFT finds nothing, or points at pixel centres that are whole numbers, a quarter too far right and down.
    """
    side, found, matrices = image.shape[0], [], []
    for picture, camera in ((source, source_row), (image, row)):
        extractor = SIFT()
        try:
            extractor.detect_and_extract(rgb2gray(cut(picture, border)))
        except RuntimeError:
            return math.inf
        pixels = extractor.positions[:, ::-1] + 0.25 + math.ceil(border * side)
        found.append((np.c_[pixels, np.ones(len(pixels))], extractor.descriptors))
        fx, fy, cx, cy = camera[:4] * side
        matrices.append((np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), camera[6:].reshape(3, 4)))
    (points_src, words_src), (points, words) = found
    first, second = match_descriptors(words_src, words, cross_check=True, max_ratio=0.8).T
    if len(first) < 10:
        return math.inf
    (k_src, e_src), (k_tgt, e_tgt) = matrices
    rotation = e_tgt[:, :3] @ e_src[:, :3].T
    x, y, z = e_tgt[:, 3] - rotation @ e_src[:, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    fundamental = np.linalg.inv(k_tgt).T @ essential @ np.linalg.inv(k_src)
    lines, lines_src = points_src[first] @ fundamental.T, points[second] @ fundamental
    along = np.abs((points[second] * lines).sum(1))
    distance = (along / np.hypot(*lines[:, :2].T) + along / np.hypot(*lines_src[:, :2].T)) / 2
    return float(np.median(distance)) * 256 / cut(image, border).shape[1]
