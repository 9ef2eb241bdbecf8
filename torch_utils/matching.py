"""Points that two views have in common, and how far they lie off each other's epipolar lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch_utils.cameras import Camera, relative_pose
from torch_utils.epipolar import fundamental_matrix
from torch_utils.warping import same_place

_MAX_RATIO = 0.8  # Lowe 2004, section 7.1: distance of the best match to that of the second best
# From scikit-image's positions to pixels: it doubles the image about pixel centres, but halves the positions found in
# it about 0, so they come out 1/4 too large; and its pixel centres are whole numbers.
_SIFT_SHIFT = 0.5 - 0.25


@dataclass(frozen=True, eq=False)
class Keypoints:
    """SIFT points of an image: pixels (x, y), float64 [N, 2], centres at + 0.5; descriptors uint8 [N, 128]."""

    pixels: np.ndarray
    descriptors: np.ndarray


def sift(image: np.ndarray) -> Keypoints:
    """The SIFT points of a uint8 image [H, W, 3]; none where it has no texture."""
    from skimage.color import rgb2gray
    from skimage.feature import SIFT

    extractor: Any = SIFT()
    try:
        extractor.detect_and_extract(rgb2gray(image))
    except RuntimeError:  # scikit-image's word for "found none"
        return Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.uint8))
    return Keypoints(extractor.positions[:, ::-1] + _SIFT_SHIFT, extractor.descriptors)


def match(source: Keypoints, target: Keypoints) -> np.ndarray:
    """Mutually best matches that pass the ratio test: indices into source and target, [M, 2]."""
    from skimage.feature import match_descriptors

    if min(len(source.pixels), len(target.pixels)) < 2:
        return np.zeros((0, 2), int)
    return match_descriptors(source.descriptors, target.descriptors, cross_check=True, max_ratio=_MAX_RATIO)


def symmetric_epipolar_distance(
    source_px: np.ndarray, target_px: np.ndarray, source: Camera, target: Camera
) -> np.ndarray:
    """Return how far matched points [M, 2] of two views lie off each other's epipolar lines: pixels, float64 [M].

    The mean of the distance of the source point from the line of the target point and the other way round. Where the
    cameras are in one place there are no lines; the distance is then the one between each point and where the rotation
    takes its partner, the limit of the same idea.
    """
    from kornia.geometry import transform_points
    from kornia.geometry.epipolar import left_to_right_epipolar_distance, right_to_left_epipolar_distance

    pose = relative_pose(source, target)
    p_src, p_tgt = torch.from_numpy(source_px)[None], torch.from_numpy(target_px)[None]
    if same_place(source, target):
        homography = (source.intrinsics @ pose[:3, :3] @ torch.linalg.inv(target.intrinsics))[None]
        forward = (transform_points(homography, p_tgt) - p_src).norm(dim=-1)
        backward = (transform_points(torch.linalg.inv(homography), p_src) - p_tgt).norm(dim=-1)
    else:
        f = fundamental_matrix(pose, source.intrinsics, target.intrinsics)[None]
        forward = left_to_right_epipolar_distance(p_tgt, p_src, f)
        backward = right_to_left_epipolar_distance(p_tgt, p_src, f)
    return ((forward + backward) / 2)[0].numpy()


def triangulate(
    source_px: np.ndarray, target_px: np.ndarray, source: Camera, target: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Locate matched points [M, 2] of two views: z-depth in the source view, and parallax in degrees, float64 [M].

    The point is where the ray of the source comes nearest to that of the target. Depth is in the unit of the
    extrinsics, and not positive where rays part; it is the worse known the smaller the parallax.
    """
    (origin, ray), (other, ray_tgt) = (
        camera.rays(torch.from_numpy(points)) for camera, points in ((source, source_px), (target, target_px))
    )
    between = other - origin
    cosine = (ray * ray_tgt).sum(dim=1)
    along, along_tgt = (ray * between).sum(dim=1), (ray_tgt * between).sum(dim=1)
    distance = (along - cosine * along_tgt) / (1 - cosine**2).clamp_min(1e-15)
    depth = distance * (ray @ source.rotation[2])
    return depth.numpy(), torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).numpy()
