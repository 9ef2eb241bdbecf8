"""Homographies, plane sweeps and warps by depth: golden vectors, kornia, rendered views, closed forms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from datasets.synthetic import Synthetic, SyntheticClip
from tests.golden import relative_error
from torch_utils.cameras import Camera, View, homogeneous, pixel_centers, relative_pose
from torch_utils.warping import (
    euler_rotation,
    rotation_homography,
    same_place,
    sweep_planes,
    turned_view,
    warp_depth,
    warp_homography,
)

DATA = Path(__file__).parents[1] / "data"
angles = st.floats(-60, 60)
SIDE = 24  # of the views that are swept


def intrinsics(focal: float, center: float) -> torch.Tensor:
    return torch.tensor([[focal, 0, center], [0, focal, center], [0, 0, 1]], dtype=torch.float64)


def test_golden_homography() -> None:
    golden = load_file(DATA / "vectors.safetensors")
    call = json.loads((DATA / "vectors.json").read_text())["homography"]
    rotation = euler_rotation(call["roll_deg"], call["yaw_deg"], call["pitch_deg"])
    homography = rotation_homography(intrinsics(call["fx"], call["cx"] + 0.5), rotation)
    warped, _ = warp_homography(golden["homography/image"], homography)
    center = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)  # of the published code: indices
    by_index = torch.linalg.inv(center) @ homography @ center
    for name, result in (("R", rotation), ("H", by_index), ("warped", warped)):
        assert relative_error(result, golden[f"homography/{name}"]) < 1e-5


def test_zero_outside_and_the_mask_says_where() -> None:
    homography = rotation_homography(intrinsics(30, 16), euler_rotation(5, 20, -10))
    warped, inside = warp_homography(torch.full((1, 32, 32), 7.0), homography)
    torch.testing.assert_close(warped[0][inside], torch.full_like(warped[0][inside], 7.0))
    assert 0.3 < inside.float().mean() < 0.9
    assert float((warped[0] == 0).float().mean()) > 0.1
    assert not (warped[0] == 0)[inside].any()


def test_what_lies_behind_is_not_seen() -> None:
    homography = rotation_homography(intrinsics(30, 16), euler_rotation(0, 180, 0))
    warped, inside = warp_homography(torch.rand(1, 32, 32), homography)
    assert not warped.any()
    assert not inside.any()


def test_a_box_is_a_crop_of_the_whole() -> None:
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    homography = rotation_homography(intrinsics(50, 24), euler_rotation(3, -4, 5))
    whole, inside = warp_homography(image, homography)
    part, part_inside = warp_homography(image, homography, (10, 4, 30, 20))
    torch.testing.assert_close(part, whole[:, 4:24, 10:40], rtol=0, atol=1e-6)
    assert torch.equal(part_inside, inside[4:24, 10:40])


def test_whole_pixel_shifts_are_exact() -> None:
    image = torch.rand(2, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([[1.0, 0, 2], [0, 1, 3], [0, 0, 1]])
    warped, inside = warp_homography(image, shift)
    torch.testing.assert_close(warped[:, 3:, 2:], image[:, :-3, :-2], rtol=0, atol=1e-12)
    assert int(inside.sum()) == 9 * 7


@settings(deadline=None, max_examples=25)
@given(angles, angles, angles)
def test_rotations(roll: float, yaw: float, pitch: float) -> None:
    rotation = euler_rotation(roll, yaw, pitch)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    composed = euler_rotation(roll, 0, 0) @ euler_rotation(0, yaw, 0) @ euler_rotation(0, 0, pitch)
    torch.testing.assert_close(rotation, composed, rtol=0, atol=1e-12)
    back = rotation_homography(intrinsics(40, 20), rotation) @ rotation_homography(intrinsics(40, 20), rotation.mT)
    torch.testing.assert_close(back, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_axes_are_those_of_the_cameras() -> None:
    """A quarter turn about y (down) takes z (forward) to x (right), and so on cyclically."""
    x, y, z = torch.eye(3, dtype=torch.float64)
    for rotation, one, other in (((0, 90, 0), z, x), ((90, 0, 0), x, y), ((0, 0, 90), y, z)):
        torch.testing.assert_close(euler_rotation(*rotation) @ one, other, rtol=0, atol=1e-12)


def test_many_angles_at_once() -> None:
    yaw = torch.tensor([10.0, -20.0])
    looped = torch.stack([euler_rotation(3, float(degrees), 5) for degrees in yaw])
    assert torch.equal(euler_rotation(3, yaw, 5), looped)


@settings(deadline=None, max_examples=25)
@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20), st.floats(0, 48), st.floats(0, 48))
def test_homography_is_the_projection_of_a_turned_camera(r: float, y: float, p: float, u: float, v: float) -> None:
    rotation = euler_rotation(r, y, p)
    turned = torch.cat([rotation, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    matrix, pixel = intrinsics(40, 24), torch.tensor([[u, v]], dtype=torch.float64)
    point = Camera(matrix, torch.eye(3, 4), 48, 48).unproject(pixel, torch.tensor([3.0]))
    expected, _ = Camera(matrix, turned, 48, 48).project(point)
    moved = rotation_homography(matrix, rotation) @ torch.tensor([u, v, 1.0], dtype=torch.float64)
    torch.testing.assert_close(moved[:2] / moved[2], expected[0], rtol=1e-9, atol=1e-9)


def test_agrees_with_kornia() -> None:
    kornia = pytest.importorskip("kornia.geometry.transform")
    image = torch.rand(3, 31, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    homography = rotation_homography(intrinsics(40, 22), euler_rotation(4, -7, 3))
    expected = kornia.warp_perspective(image[None], homography[None], (31, 45), align_corners=True)[0]
    center = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)  # kornia counts pixels by index
    warped, _ = warp_homography(image, center @ homography @ torch.linalg.inv(center))
    assert relative_error(warped, expected) < 1e-9


def smooth_image(side: int) -> torch.Tensor:
    """Long waves, 0 .. 255, [3, side, side]."""
    x, y = pixel_centers(side, side).float().T / side
    return torch.stack([(2 * x).sin(), (3 * y).cos(), (x + 2 * y).sin()]).mul(100).add(120).unflatten(1, (side, side))


def moved(camera: Camera, x: float = 0, y: float = 0, z: float = 0) -> Camera:
    """The camera, moved in its own axes."""
    shift = torch.tensor([[0, 0, 0, -x], [0, 0, 0, -y], [0, 0, 0, -z]])
    return replace(camera, extrinsics=camera.extrinsics + shift)


def test_a_view_warped_to_its_own_camera_is_itself() -> None:
    camera = Camera.from_fov(60, 24, 16)
    image = torch.rand(3, 16, 24)
    warped, visible = warp_depth(image, torch.rand(16, 24) + 0.5, camera, camera)
    assert bool(visible.all())
    torch.testing.assert_close(warped, image, rtol=0, atol=1e-5)


def test_a_plane_moves_by_focal_length_times_shift_over_depth() -> None:
    camera = Camera.from_fov(90, 32, 32)  # focal length 16
    image = torch.rand(3, 32, 32)
    warped, visible = warp_depth(image, torch.full((32, 32), 2.0), camera, moved(camera, x=0.5, y=-0.25))
    # 16 * 0.5 / 2 = 4 pixels to the left, 2 down
    torch.testing.assert_close(warped[:, 2:, :-4], image[:, :-2, 4:], rtol=0, atol=1e-5)
    assert bool(visible[2:, :-4].all())
    assert not visible[:2].any()
    assert not visible[:, -4:].any()
    assert not warped[:, ~visible].any()


def test_a_turn_is_its_homography() -> None:
    camera = Camera.from_fov(70, 64, 64)
    rotation = euler_rotation(4, 9, -6)
    turned = replace(camera, extrinsics=torch.cat([rotation, torch.zeros(3, 1)], dim=1))
    expected, inside = warp_homography(smooth_image(64), rotation_homography(camera.intrinsics, rotation))
    warped, visible = warp_depth(smooth_image(64), torch.full((64, 64), 3.0), camera, turned)
    both = inside & visible
    assert float(both.float().mean()) > 0.6
    assert float((warped - expected)[:, both].abs().max()) < 6  # of 255: squares of one colour against linear sampling
    assert float((inside & ~visible).float().mean()) < 0.01


def test_the_nearer_surface_hides_the_farther_and_uncovers_what_is_a_hole() -> None:
    camera = Camera.from_fov(90, 32, 32)
    depth, image = torch.full((32, 32), 4.0), torch.zeros(1, 32, 32)
    depth[:, 8:16], image[:, :, 8:16] = 1.0, 1.0
    warped, visible = warp_depth(image, depth, camera, moved(camera, x=-0.5))  # near: 8 to the right; far: 2
    assert bool((warped[0, :, 16:24] == 1).all())
    assert not warped[0, :, 24:].any()
    assert not visible[:, :2].any()
    assert not visible[:, 10:16].any()  # the near surface stood there: columns 8 and 9 show what was in 6 and 7
    assert bool(visible[:, 2:10].all())
    assert bool(visible[:, 16:].all())


@pytest.mark.parametrize("unknown", [0.0, -1.0, float("inf"), float("nan")])
def test_unknown_depth_leaves_a_hole(unknown: float) -> None:
    camera = Camera.from_fov(60, 8, 8)
    depth = torch.ones(8, 8)
    depth[3, 5] = unknown
    _, visible = warp_depth(torch.rand(3, 8, 8), depth, camera, camera)
    assert int((~visible).sum()) == 1
    assert not visible[3, 5]


def test_nothing_is_seen_behind_the_camera() -> None:
    camera = Camera.from_fov(60, 8, 8)
    warped, visible = warp_depth(torch.rand(3, 8, 8), torch.ones(8, 8), camera, moved(camera, z=5))
    assert not visible.any()
    assert not warped.any()


@settings(deadline=None, max_examples=20)
@given(angles, angles, st.floats(-2, 2), st.floats(-2, 2))
def test_what_is_seen_is_a_mean_of_what_was_there(yaw: float, pitch: float, x: float, z: float) -> None:
    camera = Camera.from_fov(60, 16, 16)
    turned = torch.cat([euler_rotation(0, yaw, pitch), torch.tensor([[x], [0], [z]], dtype=torch.float64)], dim=1)
    depth = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) * 3 + 0.1
    warped, visible = warp_depth(torch.full((1, 16, 16), 7.0), depth, camera, Camera.from_fov(60, 24, 20, turned))
    assert warped.shape == (1, 20, 24)
    torch.testing.assert_close(warped[0], torch.where(visible, 7.0, 0.0))


def seen_from(source: View, target: View) -> torch.Tensor:
    """Which pixels of the target the source shows, bool [H, W], by the depth of both."""
    side = target.camera.width
    position, z = source.camera.project(target.camera.unproject(pixel_centers(side, side), target.depth.flatten()))
    grid = (position / side * 2 - 1).unflatten(0, (side, side))[None]
    depth = F.grid_sample(source.depth[None, None].double(), grid, mode="nearest", align_corners=False)[0, 0]
    z = z.unflatten(0, (side, side))
    return (z > 0) & (grid[0].abs() <= 1).all(dim=-1) & ((depth - z).abs() < 0.05 * z)


def test_exact_depth_gives_the_true_view_where_it_is_seen() -> None:
    pairs = Synthetic("test", "mid", 64, seed=1)
    errors, copies, overlaps = [], [], []
    for pair in (pairs[k] for k in range(6)):
        source, target = pair.source.image.float(), pair.target.image.float()
        warped, visible = warp_depth(source, pair.source.depth, pair.source.camera, pair.target.camera)
        errors.append((warped - target)[:, visible].square().mean())
        copies.append((source - target)[:, visible].square().mean())
        truth = seen_from(pair.source, pair.target)
        overlaps.append((truth & visible).sum() / (truth | visible).sum())
    assert float(10 * torch.log10(255**2 / torch.stack(errors)).mean()) > 32  # dB; the source view itself: 17
    assert float(10 * torch.log10(255**2 / torch.stack(copies)).mean()) < 20
    assert float(torch.stack(overlaps).mean()) > 0.95


def smooth(camera: Camera) -> View:
    """A picture of what lies infinitely far: a smooth function of direction, so any camera's view is known."""
    _, directions = camera.rays(pixel_centers(camera.width, camera.height))
    x, y, z = directions.unbind(-1)
    colours = torch.stack([torch.sin(9 * x + 2), torch.cos(7 * y), torch.sin(5 * z * x + y)])
    return View((127 * colours + 128).round().to(torch.uint8).reshape(3, camera.height, camera.width), camera)


def turn(camera: Camera, rotation: torch.Tensor, zoom: float = 1.0) -> Camera:
    intrinsics = camera.intrinsics * torch.tensor([zoom, zoom, 1.0], dtype=torch.float64)[:, None]
    intrinsics[:2, 2] = camera.intrinsics[:2, 2]
    pose = torch.cat([rotation, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    return replace(camera, intrinsics=intrinsics, extrinsics=pose @ homogeneous(camera.extrinsics))


def test_exact_for_what_is_far() -> None:
    source = smooth(Camera.from_fov(60, 160, 120))
    start = replace(source.camera, extrinsics=torch.cat([euler_rotation(3, 40, 5), torch.ones(3, 1)], dim=1))
    source = smooth(start)
    for rotation, zoom in (
        (euler_rotation(7, -9, 4), 1.0),
        (euler_rotation(0, 0, 0), 1.6),
        (euler_rotation(-5, 6, 8), 0.8),
    ):
        camera = turn(start, rotation, zoom).crop_center()
        image, inside = turned_view(source, camera)
        error = (image.int() - smooth(camera).image.int()).abs()[:, inside]
        assert inside.float().mean() > 0.6
        assert error.max() <= 6  # bilinear interpolation of a curved function
        assert error.float().mean() < 0.6
        assert not image[:, ~inside].any()


def test_the_same_camera_sees_the_same() -> None:
    view = SyntheticClip("test-0", range(2), 64, 48).view(0)
    image, inside = turned_view(view, view.camera)
    assert inside.all()
    assert torch.equal(image, view.image)


def test_smaller_views_are_antialiased() -> None:
    stripes = (torch.arange(128) % 2 * 255).to(torch.uint8).expand(3, 128, 128)
    view = View(stripes, Camera.from_fov(60, 128, 128))
    image, _ = turned_view(view, view.camera.resize(32))
    assert (image.int() - 127).abs().max() <= 12  # the filter is cut off at the edge


def test_same_place() -> None:
    camera = Camera.from_fov(60, 10, 10, torch.cat([euler_rotation(1, 2, 3), torch.ones(3, 1)], dim=1))
    assert same_place(camera, turn(camera, euler_rotation(10, 20, 30), 2.0))
    assert not same_place(camera, replace(camera, extrinsics=camera.extrinsics + 1e-3))


def sweep_picture() -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.rand(1, 3, 4, 4) * 255
    return torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear")[0].round().to(torch.uint8)


def two_cameras(rotation: torch.Tensor, translation: list[float]) -> tuple[Camera, Camera]:
    extrinsics = torch.cat([rotation, torch.tensor(translation, dtype=torch.float64)[:, None]], dim=1)
    return Camera.from_fov(60, SIDE, SIDE), Camera.from_fov(50, SIDE, SIDE, extrinsics)


def sweep(view: View, target: Camera, inverse_depths: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    pose = relative_pose(view.camera, target)[None]
    image = view.image[None].to(torch.float64)
    pair = (pose, view.camera.intrinsics[None], target.intrinsics[None])
    planes, inside = sweep_planes(image, *pair, torch.tensor(inverse_depths))
    return planes[0].transpose(0, 1), inside[0]


def test_same_camera_gives_the_picture_back_at_every_depth() -> None:
    camera = Camera.from_fov(60, SIDE, SIDE)
    planes, inside = sweep(View(sweep_picture(), camera), camera, [0, 0.3, 2])
    assert inside.all()
    torch.testing.assert_close(planes, sweep_picture().to(planes).expand_as(planes), atol=1e-4, rtol=0)


@pytest.mark.parametrize("translation", [[0.0, 0, 0], [0.4, -0.2, 0.3]])
def test_infinite_depth_is_the_homography_of_a_turn(translation: list[float]) -> None:
    source, target = two_cameras(euler_rotation(3, 8, -5), translation)
    planes, inside = sweep(View(sweep_picture(), source), target, [0])
    turned = Camera(target.intrinsics, torch.cat([target.rotation, torch.zeros(3, 1)], dim=1), SIDE, SIDE)
    expected, seen = turned_view(View(sweep_picture(), source), turned)
    assert 0.5 < seen.double().mean() < 1
    assert (inside[0] | ~seen).all()
    torch.testing.assert_close(planes[0] * seen, (expected * seen).to(planes), atol=0.51, rtol=0)  # 8 bits


def test_the_plane_at_the_true_depth_is_the_view_from_there() -> None:
    source, target = two_cameras(euler_rotation(0, 0, 0), [0.3, 0.1, -0.2])
    depth_in_target = 2.0
    depth = torch.full((SIDE, SIDE), depth_in_target + 0.2, dtype=torch.float64)  # a plane parallel to both pictures
    planes, inside = sweep(View(sweep_picture(), source), target, [0, 1 / depth_in_target])
    expected, seen = warp_depth(sweep_picture().to(torch.float64), depth, source, target)
    both = inside[1] & seen
    error = ((planes - expected).abs() * both).mean(dim=(1, 2, 3))
    assert both.double().mean() > 0.4
    assert error[1] < 0.2 * error[0]


def test_what_lies_behind_the_source_camera_is_not_seen() -> None:
    source, target = two_cameras(euler_rotation(0, 180, 0), [0.0, 0, 0])
    _, inside = sweep(View(sweep_picture(), source), target, [0, 1])
    assert not inside.any()


def test_the_border_of_the_source_goes_on_where_it_has_no_pixel() -> None:
    source, target = two_cameras(euler_rotation(0, 0, 0), [5.0, 0, 0])  # all of the source lies far to one side
    planes, inside = sweep(View(sweep_picture(), source), target, [1])
    assert not inside.any()
    assert (planes.std(dim=-1) < 1e-6).all()  # one column, again and again
    assert planes.min() >= sweep_picture().min()
    assert planes.max() <= sweep_picture().max()


def test_a_plane_that_moves_by_three_pixels_leaves_three_columns_outside() -> None:
    image, side, focal = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), SIDE, 12.0
    k = intrinsics(focal, side / 2)[None]
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, 0, 3] = 3 / focal / 0.5
    planes, inside = sweep_planes(image, pose, k, k, torch.tensor([0.0, 0.5]))
    assert inside[0, 0].all()
    assert inside[0, 1].sum(dim=1).tolist() == [side - 3] * side
    assert not inside[0, 1, :, -3:].any()
    torch.testing.assert_close(planes[0, :, 1, :, :-3], image[0, :, :, 3:], rtol=0, atol=1e-4)


def test_a_homography_is_applied_where_the_image_is() -> None:
    """On the meta device, which refuses arithmetic with tensors of another and needs no GPU."""
    turned, inside = warp_homography(torch.empty(3, 8, 6, device="meta"), torch.eye(3))
    assert turned.device.type == inside.device.type == "meta"
    assert (turned.shape, turned.dtype, inside.dtype) == ((3, 8, 6), torch.float32, torch.bool)
