"""How paths, named and from files, are placed before a photograph."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.camera_files.nerfstudio import exact_path
from datasets.path_plans import plan_path, resample
from datasets.synthetic import SyntheticClips, random_scene, render
from datasets.trajectories import PATHS, Move, named_path
from datasets.trajectory_files import write_trajectory
from datasets.user_image import Photograph, read_photograph
from dnnlib import UserError
from torch_utils.cameras import Camera, View, homogeneous, intrinsics_matrix
from torch_utils.geometry_vector import geometry_vector

CAMERA = Camera.from_fov(60, 120, 80)


def test_a_unit_of_named_paths_is_worth_what_the_network_has_learned() -> None:
    photograph = Photograph("", View(torch.zeros(3, 80, 120, dtype=torch.uint8), CAMERA), 60, "given")
    for depth, path, distance in ((7.0, "dolly", 2), (None, "dolly", 1), (7.0, "truck", 1.5)):
        _, cameras, _ = plan_path(photograph, path, 3, typical_depth=depth)
        assert float(cameras[-1].center.norm()) == pytest.approx(distance)


@pytest.mark.parametrize(("known", "still"), [(1.0, True), (0.5, False)])
def test_the_pivot_of_an_orbit_keeps_still_in_pictures(known: float, still: bool) -> None:
    """A wall 4.5 away: where its middle has gone in renderings, if the typical depth is that, or half of it."""
    scene, camera = random_scene(torch.Generator().manual_seed(0)), Camera.from_fov(60, 128, 128)
    view = render(scene, camera)
    photograph = Photograph("", view, 60, "given")
    _, cameras, _ = plan_path(photograph, "orbit", 8, amount=8, typical_depth=known * float(view.depth[64, 64]))
    shifts = [shift_of_the_middle(view.image, render(scene, camera).image) for camera in cameras]
    assert (max(shifts) <= 1) == still, shifts


def shift_of_the_middle(first: torch.Tensor, second: torch.Tensor, half: int = 8, reach: int = 12) -> float:
    """How many pixels the central square of one picture has to be moved to fit the other best."""
    middle = first.shape[-1] // 2
    patch = first[:, middle - half : middle + half, middle - half : middle + half].float()
    around = second[:, middle - half - reach : middle + half + reach, middle - half - reach : middle + half + reach]
    places = around.float().unfold(1, 2 * half, 1).unfold(2, 2 * half, 1)  # [3, S, S, 2 half, 2 half]
    error = (places - patch[:, None, None]).square().sum(dim=(0, 3, 4))
    row, column = divmod(int(error.argmin()), error.shape[1])
    return math.hypot(row - reach, column - reach)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (96, 64), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_lens_of_a_path_file_serves_a_photograph_that_has_none(photo: Path, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    write_trajectory(file, named_path("pan", Camera.from_fov(40, 640, 360), 3))
    photograph, cameras, _ = plan_path(read_photograph(photo), str(file))
    assert (photograph.fov_deg, photograph.fov_from) == (pytest.approx(40), "path")
    assert float(cameras[0].intrinsics[0, 0]) == pytest.approx(32 / math.tan(math.radians(20)))
    photograph, _, _ = plan_path(read_photograph(photo, fov_deg=70), str(file))
    assert (photograph.fov_deg, photograph.fov_from) == (70, "given")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pan", 0), "0 frames"),
        (("pan", -3), "-3 frames"),
        (("pan", 10**9), "slip of the pen"),
        (("loop", 5), "no camera path 'loop'; known are orbit"),
        (("zoom", 5, -1.0), "must be positive"),
        (("pan", 5, math.nan), "must be a finite number"),
        (("pan", 5, 1.0, 0.0), "the scene scale is 0"),
        (("pan", 5, 1.0, math.inf), "the scene scale is inf"),
        (("dolly", 5, 1e300), r"the camera would go .* units away"),
    ],
)
def test_nonsense_is_refused_in_one_line(photo: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        plan_path(read_photograph(photo), *arguments)
    assert "\n" not in str(error.value)


def test_a_clip_along_its_own_path_is_the_data_sets_geometry(tree: Path, clips: SyntheticClips) -> None:
    """The first frame of a clip as the photograph: what the networks are told is what training would have told them."""
    name = clips.names[0]
    clip = clips.open(0)
    frame = sorted((tree / "test" / name).iterdir(), key=lambda file: int(file.stem))[0]
    photograph, cameras, _ = plan_path(read_photograph(frame), str(tree / "RealEstate10K" / "test" / f"{name}.txt"))
    assert photograph.fov_from == "path"
    for k, camera in enumerate(cameras):
        expected = geometry_vector(clip.view(0).camera, clip.view(k).camera, 32)
        torch.testing.assert_close(geometry_vector(photograph.view.camera, camera, 32), expected, rtol=0, atol=1e-5)


def write_off_centre(folder: Path, kind: str, center: tuple[float, float] = (60, 27)) -> tuple[Path, list[Camera]]:
    """A path of cameras of 120x80 pixels whose principal point is off the middle; and those cameras."""
    intrinsics = intrinsics_matrix(*torch.tensor([70.0, 70, *center], dtype=torch.float64))
    start = Camera(intrinsics, torch.eye(3, 4), 120, 80)
    cameras = [Move(pan_deg=5 * k, right=0.2 * k).camera(start) for k in range(3)]
    file = folder / {"nerfstudio": "transforms.json", "realestate10k": "clip.txt", "colmap": "colmap"}[kind]
    if kind == "colmap":
        file.mkdir()
    write_trajectory(file, cameras, kind)
    return file, cameras


@pytest.mark.parametrize("kind", ["nerfstudio", "realestate10k", "colmap"])
def test_the_square_is_taken_around_the_principal_point_of_a_paths_file(kind: str, tmp_path: Path, photo: Path) -> None:
    """The photograph being one of the file's frames, made smaller: every pixel is where the file's camera has it."""
    file, expected = write_off_centre(tmp_path, kind)
    photograph, cameras, notes = plan_path(read_photograph(photo), str(file))
    assert notes == ("the principal point is off the middle: the square is taken around it",)
    assert photograph.view.camera.square_box() == (26, 0, 43, 43)  # around (48, 21.6), of 96x64
    points = torch.tensor([[0.3, -0.2, 2], [-0.5, 0.4, 3]], dtype=torch.float64)
    for camera, other in zip([photograph.view.camera, *cameras], [expected[0], *expected], strict=True):
        assert torch.allclose(camera.project(points)[0], 0.8 * other.project(points)[0], atol=1e-5, rtol=0)
        square = camera.square(32)
        assert torch.allclose(square.intrinsics[:2, 2], torch.tensor([16.0, 16.0]).double(), atol=0.5, rtol=0)


def test_a_principal_point_that_is_left_out_is_said(tmp_path: Path, photo: Path) -> None:
    file, _ = write_off_centre(tmp_path, "nerfstudio")
    left_out = "the principal point is off the middle, which is left out: "
    photograph, _, notes = plan_path(read_photograph(photo, 50), str(file))
    assert photograph.view.camera.is_centered
    assert notes == (f"{left_out}the lens is told by `fov`",)
    Image.new("RGB", (64, 96)).save(photo)
    photograph, _, notes = plan_path(read_photograph(photo), str(file))
    assert photograph.view.camera.is_centered
    assert photograph.fov_from == "path"
    assert notes == (f"{left_out}the photograph has other proportions",)
    document = json.loads(file.read_text())
    for k, frame in enumerate(document["frames"]):
        frame["cx"], frame["cy"] = 60 + 8 * k, 40
    file.write_text(json.dumps(document))
    _, _, notes = plan_path(read_photograph(photo), str(file))
    assert notes == ("the principal point moves along the path, which is left out: views are centred on it",)


def test_a_principal_point_at_the_edge_is_refused(tmp_path: Path, photo: Path) -> None:
    file, _ = write_off_centre(tmp_path, "nerfstudio", (5, 40))
    with pytest.raises(UserError, match=r"transforms.json: the principal point \(4, 32\) .* less than half"):
        plan_path(read_photograph(photo), str(file))


def test_a_path_around_a_principal_point_is_given_back_to_the_bit(tmp_path: Path, photo: Path) -> None:
    file, _ = write_off_centre(tmp_path, "nerfstudio")
    photograph, cameras, _ = plan_path(read_photograph(photo), str(file))
    document = {"photograph": photograph.record(), "exact": exact_path(photograph.start, cameras)}
    write_trajectory(tmp_path / "trajectory.json", [camera.square(64) for camera in cameras], extra=document)
    again, recalled, _ = plan_path(read_photograph(photo), str(tmp_path / "trajectory.json"))
    for one, other in zip([again.view.camera, *recalled], [photograph.view.camera, *cameras], strict=True):
        assert torch.equal(one.intrinsics, other.intrinsics)
        assert torch.equal(one.extrinsics, other.extrinsics)


FILES = ("transforms.json", "clip.txt", "colmap", "poses.npy", "tum.txt", "camera_path.json")


def write_path(folder: Path, name: str) -> tuple[Path, dict]:
    """A path in a file of a format, and what has to be said of it."""
    cameras = named_path("spiral", Camera.from_fov(50, 61, 43), 4)
    target = folder / name
    kinds = {"transforms.json": "nerfstudio", "clip.txt": "realestate10k", "colmap": "colmap"}
    if name in kinds:
        target.mkdir() if name == "colmap" else None
        write_trajectory(target, cameras, kinds[name])
        return target, {}
    poses = np.stack([np.linalg.inv(homogeneous(camera.extrinsics).numpy()) for camera in cameras])
    if name == "poses.npy":
        np.save(target, poses)
        return target, {"convention": "opencv", "pose": "c2w"}
    if name == "tum.txt":
        rows = [[0, *pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()] for pose in poses]
        target.write_text("\n".join(" ".join(map(repr, map(float, row))) for row in rows))
        return target, {}
    frames = [{"camera_to_world": (pose @ np.diag([1, -1, -1, 1.0])).flatten().tolist(), "fov": 40} for pose in poses]
    target.write_text(json.dumps({"render_height": 43, "render_width": 61, "camera_path": frames}))
    return target, {}


@pytest.mark.parametrize("path", [*PATHS, *FILES])
@pytest.mark.parametrize(("fov_deg", "crop"), [(None, None), (37.3, None), (None, (0.4, 0.55)), (50, (0.5, 0.5))])
def test_a_path_that_is_given_back_is_the_same_to_the_bit(
    path: str, fov_deg: float | None, crop: tuple[float, float] | None, tmp_path: Path
) -> None:
    """Its trajectory.json tells square cameras as nerfstudio reads them, rounded, and beside them all digits."""
    Image.new("RGB", (61, 43)).save(tmp_path / "photo.png")
    how = {"scene_scale": 1.7, "frames": 3}
    if path in FILES:
        path, said = write_path(tmp_path, path)
        how |= said
    photograph, cameras, _ = plan_path(read_photograph(tmp_path / "photo.png", fov_deg, crop), str(path), **how)
    document = {"photograph": photograph.record(), "exact": exact_path(photograph.start, cameras)}
    write_trajectory(tmp_path / "trajectory.json", [camera.square(64) for camera in cameras], extra=document)
    again, recalled, _ = plan_path(read_photograph(tmp_path / "photo.png"), str(tmp_path / "trajectory.json"))
    assert torch.equal(again.view.camera.intrinsics, photograph.view.camera.intrinsics)
    assert torch.equal(again.source.image, photograph.source.image)
    for one, other in zip(recalled, cameras, strict=True):
        assert torch.equal(one.intrinsics, other.intrinsics)
        assert torch.equal(one.extrinsics, other.extrinsics)
    another = read_photograph(tmp_path / "photo.png", 80)  # is followed as any file is
    assert len(plan_path(another, str(tmp_path / "trajectory.json"))[1]) == 3


def test_frames_of_a_long_file_are_spaced_along_the_way() -> None:
    """Half of these cameras stand at the beginning; evenly spaced in the file, half of the frames would, too."""
    start = Camera.from_fov(58, 64, 48)
    path = [start] * 10 + [Move(forward=float(k)).camera(start) for k in (1, 2, 3, 8)]
    for frames in (5, 30):
        chosen = resample(path, frames)
        ahead = [float(camera.center[2]) for camera in chosen]
        assert ahead == pytest.approx(np.linspace(0, 8, frames).tolist())
    turn = [Move(pan_deg=float(k)).camera(start) for k in (0, 5, 30)]
    yaw = [math.degrees(math.atan2(*camera.rotation[2, [0, 2]].tolist())) for camera in resample(turn, 4)]
    assert yaw == pytest.approx([0, 10, 20, 30])
    zoom = [Move(zoom=float(k)).camera(start) for k in (1, 4)]
    assert resample(zoom, 3)[1].focal_and_center[0] == pytest.approx(2 * float(start.focal_and_center[0]))
    assert resample(path, None) == path
    assert len(resample([start], 3)) == len(resample([start] * 4, 3)) == 3
    with pytest.raises(UserError, match="shows nothing"):
        resample(path, 0)


def test_a_convention_said_of_a_named_path_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (61, 43)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="opengl is said of a file of plain matrices, but orbit is a named path"):
        plan_path(read_photograph(tmp_path / "photo.png"), "orbit", convention="opengl")


@pytest.mark.parametrize("damage", ["center", "focal length", "no number"])
def test_a_damaged_path_that_is_given_back_is_one_line(damage: str, photo: Path, tmp_path: Path) -> None:
    photograph = read_photograph(photo)
    lens, exact = photograph.record(), exact_path(photograph.start, [photograph.start] * 2)
    if damage == "center":
        lens["center"] = [math.inf, 32]
    else:
        exact["cameras"][1][0] = -1.0 if damage == "focal length" else math.nan
    (tmp_path / "trajectory.json").write_text(json.dumps({"photograph": lens, "exact": exact}))
    with pytest.raises(UserError, match=r"trajectory.json: damaged \("):
        plan_path(photograph, str(tmp_path / "trajectory.json"))
