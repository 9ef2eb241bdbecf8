"""The frames tell in which convention the poses of a clip are."""

from __future__ import annotations

import pytest
import torch

from datasets.conventions import CONVENTIONS, OPENCV_TO_CAMERA, OPENGL_TO_WORLD, fit_of_poses, reread
from datasets.synthetic import SyntheticClips
from tests.datasets.layout_writers import Misread
from torch_utils.cameras import Camera, View
from torch_utils.warping import euler_rotation


@pytest.mark.parametrize(("declared", "actual"), [
    *((OPENCV_TO_CAMERA, convention) for convention in CONVENTIONS),
    (OPENGL_TO_WORLD, OPENGL_TO_WORLD), (OPENGL_TO_WORLD, "camera-to-world, OpenCV axes"),
])  # fmt: skip
def test_the_frames_tell_the_convention(walks: SyntheticClips, declared: str, actual: str) -> None:
    fit = fit_of_poses(Misread(walks, 1, actual, declared), declared)
    assert fit.best == actual
    assert fit.best_px < 0.6  # measured: 0.3
    assert fit.misread == (declared != actual)
    assert not fit.hopeless


def test_reading_a_matrix_anew() -> None:
    """By hand: a camera at (1, 2, 3) that looks along +x, its y along -z."""
    to_camera = torch.tensor([[0, 1, 0, -2], [0, 0, -1, 3], [-1, 0, 0, 1]], dtype=torch.float64)
    to_world = torch.tensor([[0, 0, -1, 1], [1, 0, 0, 2], [0, -1, 0, 3]], dtype=torch.float64)
    opengl = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3]], dtype=torch.float64)
    # What a reader that expects world-to-camera matrices hands on is the stored matrix itself.
    for stored, convention in ((to_world, "camera-to-world, OpenCV axes"), (opengl, OPENGL_TO_WORLD)):
        assert torch.allclose(reread(stored, OPENCV_TO_CAMERA, convention), to_camera)
        assert torch.allclose(reread(to_camera, convention, OPENCV_TO_CAMERA), stored)


def test_poses_of_other_frames_fit_in_no_convention(walks: SyntheticClips) -> None:
    """The cameras of one walk with the frames of another, and no verdict where nothing turns."""
    clip = Misread(walks, 0, OPENCV_TO_CAMERA)
    clip.cameras = Misread(walks, 1, OPENCV_TO_CAMERA).cameras.flip(0)
    assert fit_of_poses(clip).hopeless
    clip.cameras = clip.cameras[:1].expand(8, -1)
    assert fit_of_poses(clip) is None


def test_frames_that_are_far_apart_are_not_compared() -> None:
    """In a long walk that turns little, first and last frame turn most but show different places."""

    class Walk:
        frames = range(12)
        cameras = torch.zeros(12, 18, dtype=torch.float64)
        cameras[:, :4] = torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=torch.float64)
        cameras[:, 6:] = torch.stack(
            [torch.cat([euler_rotation(0.0, 0.9 * i, 0.0), torch.zeros(3, 1)], dim=1).flatten() for i in range(12)]
        )

        def __init__(self) -> None:
            self.seen: list[int] = []

        def view(self, position: int) -> View:
            self.seen.append(position)
            return View(torch.zeros(3, 8, 8, dtype=torch.uint8), Camera.from_normalized(self.cameras[position], 8, 8))

    walk = Walk()
    assert fit_of_poses(walk) is None  # nothing to match
    assert 1 <= max(walk.seen) - min(walk.seen) <= 3
