"""Matched points to places in space."""

from __future__ import annotations

import pytest
import torch

from torch_utils.cameras import Camera
from torch_utils.matching import triangulate
from torch_utils.warping import euler_rotation


def camera(*, turn: float = 0.0, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Camera:
    rotation = euler_rotation(3, turn, -2)
    pose = torch.cat([rotation, -(rotation @ torch.tensor(center, dtype=torch.float64))[:, None]], dim=1)
    return Camera.from_fov(60, 128, 96, pose)


def test_points_come_back_from_their_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=generator, dtype=torch.float64) + torch.tensor([0, 0, 4])
    source, target = camera(), camera(turn=8, center=(1.0, 0.2, -0.5))
    (seen, depth), (seen_tgt, _) = source.project(points), target.project(points)
    found, parallax = triangulate(seen.numpy(), seen_tgt.numpy(), source, target)
    assert found == pytest.approx(depth.numpy(), rel=1e-9)
    a, b = points - source.center, points - target.center
    angle = torch.rad2deg(torch.arccos((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))))
    assert parallax == pytest.approx(angle.numpy(), rel=1e-6)


def test_rays_that_part_meet_behind_the_camera() -> None:
    source, target = camera(), camera(center=(1.0, 0.0, 0.0))
    ahead = torch.tensor([[64.0, 48.0]], dtype=torch.float64)
    aside = ahead + torch.tensor([[20.0, 0.0]])
    depth, _ = triangulate(ahead.numpy(), aside.numpy(), source, target)
    assert depth[0] < 0


def test_parallel_rays_have_no_parallax() -> None:
    pixels = torch.tensor([[64.0, 48.0]], dtype=torch.float64).numpy()
    _, parallax = triangulate(pixels, pixels, camera(), camera(center=(0.3, 0.0, 0.0)))
    assert parallax[0] == pytest.approx(0, abs=1e-5)
