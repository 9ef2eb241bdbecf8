"""generate_images.py on one's own photographs, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from generate_images import main
from tests.golden import tiny_network
from tests.scripts import invoke
from training.model_io import save_network


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return photograph(tmp_path / "photo.jpg")


def photograph(path: Path, width: int = 60, height: int = 40) -> Path:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) % 32 * 8], axis=-1).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def run(network: str, *arguments: str | Path) -> Result:
    fixed = ["--net", network, "--steps", "1", "--device", "cpu"]
    return invoke(main, *fixed, *arguments)


def test_one_command(network: str, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(network, "--image", photo, "--trajectory", "orbit", "--frames", 3, "--outdir", out)
    assert result.exit_code == 0, result.output
    frames = {f"frame_{k:06d}.png" for k in range(3)}
    assert frames | {"video.gif", "sheet.png", "trajectory.json"} <= {path.name for path in out.iterdir()}
    document = json.loads((out / "trajectory.json").read_text())
    assert document["neighbours"]["pairs"] == 2
    assert (document["trajectory"], document["num_steps"]) == ("orbit", 1)
    again = run(network, "--image", photo, "--trajectory", out / "trajectory.json", "--outdir", tmp_path / "again")
    assert again.exit_code == 0, again.output
    for name in frames:  # what was written is read back as the same path
        assert np.array_equal(np.asarray(Image.open(out / name)), np.asarray(Image.open(tmp_path / "again" / name)))


def test_orbits_turn_around_what_the_network_has_learned_to_expect(photo: Path, tmp_path: Path) -> None:
    net = tiny_network()
    net.typical_depth = 7.0
    save_network(tmp_path / "net.safetensors", net)
    arguments = ["--image", photo, "--frames", 5, "--outdir", tmp_path / "out"]
    assert run(str(tmp_path / "net.safetensors"), *arguments).exit_code == 0
    document = json.loads((tmp_path / "out" / "trajectory.json").read_text())
    assert document["typical_depth"] == 7.0
    poses = np.array([frame["transform_matrix"] for frame in document["frames"]])  # OpenGL's axes
    pivot = poses[0] @ [0, 0, -7, 1]
    assert np.linalg.norm(poses[:, :, 3] - pivot, axis=1) == pytest.approx([7.0] * 5)
    assert len({round(x, 3) for x in poses[:, 0, 3]}) > 2


def test_every_option_of_photographs(network: str, photo: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.txt"
    poses.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 .2 0 1 0 0 0 0 1 0\n" * 2)
    arguments = [
        "--convention",
        "opengl",
        "--pose",
        "c2w",
        "--scene-scale",
        2,
        "--fov",
        50,
        "--condition",
        "stochastic",
    ]
    arguments += ["--key-every", 1, "--samples", 2, "--seeds", "7,9", "--fresh-noise", "--baseline", "homography"]
    arguments += ["--export", "colmap", "--export", "matrices", "--fps", 5]
    out = tmp_path / "out"
    result = run(network, "--image", photo, "--trajectory", poses, *arguments, "--outdir", out)
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    assert {"frame_000003_seed9.png", "spread_000003.png", "colmap", "matrices_opencv_w2c.txt"} <= names
    assert "homography_000002.png" in names  # in its place again
    assert "homography_000003.png" not in names
    document = json.loads((out / "trajectory.json").read_text())
    assert document["photograph"]["fov_from"] == "given"
    assert document["frames"][1]["transform_matrix"][0][3] == pytest.approx(0.4)  # to the right, in twice the unit


def test_several_photographs_get_a_folder_each(network: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photograph(folder / "a.png")
    photograph(folder / "b.png", 30, 50)
    result = run(network, "--image", folder, "--trajectory", "zoom", "--frames", 1, "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert all((tmp_path / "out" / name / "frame_000000.png").exists() for name in "ab")


def test_one_photograph_that_is_none_costs_no_other(network: str, tmp_path: Path) -> None:
    photograph(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_text("not an image")
    photograph(tmp_path / "photos" / "c.png")
    arguments = ("--image", tmp_path / "photos", "--frames", 1, "--outdir", tmp_path / "out")
    result = run(network, *arguments)
    assert result.exit_code == 1
    assert "Error: 1 of 3 failed: b: " in result.output
    assert "Traceback" not in result.output
    assert all((tmp_path / "out" / name / "trajectory.json").exists() for name in "ac")


def test_estimate_counts_frames_and_samples(network: str, photo: Path) -> None:
    arguments = ("--image", photo, "--frames", 5, "--samples", 3, "--batch", "auto")
    result = run(network, *arguments, "--estimate")
    assert result.exit_code == 0, result.output
    assert "in all    15 images: " in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nothing.jpg"], "cannot read the image"),
        (["--image", "{text}"], "is not a whole image"),
        (["--image", "{dot}"], "is 1x1 pixels"),
        (["--image", "{photo}", "--frames", "0"], "a path of 0 frames shows nothing"),
        (["--image", "{photo}", "--trajectory", "loop"], "there is no camera path 'loop'"),
        (["--image", "{photo}", "--trajectory", "{text}"], "text.txt: line 1: 3 columns where 12 or 16"),
        (["--image", "{photo}", "--samples", "9"], "9 samples need as many seeds; --seeds has 8"),
        (["--image", "{photo}", "--range-selection", "mid"], "--range-selection is for pairs of a data set"),
        (["--image", "{photo}", "--subdirs"], "--subdirs is for pairs of a data set"),
        (["--frames", "3"], "--frames is for paths: leave it out, or give --image or --clip"),
        (["--image", "{photo}", "--key", "fly=1"], "'fly=1' is no key frame: write pan, tilt"),
        (["--image", "{photo}", "--key", "pan=1", "--amount", "2"], "key frames say how far they go"),
        (["--image", "{photo}", "--key", "pan=1", "--trajectory", "orbit"], "leave --trajectory out"),
        (["--image", "{photo}", "--key-every", "2"], "--key-every is for --condition chain or stochastic"),
        (["--image", "{photo}", "--crop", "0,0.5"], "around (0, 0.5) there is no square of half the shorter side"),
        (["--image", "{photo}", "--crop", "0.5"], "'0.5' is no X,Y, as in 0.3,0.5"),
        (["--image", "{photo}", "--crop", "0.5,2"], "--crop must be in [0, 1], but is 2"),
        (["--image", "{photo}", "--fps", "0"], "--fps must be in (0, inf), but is 0"),
        (["--image", "{photo}", "--fps", "nan"], "--fps must be in (0, inf), but is nan"),
        (["--image", "{photo}", "--scene-scale", "inf"], "--scene-scale must be in (-inf, inf)"),
        (["--image", "{photo}", "--outdir", "{text}/out"], "choose another folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, network: str, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("not an image")
    names = {"text": tmp_path / "text.txt", "dot": photograph(tmp_path / "dot.png", 1, 1), "photo": photo}
    given = [argument.format(**names) for argument in arguments]
    result = run(network, "--outdir", tmp_path / "out", *given)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("condition", ["first", "chain", "stochastic"])
def test_a_path_resumes_with_the_same_command_also_over_many_photographs(
    condition: str, network: str, tmp_path: Path
) -> None:
    photograph(tmp_path / "photos" / "a.png")
    photograph(tmp_path / "photos" / "b.png", 30, 50)
    out = tmp_path / "out"
    command = ["--image", tmp_path / "photos", "--frames", 5, "--condition", condition]
    command += [] if condition == "first" else ["--key-every", 2]
    command += ["--samples", 2, "--export", "colmap", "--outdir", out]
    assert run(network, *command).exit_code == 0
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in "ab":  # as a run that is cut short leaves it
        identity = json.loads((out / name / "trajectory.json").read_text())["identity"]
        (out / name / "path.json").write_text(json.dumps(identity))
    lost = ["a/frame_000001.png", "a/frame_000003_seed1.png", "a/trajectory.json", "a/video.gif", "b/sheet.png"]
    for name in [*lost, *(f"b/frame_{k:06d}.png" for k in range(5))]:
        (out / name).unlink()
    kept = (out / "a/frame_000002.png").stat().st_mtime_ns
    result = run(network, *command)
    assert result.exit_code == 0, result.output
    assert (out / "a/frame_000002.png").stat().st_mtime_ns == kept
    again = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert again.keys() == whole.keys()
    assert [path for path in whole if path.suffix != ".mp4" and again[path] != whole[path]] == []


def test_another_path_is_refused_and_overwriting_leaves_nothing_of_it(
    network: str, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["--image", photo, "--frames", 3, "--outdir", out]
    exports = ["--export", "colmap", "--export", "realestate10k", "--export", "matrices"]
    assert run(network, *command, "--samples", 2, "--baseline", "homography", *exports).exit_code == 0
    (out / "mine.txt").write_text("kept")
    result = run(network, *command, "--steps", 3)
    assert result.exit_code == 2
    assert "holds the frames of another path (another num_steps, seeds)" in result.output
    assert run(network, *command, "--trajectory", "zoom", "--frames", 2, "--overwrite").exit_code == 0
    assert {path.name for path in out.glob("[!.]*")} - {"video.mp4"} == {
        "frame_000000.png", "frame_000001.png", "trajectory.json", "video.gif", "sheet.png", "mine.txt"
    }  # fmt: skip


def test_given_back_everything_that_was_set_is_set_again(network: str, photo: Path, tmp_path: Path) -> None:
    """Only the network, the photograph and the path are named; the preset of the machine's fastest type is not."""
    out, again = tmp_path / "out", tmp_path / "again"
    settings = ["--trajectory", "spiral", "--amount", 0.4, "--frames", 3, "--fov", 41, "--scene-scale", 1.5]
    settings += ["--samples", 2, "--seeds", "5,9", "--steps", 2, "--solver", "euler", "--sigma_max", 40, "--rho", 5]
    settings += ["--condition", "chain", "--key-every", 1, "--fresh-noise", "--fps", 7, "--dtype", "float32"]
    settings += ["--no-known-pixels", "--baseline", "homography"]
    plain = ["--net", network, "--device", "cpu", "--image", photo]
    first = invoke(main, *plain, *settings, "--outdir", out)
    assert first.exit_code == 0, first.output
    second = invoke(main, *plain, "--trajectory", out / "trajectory.json", "--outdir", again)
    assert second.exit_code == 0, second.output
    names = {path.name for path in out.iterdir() if path.suffix == ".png" or path.suffix == ".gif"}
    assert names == {path.name for path in again.iterdir() if path.suffix == ".png" or path.suffix == ".gif"}
    assert [name for name in sorted(names) if (out / name).read_bytes() != (again / name).read_bytes()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth-model", "banana"], "none of the networks uses depth: leave out --depth-model banana"),
        (["--convention", "opencv"], "opencv is said of a file of plain matrices, but orbit is a named path"),
        (["--pose", "c2w"], "c2w is said of a file of plain matrices, but orbit is a named path"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str], message: str, network: str, photo: Path, tmp_path: Path
) -> None:
    result = run(network, "--image", photo, "--frames", 1, *arguments, "--outdir", tmp_path / "out")
    assert result.exit_code != 0
    assert message in result.output


def test_a_crop_is_followed_from_and_given_back(network: str, photo: Path, tmp_path: Path) -> None:
    """The path begins with the camera that is turned to the crop, and known pixels are the whole photograph's."""
    arguments = ["--image", photo, "--trajectory", "pan", "--amount", 4, "--frames", 2, "--crop", "0.4,0.5"]
    result = run(network, *arguments, "--baseline", "homography", "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "trajectory.json").read_text())
    assert document["photograph"]["crop"] == [0.4, 0.5]
    first, second = document["frames"]
    assert np.allclose(first["transform_matrix"], np.diag([1, -1, -1, 1])), "in the axes of OpenGL"
    assert second["fl_x"] > 1.05 * 8 / np.tan(np.radians(29)), "the square is smaller than that in the middle"
    for k in range(2):
        *known, inside = np.asarray(Image.open(tmp_path / "out" / f"homography_{k:06d}.png")).transpose(2, 0, 1)
        frame = np.asarray(Image.open(tmp_path / "out" / f"frame_{k:06d}.png")).transpose(2, 0, 1)
        assert inside.all()
        assert np.array_equal(known, frame)
    again = run(network, "--image", photo, "--trajectory", tmp_path / "out/trajectory.json", "--outdir", tmp_path / "b")
    assert again.exit_code == 0, again.output
    for name in ("frame_000000.png", "frame_000001.png", "sheet.png"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_path_through_key_frames(network: str, photo: Path, tmp_path: Path) -> None:
    arguments = ["--image", photo, "--key", "pan=10", "--key", "pan=10,truck=0.5", "--frames", 5]
    result = run(network, *arguments, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "trajectory.json").read_text())
    assert document["keys"] == ["pan=10", "pan=10,truck=0.5"]
    matrices = [np.array(frame["transform_matrix"]) for frame in document["frames"]]
    assert np.allclose(matrices[2][:3, 3], 0, atol=1e-9), "the second key frame only turns"
    assert np.allclose(matrices[4][:3, :3], matrices[2][:3, :3]), "the third only moves"
    assert matrices[4][0, 3] == pytest.approx(0.5)


def test_key_frames_from_a_file_give_the_same_path_to_the_bit(network: str, photo: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"key_frames": [{"pan": 10}, {"pan": 10, "truck": 0.5, "time": 3}]}')
    arguments = ["--image", photo, "--frames", 3, "--scene-scale", 0.7]
    paths = {"said": ["--key", "pan=10", "--key", "pan=10,truck=0.5,time=3"], "read": ["--trajectory", file]}
    found = []
    for name, path in paths.items():
        result = run(network, *arguments, *path, "--outdir", tmp_path / name)
        assert result.exit_code == 0, result.output
        found.append(json.loads((tmp_path / name / "trajectory.json").read_text()))
    assert found[0]["exact"] == found[1]["exact"]
    assert found[0]["identity"] == found[1]["identity"]
