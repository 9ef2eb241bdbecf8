"""Synthetic scenes: exact depth and pose, plausible motion, all ranges."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from datasets.synthetic import Scene, Synthetic, SyntheticClips, random_walk, render
from torch_utils.batches import Pair, collate
from torch_utils.cameras import Camera, check_rotation, pixel_centers, relative_pose


def reprojection(pair: Pair) -> tuple[float, float, float]:
    """Source moved by the target's depth: mean error of 255 where visible, the same unmoved, and the share visible."""
    source, target, side = pair.source, pair.target, pair.source.camera.width
    points = target.camera.unproject(pixel_centers(side, side), target.depth.flatten())
    pixels, depth = source.camera.project(points)
    grid = (pixels / side * 2 - 1).float().reshape(1, side, side, 2)
    moved = F.grid_sample(source.image[None].float(), grid, align_corners=False)[0]
    stored = F.grid_sample(source.depth[None, None], grid, mode="nearest", align_corners=False).flatten()
    visible = (depth > 0) & ((stored - depth).abs() < 0.03 * depth)  # as far as the source sees there
    visible = visible.reshape(side, side)

    def error(image: torch.Tensor) -> float:
        return float((image - target.image).abs().mean(dim=0)[visible].mean())

    return error(moved), error(source.image.float()), float(visible.float().mean())


def test_depth_and_pose_reproject() -> None:
    """2.6 of 255 at 64 pixels and 0.6 at 256, where textures are coarse against pixels; 34 unmoved."""
    for resolution, limit in ((64, 4.0), (256, 1.0)):
        data = Synthetic(range_selection="mid", resolution=resolution)
        moved, unmoved, visible = torch.tensor([reprojection(data[k]) for k in range(8)]).mean(dim=0).tolist()
        assert moved < limit
        assert unmoved > 20
        assert visible > 0.5


def test_a_box_by_hand() -> None:
    """From the origin, a box whose front is 2 away, in a room whose wall is 4 away."""
    scene = Scene(
        centers=torch.tensor([[0.0, 0, 0], [0, 0, 2.5]]),
        halves=torch.tensor([[4.0, 4, 4], [0.5, 0.5, 0.5]]),
        turns=torch.eye(3).expand(2, 3, 3),
        colors=torch.tensor([100.0, 200.0])[:, None, None, None].expand(2, 3, 2, 3),
        waves=torch.zeros(2, 3, 4, 3),
    )
    view = render(scene, Camera.from_fov(90, 64, 64))
    assert view.depth[32, 32] == pytest.approx(2)
    assert view.depth[32, 0] == pytest.approx(4)  # z-depth of the wall, not the length of the ray
    assert view.image[:, 32, 32].tolist() == [200] * 3
    assert view.image[:, 0, 0].tolist() == [100] * 3
    assert int((view.depth < 3).sum()) == 16 * 16  # 1 wide at 2 away: a quarter of 4


def test_pairs_carry_depth_and_are_functions_of_k() -> None:
    one, other = (Synthetic(resolution=16, range_selection="3-8") for _ in range(2))
    for k in (0, 5, 5000):
        assert torch.equal(one[k].target.image, other[k].target.image)
        assert torch.equal(one[k].source.depth, other[k].source.depth)
        assert 3 <= one[k].gap < 8
    assert collate([one[0], one[1]]).depth.shape == (2, 1, 16, 16)
    assert not torch.equal(one[0].source.image, Synthetic("test", "3-8", 16)[0].source.image)


def test_motion_is_like_that_of_real_clips() -> None:
    """Over any two frames of a clip: translations around 0.1 to 1, rotations up to 30 degrees or little more."""
    data, clips = Synthetic(resolution=8), SyntheticClips("train", 1000)
    moves, turns = [], []
    for chosen in map(data.choose, range(200)):
        rows = clips.open(clips.names.index(chosen.clip)).cameras[[chosen.source, chosen.target]]
        pose = relative_pose(*(Camera.from_normalized(row, 8, 8) for row in rows))
        moves.append(float(pose[:3, 3].norm()))
        turns.append(math.degrees(math.acos(min(1.0, float(pose[:3, :3].trace() - 1) / 2))))
    assert 0.1 < torch.tensor(moves).median() < 1
    assert max(moves) < 2
    assert 3 < torch.tensor(turns).median() < 20
    assert max(turns) < 35


def test_walks_are_smooth() -> None:
    walk = random_walk(64, torch.Generator().manual_seed(0))
    check_rotation(walk[..., :3])
    second_difference = walk[2:] - 2 * walk[1:-1] + walk[:-2]
    assert second_difference.abs().max() < 0.01


def test_views_of_any_shape() -> None:
    view = SyntheticClips("train", 1, width=40, height=24).open(0).view(5)
    assert view.image.shape == (3, 24, 40)
    assert view.camera.intrinsics[0, 0] == pytest.approx(float(view.camera.intrinsics[1, 1]))


class Stripes:
    """Photographs of one colour for each column of pixels, another for each number."""

    def __len__(self) -> int:
        return 3

    def photograph(self, number: int) -> torch.Tensor:
        column = torch.arange(512) // 4
        return torch.stack([column, 127 - column, torch.full((512,), 80 * number)])[:, None].expand(3, 512, 512).byte()


def test_papered_rooms_reproject() -> None:
    """Depth and pose are as exact as without paper."""
    rooms = Synthetic(range_selection="mid", resolution=64, photographs=Stripes())
    moved, unmoved, visible = torch.tensor([reprojection(rooms[k]) for k in range(4)]).mean(dim=0).tolist()
    assert moved < 4
    assert unmoved > 2 * moved
    assert visible > 0.5
    plain = Synthetic(range_selection="mid", resolution=64)
    assert torch.equal(rooms[0].source.depth, plain[0].source.depth)
    assert not torch.equal(rooms[0].source.image, plain[0].source.image)
    assert torch.equal(rooms[0].source.image, Synthetic(range_selection="mid", photographs=Stripes())[0].source.image)


def test_paper_by_hand() -> None:
    """A wall 4 away, covered by a picture of two pixels a side, 4 units wide, that is mirrored beyond."""
    picture = torch.tensor([[[10.0] * 3, [50.0] * 3], [[90.0] * 3, [130.0] * 3]])  # [row, column, colour]
    scene = Scene(
        centers=torch.zeros(1, 3),
        halves=torch.full((1, 3), 4.0),
        turns=torch.eye(3)[None],
        colors=torch.zeros(1, 3, 2, 3),
        waves=torch.zeros(1, 3, 4, 3),
        papers=picture.expand(1, 3, 2, 2, 3),
        paper_sides=torch.full((1, 3), 4.0),
    )
    directions = torch.tensor([[x, y, 4.0] for x, y in ((1, 1), (3, 1), (1, 3), (5, 1), (2, 2), (-1, 1), (-3, 1))])
    _, colors = scene.cast(torch.zeros(3), directions[:3])
    assert colors[:, 0].tolist() == pytest.approx([10, 50, 90])
    _, colors = scene.cast(torch.zeros(3), directions[4:])
    assert colors[:, 0].tolist() == pytest.approx([70, 10, 50])
