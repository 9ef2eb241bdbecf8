"""Path files: round trips between all formats, conventions by hand, and what is said of broken ones."""

from __future__ import annotations

import json
import math
from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.trajectories import Move, named_path
from datasets.trajectory_files import FORMATS, read_trajectory, write_trajectory
from dnnlib import UserError
from torch_utils.cameras import Camera

LIKE = Camera.from_fov(58, 640, 360)
# format -> (name, options of reading and writing)
FILES = {
    "realestate10k": ("path.txt", {}),
    "nerfstudio": ("transforms.json", {}),
    "colmap": (".", {}),
    "matrices": ("matrices.txt", {"convention": "opengl", "pose": "c2w"}),
}
DIGITS = 1e-8  # RealEstate10K writes nine; the other formats all


def assert_same_path(path: list[Camera], expected: list[Camera], lens: bool = True) -> None:
    assert len(path) == len(expected)
    for camera, other in zip(path, expected, strict=True):
        torch.testing.assert_close(camera.extrinsics, other.extrinsics, rtol=0, atol=DIGITS)
        if lens:
            assert (camera.width, camera.height) == (other.width, other.height)
            torch.testing.assert_close(camera.intrinsics, other.intrinsics, rtol=0, atol=DIGITS * other.width)


def through(path: list[Camera], kind: str, folder: Path) -> list[Camera]:
    name, convention = FILES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write_trajectory(folder / name, path, kind, **convention)
    return read_trajectory(folder / name, LIKE, **convention)


@pytest.mark.parametrize("formats", list(permutations(FORMATS, 2)), ids="-".join)
def test_round_trip_between_all_formats(formats: tuple[str, str], tmp_path: Path) -> None:
    path = named_path("spiral", LIKE, 5)
    again = path
    for kind in formats:
        again = through(again, kind, tmp_path / kind)
    assert_same_path(again, path)


moves = st.lists(
    st.builds(Move, *[st.floats(-179, 179)] * 3, *[st.floats(-50, 50)] * 3, st.floats(0.2, 5)), min_size=1, max_size=4
)


@pytest.mark.parametrize("kind", FORMATS)
@given(moves=moves)
@settings(max_examples=10, deadline=None)
def test_any_path_survives(kind: str, moves: list[Move]) -> None:
    path = [move.camera(LIKE) for move in moves]
    with TemporaryDirectory() as folder:
        assert_same_path(through(path, kind, Path(folder)), path, lens=kind != "matrices")


@pytest.mark.parametrize(("convention", "pose"), list(product(("opencv", "opengl"), ("w2c", "c2w"))))
@pytest.mark.parametrize("form", ["rows of 16", "rows of 12", "4x4", "3x4", "json", "npy", "commas"])
def test_plain_matrices_in_all_forms_and_conventions(convention: str, pose: str, form: str, tmp_path: Path) -> None:
    path = named_path("spiral", LIKE, 3)
    file = tmp_path / "poses.txt"
    write_trajectory(file, path, "matrices", convention=convention, pose=pose)
    matrices = np.loadtxt(file).reshape(-1, 4, 4)
    if form in ("json", "npy"):
        file = file.with_suffix(f".{form}")
        np.save(file, matrices) if form == "npy" else file.write_text(json.dumps(matrices.tolist()))
    elif form != "rows of 16":
        rows = {"rows of 12": matrices[:, :3].reshape(-1, 12), "3x4": matrices[:, :3].reshape(-1, 4)}
        lines = [
            (", " if form == "commas" else " ").join(map(repr, row))
            for row in rows.get(form, matrices.reshape(-1, 4)).tolist()
        ]
        file.write_text("# poses\n\n" + "\n".join(lines))
    assert_same_path(read_trajectory(file, LIKE, convention, pose), path)


def test_conventions_by_hand(tmp_path: Path) -> None:
    """A camera at (1, 2, 3), OpenCV axes, that looks along the world's x axis, with the world's y down."""
    rotation = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=torch.float64)  # its axes, as rows
    position = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    camera = Camera(LIKE.intrinsics, torch.cat([rotation, -(rotation @ position)[:, None]], dim=1), 640, 360)
    write_trajectory(tmp_path / "transforms.json", [camera])
    (frame,) = json.loads((tmp_path / "transforms.json").read_text())["frames"]
    matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    # nerfstudio: columns are the camera's right, up and backward in the world, then its position
    expected = torch.stack([rotation[0], -rotation[1], -rotation[2], position], dim=1)
    torch.testing.assert_close(matrix[:3], expected)
    write_trajectory(tmp_path, [camera], "colmap", ["a.png"])
    line = (tmp_path / "images.txt").read_text().splitlines()[1].split()
    half = math.sqrt(0.5)
    assert [float(x) for x in line[1:8]] == pytest.approx([half, 0, -half, 0, *camera.translation.tolist()])
    assert line[8:] == ["1", "a.png"]
    assert (tmp_path / "cameras.txt").read_text().splitlines()[1].split()[1:4] == ["PINHOLE", "640", "360"]


def test_blender_files_give_the_angle_of_the_width(tmp_path: Path) -> None:
    file = tmp_path / "transforms_train.json"
    frame = {"file_path": "./r_0", "rotation": 0.01, "transform_matrix": torch.eye(4).tolist()}
    file.write_text(json.dumps({"camera_angle_x": math.radians(90), "frames": [frame]}))
    (camera,) = read_trajectory(file, Camera.from_fov(50, 800, 800))
    assert camera.focal_and_center.tolist() == pytest.approx([400, 400, 400, 400])


def test_colmap_is_sorted_by_name_and_knows_models_of_one_focal_length(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text(
        "# lenses\n3 SIMPLE_RADIAL 640 480 500 320 240 0.01\n7 OPENCV 320 240 200 210 160 120 0 0 0 0\n"
    )
    (tmp_path / "images.txt").write_text("# images\n1 1 0 0 0 0 0 9 3 b 2.png\n10 20 -1\n2 1 0 0 0 0 0 5 7 a.png\n\n")
    first, second = read_trajectory(tmp_path, LIKE)
    assert first.focal_and_center.tolist() == [200, 210, 160, 120]
    assert second.focal_and_center.tolist() == [500, 500, 320, 240]
    assert [float(c.translation[2]) for c in (first, second)] == [5, 9]
    assert (second.width, second.height) == (640, 480)
    for name in ("images.txt", "cameras.txt"):
        assert len(read_trajectory(tmp_path / name, LIKE)) == 2


def test_a_realestate10k_file_tells_the_shape_of_its_frames(tmp_path: Path) -> None:
    (tmp_path / "clip.txt").write_text("url\n0 0.5 0.888888889 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n")
    (camera,) = read_trajectory(tmp_path / "clip.txt", Camera.from_fov(58, 300, 360))
    assert (camera.width, camera.height) == (640, 360)
    assert camera.focal_and_center.tolist() == pytest.approx([320, 320, 320, 180])


EYE = "1 0 0 0 0 1 0 0 0 0 1 0"
LENS = "0 0.5 0.9 0.5 0.5 0 0"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clip.txt", f"url\n{LENS} {EYE}\n{LENS} {EYE} 7\n", "line 3: 20 columns where 19 are expected"),
        ("clip.txt", f"url\n{LENS} 2 0 0 0 0 1 0 0 0 0 1 0\n", "line 2: not a rotation: determinant 2.0000"),
        ("clip.txt", f"url\n{LENS} -1 0 0 0 0 1 0 0 0 0 1 0\n", "line 2: not a rotation: determinant -1.0000"),
        ("clip.txt", "url\n", "holds no camera"),
        ("poses.txt", f"{EYE}\n{EYE} 0 0 0 1\n", "line 2: 16 columns where 12 are expected"),
        ("poses.txt", f"{EYE} 3\n", "line 1: 13 columns where 12 or 16"),
        ("poses.txt", f"{EYE}\n\n{EYE.replace('1', 'one')}\n", "line 3: column 1 is one, which is no number"),
        ("poses.txt", f"{EYE}\n0 1 0 0 1 0 0 0 0 0 1 0\n", "line 2: not a rotation: determinant -1.0000"),
        ("poses.txt", f"{EYE} 0 0 0 2\n", "line 1: the last row of a 4x4 pose must be 0 0 0 1"),
        ("poses.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n1 0 0 0\n", "line 4: 4 rows are no whole number of 3x4 matrices"),
        ("poses.txt", f"{EYE.replace('0', 'nan')}\n", "line 1: numbers that are not finite"),
        ("poses.txt", "", "holds no camera"),
        ("poses.json", "[[1, 0], [0, 1]]", "matrices of shape"),
        ("poses.json", "[[1, 0],", "its text is damaged, or no JSON"),
        ("transforms.json", "{}", 'no list of "frames"'),
        ("transforms.json", '{"frames": [{}]}', "frame 0: no 'transform_matrix'"),
        ("transforms.json", '{"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}', "frame 0: transform_matrix is"),
        (
            "transforms.json",
            json.dumps({"frames": [{"transform_matrix": (k * torch.eye(4)).tolist()} for k in (1, 2)]}),
            "frame 1: not a rotation: determinant 8.0000",
        ),
        (
            "transforms.json",
            json.dumps({"fl_x": 0, "frames": [{"transform_matrix": torch.eye(4).tolist()}]}),
            "frame 0: a lens of 0 0 320 180: focal lengths must be positive",
        ),
        ("images.txt", "1 1 0 0 0 0 0 0 1\n", "line 1: 9 columns where 10 are expected"),
        ("images.txt", "#\n1 1 1 0 0 0 0 0 1 a.png\n", "line 2: not a rotation: its quaternion has length 1.4142"),
        ("images.txt", "1 1 0 0 0 0 0 0 2 a.png\n", "line 1: there is no camera 2 in cameras.txt"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(name: str, content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(content)
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 640 360 300 300 320 180\n")
    convention = ("opencv", "w2c") if name.startswith("poses") else ()
    with pytest.raises(UserError, match="^" + str(file)) as error:
        read_trajectory(file, LIKE, *convention)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_lens_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 640 360 300\n")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n")
    with pytest.raises(UserError, match=r"cameras\.txt, line 1: "):
        read_trajectory(tmp_path, LIKE)


def test_a_convention_is_asked_for_where_the_file_does_not_say_and_refused_where_it_does(tmp_path: Path) -> None:
    write_trajectory(tmp_path / "poses.txt", [LIKE], "matrices")
    with pytest.raises(UserError, match="give `convention` opencv or opengl, and `pose` c2w or w2c"):
        read_trajectory(tmp_path / "poses.txt", LIKE, convention="opencv")
    write_trajectory(tmp_path / "transforms.json", [LIKE])
    assert_same_path(read_trajectory(tmp_path / "transforms.json", LIKE, "opengl", "c2w"), [LIKE])
    with pytest.raises(UserError, match="nerfstudio files are opengl c2w, not opencv"):
        read_trajectory(tmp_path / "transforms.json", LIKE, convention="opencv")


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no camera path"):
        read_trajectory(tmp_path / "nowhere.txt", LIKE)
    with pytest.raises(UserError, match=r"holds none of the files of a path: images\.bin"):
        read_trajectory(tmp_path, LIKE)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"no text|not a text file"):
        read_trajectory(tmp_path / "bytes.txt", LIKE)
    with pytest.raises(UserError, match="no path format 'bundler'"):
        write_trajectory(tmp_path / "x", [LIKE], "bundler")
