"""Poses in the conventions that files have."""

from __future__ import annotations

import pytest
import torch

from datasets.camera_files.poses import OPENCV_C2W, OPENCV_W2C, OPENGL_C2W, OPENGL_W2C, Convention

ALL = (OPENCV_W2C, OPENCV_C2W, OPENGL_W2C, OPENGL_C2W)
# By hand: a camera at (1, 2, 3) that looks along +x, its y along -z.
W2C = [[0, 1, 0, -2], [0, 0, -1, 3], [-1, 0, 0, 1]]
C2W = [[0, 0, -1, 1], [1, 0, 0, 2], [0, -1, 0, 3]]
GL_W2C = [[0, 1, 0, -2], [0, 0, 1, -3], [1, 0, 0, -1]]  # y and z of the camera the other way
GL_C2W = [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3]]


@pytest.mark.parametrize(("convention", "stored"), list(zip(ALL, (W2C, C2W, GL_W2C, GL_C2W), strict=True)))
def test_a_pose_by_hand(convention: Convention, stored: list) -> None:
    matrix = torch.tensor(stored, dtype=torch.float64)
    expected = torch.tensor(W2C, dtype=torch.float64)
    torch.testing.assert_close(convention.to_extrinsics(matrix), expected, rtol=0, atol=1e-15)
    back = convention.from_extrinsics(expected)
    torch.testing.assert_close(back[:3], matrix, rtol=0, atol=1e-15)
    assert back[3].tolist() == [0, 0, 0, 1]
    assert "-0" not in str(back.tolist())


@pytest.mark.parametrize("convention", ALL)
def test_what_is_written_is_read(convention: Convention) -> None:
    """In batches, too; exact to rounding also where a rotation is not quite one."""
    poses = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = convention.to_extrinsics(convention.from_extrinsics(poses))
    torch.testing.assert_close(found, poses, rtol=1e-9, atol=1e-9)
