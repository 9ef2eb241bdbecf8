"""Which convention are the poses of a clip in? The frames themselves tell.

Points matched between two frames lie on each other's epipolar lines if the poses are read as they were meant, and
usually miss them by many pixels if not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange

from datasets.camera_files.poses import OPENCV_C2W, OPENCV_W2C, OPENGL_C2W, OPENGL_W2C
from datasets.clips import Clip, Positions
from torch_utils.cameras import Camera, View
from torch_utils.matching import Keypoints, match, sift, symmetric_epipolar_distance

OPENCV_TO_CAMERA = "world-to-camera, OpenCV axes"
OPENGL_TO_WORLD = "camera-to-world, OpenGL axes"
_STORED = {  # what the matrices are
    OPENCV_TO_CAMERA: OPENCV_W2C,
    "camera-to-world, OpenCV axes": OPENCV_C2W,
    "world-to-camera, OpenGL axes": OPENGL_W2C,
    OPENGL_TO_WORLD: OPENGL_C2W,
}
CONVENTIONS = tuple(_STORED)

_SIDE = 256  # pixels, of the squares on which distances are measured
_CANDIDATES = 12  # frames of a clip among which pairs are chosen
_TURNS_DEG = (3.0, 6.0, 10.0)  # wanted between the frames of a pair: enough to tell, and most is still in view
_STEP_DEG = 1.0  # of turn is given up to be one candidate nearer: what lies between was walked, out of view
_MIN_TURN_DEG = 1.0  # where nothing turns, poses and their inverses have the same epipolar lines
_MIN_MATCHES = 20
_GOOD_PX = 1.0  # poses that fit so well are not doubted
_BAD_PX = 4.0  # poses that fit no better do not belong to the frames
_CLEARLY = 0.5  # of the declared convention's distance, which another must stay below


class Fit(NamedTuple):
    """How well the poses of a clip fit its frames.

    Attributes:
        declared_px: median symmetric epipolar distance of the matches as the poses are declared, on 256 x 256.
        best: the convention that fits best, and best_px its distance.
    """

    declared_px: float
    best: str
    best_px: float

    @property
    def misread(self) -> bool:
        """Another convention fits clearly better than the declared one."""
        return self.declared_px > _GOOD_PX and self.best_px < _CLEARLY * self.declared_px

    @property
    def hopeless(self) -> bool:
        """No convention fits."""
        return self.best_px > _BAD_PX


def fit_of_poses(clip: Clip, declared: str = OPENCV_TO_CAMERA) -> Fit | None:
    """Try all conventions on up to three pairs of frames, about a second each.

    Args:
        clip: its cameras are world-to-camera in OpenCV axes, provided that the files are what they are declared to be.
        declared: the convention from which they were converted.

    Returns None where frames do not tell: no turn, too few matches. Raises UserError for a frame that cannot be read.
    """
    pairs = _choose_pairs(clip.cameras, clip.frames)
    views = {position: _small(clip.view(position)) for position in sorted({p for pair in pairs for p in pair})}
    points = {position: sift(rearrange(view.image, "c h w -> h w c").numpy()) for position, view in views.items()}
    matches = {pair: match(*(points[position] for position in pair)) for pair in pairs}
    if sum(map(len, matches.values())) < _MIN_MATCHES:
        return None
    distances = {
        convention: float(np.median(np.concatenate(_distances(views, points, matches, declared, convention))))
        for convention in CONVENTIONS
    }
    best = min(CONVENTIONS, key=lambda convention: (distances[convention], convention != declared))
    return Fit(distances[declared], best, distances[best])


def reread(extrinsics: torch.Tensor, declared: str, actual: str) -> torch.Tensor:
    """World-to-camera [..., 3, 4] in OpenCV axes, read from files as `declared`, as it is if they are `actual`."""
    return _STORED[actual].to_extrinsics(_STORED[declared].from_extrinsics(extrinsics))


def _choose_pairs(cameras: torch.Tensor, frames: Positions) -> list[tuple[int, int]]:
    """Pairs that turn by about the wanted angles and are near in time; none where the camera does not turn."""
    chosen = np.asarray(frames)[np.linspace(0, len(frames) - 1, min(_CANDIDATES, len(frames))).round().astype(int)]
    rotation = cameras[chosen][:, 6:].unflatten(1, (3, 4))[:, :, :3]
    trace = torch.einsum("iab,jab->ij", rotation, rotation)
    turn = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))).triu(1)
    if turn.numel() == 0 or float(turn.max()) < _MIN_TURN_DEG:
        return []
    turn = torch.where(turn >= _MIN_TURN_DEG, turn, torch.inf)
    index = torch.arange(len(chosen))
    steps = (index - index[:, None]).abs()
    nearest = {int(((turn - wanted).abs() + _STEP_DEG * steps).argmin()) for wanted in _TURNS_DEG}
    return [(int(chosen[i]), int(chosen[j])) for i, j in (divmod(flat, len(chosen)) for flat in sorted(nearest))]


def _small(view: View) -> View:
    """A square of at most 256 pixels."""
    return view.square(min(_SIDE, view.camera.width, view.camera.height))


def _distances(
    views: dict[int, View],
    points: dict[int, Keypoints],
    matches: dict[tuple[int, int], np.ndarray],
    declared: str,
    convention: str,
) -> list[np.ndarray]:
    """Return for each pair the distances of its matches if the poses are in a convention, in pixels of 256 x 256."""

    def camera(position: int) -> Camera:
        original = views[position].camera
        return replace(original, extrinsics=reread(original.extrinsics, declared, convention))

    return [
        symmetric_epipolar_distance(points[i].pixels[found[:, 0]], points[j].pixels[found[:, 1]], camera(i), camera(j))
        * (_SIDE / views[i].camera.width)
        for (i, j), found in matches.items()
        if len(found)
    ]
