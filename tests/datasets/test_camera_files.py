"""Camera files: COLMAP's models and their lenses, as text and binary; nerfstudio's order and paths; TUM; odd firsts."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from datasets.camera_files.lens import MODELS, colmap_lens
from datasets.conventions import fit_of_poses
from datasets.doctor import main as doctor
from datasets.frame_files import read_cameras
from datasets.layouts import open_clips
from datasets.pack_writer import write_pack
from datasets.packed import Recipe
from datasets.trajectory_files import read_path, read_trajectory
from dnnlib import UserError
from dnnlib.util import natural_key
from tests.datasets.colmap_models import NUMBERS, write_binary_model, write_text_model
from torch_utils.cameras import Camera

LIKE = Camera.from_fov(58, 640, 360)
# As pycolmap 4.2.1 writes them; its numbers, too.
ONE_FOCAL = {"SIMPLE_PINHOLE": 0, "SIMPLE_RADIAL": 1, "RADIAL": 2, "SIMPLE_RADIAL_FISHEYE": 1, "RADIAL_FISHEYE": 2,
             "SIMPLE_DIVISION": 1, "SIMPLE_FISHEYE": 0}  # fmt: skip
TWO_FOCALS = {"PINHOLE": 0, "OPENCV": 4, "OPENCV_FISHEYE": 4, "FULL_OPENCV": 8, "FOV": 1, "THIN_PRISM_FISHEYE": 8,
              "RAD_TAN_THIN_PRISM_FISHEYE": 12, "DIVISION": 1, "FISHEYE": 0, "EUCM": 2}  # fmt: skip
EYE = "1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", [*ONE_FOCAL, *TWO_FOCALS])
def test_every_model_of_colmap_by_its_own_order_of_numbers(name: str, binary: bool, tmp_path: Path) -> None:
    focals, extra = ("500", ONE_FOCAL[name]) if name in ONE_FOCAL else ("500 510", TWO_FOCALS[name])
    lens = f"{name} 640 480 {focals} 320 240" + " 0.05" * extra
    if binary:
        write_binary_model(tmp_path, lens, ["a.png"])
    else:
        write_text_model(tmp_path, lens, "1 1 0 0 0 0 0 0 1 a.png\n\n")
    (camera,) = read_trajectory(tmp_path, LIKE)
    assert camera.focal_and_center.tolist() == [500, 500 if name in ONE_FOCAL else 510, 320, 240]
    assert (camera.width, camera.height) == (640, 480)
    assert list(MODELS) == NUMBERS


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ("EQUIRECTANGULAR 640 480 640 480", "EQUIRECTANGULAR is a panorama"),
        ("BARREL 640 480 500 320 240", "there is no camera model 'BARREL'; known are SIMPLE_PINHOLE"),
        ("RADIAL 640 480 500 320 240 0.1", "4 numbers for RADIAL, which has 5"),
        ("SIMPLE_FISHEYE 640 480 200 320 240", "SIMPLE_FISHEYE sees 92 degrees aside, which no pinhole does"),
        ("PINHOLE 640 480 nan 500 320 240", "focal lengths must be positive"),
        ("PINHOLE 0 480 500 500 320 240", "0x480 pixels, which there is not"),
    ],
)
def test_lenses_that_no_pinhole_is_are_refused_by_name(lens: str, message: str, tmp_path: Path) -> None:
    write_text_model(tmp_path, lens, "1 1 0 0 0 0 0 0 1 a.png\n\n")
    with pytest.raises(UserError) as error:
        read_trajectory(tmp_path, LIKE)
    assert message in str(error.value)
    assert "cameras.txt, line 2" in str(error.value)


def test_distortion_is_noted_and_only_where_there_is_some(tmp_path: Path) -> None:
    image = "1 1 0 0 0 0 0 0 1 a.png\n\n"
    for lens, said in (
        ("OPENCV 9 9 5 5 4 4 0 0 0 0", ""),
        ("RADIAL 9 9 5 4 4 0.1 -0.3", "RADIAL, coefficients up to 0.3"),
        ("FISHEYE 9 9 5 5 4 4", "FISHEYE"),
    ):
        notes = read_path(write_text_model(tmp_path, lens, image), LIKE).notes
        assert notes == ((f"lens distortion is left out ({said}): views are a pinhole's",) if said else ())
    assert colmap_lens("EUCM", 9, 9, [5, 5, 4, 4, 0, 1]).distortion == 0


@pytest.mark.parametrize("points", ["\n", "", "1.5 2.5 -1 3 4 17\n", "   \n"])
def test_stripped_point_lines_lose_no_camera(points: str, tmp_path: Path) -> None:
    """Editors and scripts strip empty lines; points are a multiple of three numbers, an image never is."""
    images = "".join(f"{k + 1} 1 0 0 0 {k} 0 0 1 frame {k}.png\n{points}" for k in range(3))
    cameras = read_trajectory(write_text_model(tmp_path, "PINHOLE 9 9 5 5 4 4", images), LIKE)
    assert [float(camera.translation[0]) for camera in cameras] == [0, 1, 2]


@pytest.mark.parametrize("where", [".", "sparse/0", "sparse", "colmap/sparse/0"])
def test_binary_models_are_found_in_projects_and_sorted_naturally(where: str, tmp_path: Path) -> None:
    folder = write_binary_model(tmp_path / where, "PINHOLE 640 480 500 510 320 240", ["img10.png", "img2.png", "img1"])
    for path in (tmp_path, folder, folder / "images.bin", folder / "cameras.bin"):
        cameras = read_trajectory(path, LIKE)
        assert [float(camera.translation[0]) for camera in cameras] == [2, 1, 0]


def test_broken_binary_models_say_where(tmp_path: Path) -> None:
    folder = write_binary_model(tmp_path, "PINHOLE 640 480 500 510 320 240", ["a.png", "b.png"])
    whole = (folder / "images.bin").read_bytes()
    for size in range(len(whole)):
        (folder / "images.bin").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"ends in the middle|without end"):
            read_trajectory(folder, LIKE)
    (folder / "images.bin").write_bytes(struct.pack("<Q", 2**64 - 1) + whole[8:])
    with pytest.raises(UserError, match="image 2: the file ends in the middle of it"):
        read_trajectory(folder, LIKE)
    write_binary_model(tmp_path, "PINHOLE 640 480 500 510 320 240", ["a.png"], numbers=18)
    with pytest.raises(UserError, match=r"cameras\.bin, camera 0: there is no camera model 18"):
        read_trajectory(folder, LIKE)
    (folder / "cameras.bin").unlink()
    with pytest.raises(UserError, match="half of a model of COLMAP: images and cameras are read together"):
        read_trajectory(folder, LIKE)


def transforms(order: list[str], **values: float) -> str:
    frames = []
    for name in order:
        matrix = torch.eye(4)
        matrix[0, 3] = int("".join(filter(str.isdigit, name))) / 10
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    return json.dumps({**values, "frames": frames})


@pytest.mark.parametrize("name", ["images/frame_{:05d}.jpg", "img{}.png"])
def test_frames_of_nerfstudio_come_in_the_order_of_their_names(name: str, tmp_path: Path) -> None:
    order = [name.format(k) for k in (10, 3, 1, 2)]
    (tmp_path / "transforms.json").write_text(transforms(order, w=1920, h=1080, fl_x=1500))
    cameras = read_trajectory(tmp_path / "transforms.json", LIKE)
    assert [float(camera.center[0]) for camera in cameras] == pytest.approx([0.1, 0.2, 0.3, 1.0])


def test_natural_order() -> None:
    assert sorted(["b2", "a10", "a9", "a", "10", "9x", "a09"], key=natural_key) == [
        "9x", "10", "a", "a09", "a9", "a10", "b2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "beside", "size", "focal", "has_lens"),
    [
        ({"fl_x": 500, "w": 1000, "h": 800}, None, (1000, 800), 500, True),
        ({"fl_x": 500, "cx": 499.6, "cy": 400}, None, (999, 800), 500, True),  # the centre is about in the middle
        ({"fl_x": 500}, (1000, 800), (1000, 800), 500, True),  # the picture itself tells
        ({"fl_x": 500}, None, (640, 360), 500, False),  # of what size nobody knows: only its changes count
        ({"camera_angle_x": math.pi / 2}, None, (640, 360), 320, True),
        ({}, None, (640, 360), None, False),
    ],
)
def test_a_focal_length_without_the_size_it_counts_in(
    values: dict, beside: tuple[int, int] | None, size: tuple[int, int], focal: float | None, has_lens: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "transforms.json").write_text(transforms(["1.png"], **values))
    if beside:
        Image.new("RGB", beside).save(tmp_path / "1.png")
    path = read_path(tmp_path, LIKE)
    assert path.has_lens == has_lens
    (camera,) = path.cameras
    assert (camera.width, camera.height) == size
    assert float(camera.focal_and_center[0]) == pytest.approx(focal or float(LIKE.focal_and_center[0]))


def test_a_path_of_the_nerfstudio_viewer(tmp_path: Path) -> None:
    """fov spans the height; matrices are camera-to-world in OpenGL's axes, in one row."""
    matrix = [1, 0, 0, 1, 0, 1, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1]
    frames = [{"camera_to_world": matrix, "fov": fov, "aspect": 1.5} for fov in (90, 60)]
    path = {"camera_type": "perspective", "render_height": 400, "render_width": 600, "camera_path": frames}
    file = tmp_path / "camera_path.json"
    file.write_text(json.dumps(path))
    first, second = read_trajectory(file, LIKE)
    assert first.focal_and_center.tolist() == pytest.approx([200, 200, 300, 200])
    assert second.focal_and_center[0] == pytest.approx(200 * math.sqrt(3))
    assert first.center.tolist() == [1, 2, 3]
    assert first.rotation.diagonal().tolist() == [1, -1, -1]
    for kind, message in (("equirectangular", "EQUIRECTANGULAR is a panorama"), ("vr180", "camera model 'VR180'")):
        file.write_text(json.dumps({**path, "camera_type": kind}))
        with pytest.raises(UserError, match=message):
            read_trajectory(file, LIKE)


def test_a_path_of_the_viewer_without_a_size_or_with_one_that_no_picture_has(tmp_path: Path) -> None:
    frame = {"camera_to_world": np.eye(4).tolist(), "fov": 90, "aspect": 0.4}
    file = tmp_path / "camera_path.json"
    file.write_text(json.dumps({"camera_path": [frame]}))
    (camera,) = read_trajectory(file, LIKE)
    assert camera.width / camera.height == pytest.approx(0.4, abs=1e-3)
    assert float(camera.focal_and_center[1]) == pytest.approx(camera.height / 2)
    file.write_text(json.dumps({"camera_path": [frame], "render_height": 10**19}))
    with pytest.raises(UserError, match=r"frame 0: a picture of 4e\+18x1e\+19 pixels"):
        read_trajectory(file, LIKE)


def test_tum_poses(tmp_path: Path) -> None:
    """A quarter turn about y, so that z looks along the world's x; camera-to-world, x y z before w."""
    half = math.sqrt(0.5)
    (tmp_path / "traj.txt").write_text(f"# timestamp tx ty tz qx qy qz qw\n1.5 1 2 3 0 {half} 0 {half}\n")
    path = read_path(tmp_path / "traj.txt", LIKE)
    (camera,) = path.cameras
    assert camera.center.tolist() == pytest.approx([1, 2, 3])
    assert camera.rotation[2].tolist() == pytest.approx([1, 0, 0])
    assert not path.has_lens
    with pytest.raises(UserError, match="TUM files are opencv c2w, not opengl"):
        read_trajectory(tmp_path / "traj.txt", LIKE, convention="opengl")


@pytest.mark.parametrize("head", ["#poses\n", "# a\n#b\n\n", "", "#\n"])
def test_plain_matrices_with_commas_alone_and_any_comments(head: str, tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text(head + EYE.replace(" ", ",") + "\n" + EYE.replace(" ", ",") + "\n")
    path = read_path(tmp_path / "poses.txt", LIKE, "opencv", "w2c")
    assert len(path.cameras) == 2
    assert not path.has_lens


@pytest.mark.parametrize(
    ("first", "url"),
    [
        ("", ""),
        ("\n", ""),
        *[(f"{url}\n", url) for url in ("https://youtu.be/abc", "two words", "# 16 3", "17", "naïve", "x " * 18 + "x")],
    ],
)
@pytest.mark.parametrize("stamp", ["33367", "33367.0", "3.3367e4"])
def test_the_first_line_of_a_camera_file_may_be_anything_or_missing(
    first: str, url: str, stamp: str, tmp_path: Path
) -> None:
    file = tmp_path / "clip.txt"
    file.write_text(first + f"{stamp} 0.5 0.9 0.5 0.5 0 0 {EYE}\n66733.0 0.5 0.9 0.5 0.5 0 0 {EYE}\n")
    assert read_cameras(file)[:2] == (url, [33367, 66733])
    assert len(read_trajectory(file, LIKE)) == 2
    file.write_bytes(b"caf\xe9\n" + file.read_bytes().removeprefix(first.encode()))  # another encoding
    assert read_cameras(file)[1] == [33367, 66733]


def write_scene(root: Path, orientation: int, principal: tuple[float, float] = (0.5, 0.5)) -> None:
    """Six frames of a textured wall, 160x120, from a camera that walks and turns; tagged by an EXIF orientation."""
    width, height, focal = 160, 120, 125.0
    cx, cy = principal[0] * width, principal[1] * height
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    wall = np.asarray(Image.fromarray(noise).resize((2400, 1600), Image.Resampling.BICUBIC))
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - cx) / focal, (v - cy) / focal, np.ones_like(u)], axis=-1)
    images, frames = root / "test/scene/images", []
    images.mkdir(parents=True)
    tags = Image.Exif()
    tags[0x0112] = orientation
    for k in range(6):
        a = 0.05 * k
        to_world = np.eye(4)
        to_world[:3, :3] = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
        to_world[0, 3] = 0.2 * k
        ahead = rays @ to_world[:3, :3].T
        point = to_world[:3, 3] + ahead * (4 / ahead[..., 2:])
        pixels = wall[
            ((point[..., 1] + 4) * 200).clip(0, 1599).astype(int), ((point[..., 0] + 6) * 200).clip(0, 2399).astype(int)
        ]
        Image.fromarray(pixels).save(images / f"{k}.png", exif=tags)
        matrix = (to_world @ np.diag([1, -1, -1, 1.0])).tolist()
        frames.append({"file_path": f"images/{k}.png", "transform_matrix": matrix})
    lens = {"w": width, "h": height, "fl_x": focal, "fl_y": focal, "cx": cx, "cy": cy}
    (root / "test/scene/transforms.json").write_text(json.dumps({**lens, "frames": frames}))


@pytest.mark.parametrize("orientation", [1, 6])
def test_posed_frames_are_read_as_stored(orientation: int, tmp_path: Path) -> None:
    """COLMAP and nerfstudio compute cameras on stored pixels: turned by EXIF, frames would miss them by 50 pixels."""
    write_scene(tmp_path, orientation)
    clip = open_clips(tmp_path, "test").open(0)
    assert clip.view(0).image.shape == (3, 120, 160)
    fit = fit_of_poses(clip)
    assert fit is not None
    assert fit.declared_px < 0.5


def test_an_off_centre_principal_point_moves_the_crop_and_the_doctor_says_so(tmp_path: Path) -> None:
    write_scene(tmp_path, 1, principal=(0.4, 0.45))
    write_pack(open_clips(tmp_path, "test"), tmp_path / "pack/test", Recipe((64,), "png"))
    for root in (tmp_path, tmp_path / "pack"):
        view = open_clips(root, "test").open(0).view(0).square(64)
        assert view.camera.focal_and_center.tolist() == pytest.approx([125 * 64 / 108, 125 * 64 / 108, 32, 32], abs=0.6)
    result = CliRunner().invoke(doctor, [str(tmp_path), "--workers=1"])
    assert result.exit_code == 0
    assert "principal points are up to 10.0% of a side off the middle of the frame" in result.output
    assert "poses fit within 0." in result.output
    assert "principal" not in CliRunner().invoke(doctor, [str(tmp_path / "pack"), "--workers=1"]).output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.txt", "# \xe9\n1 0 0 0\n", "m.txt is no text in UTF-8"),
        ("m.json", "null", "m.json: not a matrix of numbers"),
        ("m.json", "[[1, 2], [3]]", "m.json: not a matrix of numbers"),
        ("m.npy", "junk", "m.npy is damaged, or no .npy file"),
        ("tum.txt", "0 0 0 0 0 0 0 one\n", "tum.txt: line 1: column 8 is one, which is no number"),
        ("transforms.json", {"w": None, "h": 9}, "transforms.json: frame 0: w is None, which is no number"),
        ("transforms.json", {"fl_x": "wide"}, "transforms.json: frame 0: fl_x is wide, which is no number"),
        ("transforms.json", {"camera_angle_x": 3.2}, "transforms.json: frame 0: an angle of view of 183.346 degrees"),
        ("camera_path.json", {"fov": 0}, "camera_path.json: frame 0: an angle of view of 0 degrees"),
        ("camera_path.json", {"fov": 180}, "camera_path.json: frame 0: an angle of view of 180 degrees"),
        (
            "camera_path.json",
            {"camera_to_world": [1] * 15},
            "camera_path.json: frame 0: camera_to_world has 15 numbers",
        ),
    ],
)
def test_what_is_wrong_is_said_in_plain_words_with_the_file_once(
    name: str, content: str | dict, said: str, tmp_path: Path
) -> None:
    if name == "transforms.json":
        content = json.dumps({**content, "frames": [{"transform_matrix": np.eye(4).tolist()}]})
    elif name == "camera_path.json":
        content = json.dumps({"camera_path": [{"camera_to_world": np.eye(4).tolist(), "fov": 50, **content}]})
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as error:
        read_trajectory(tmp_path / name, LIKE, *(("opencv", "w2c") if name[0] == "m" else ()))
    assert str(error.value).startswith(f"{tmp_path}/{said}")
    assert str(error.value).count(str(tmp_path)) == 1
