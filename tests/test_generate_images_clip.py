"""generate_images.py along the path of a clip, end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from datasets.realestate10k import open_split
from datasets.synthetic import SyntheticClips, write_tree
from datasets.trajectory_files import read_trajectory
from generate_images import main
from metrics.image import psnr
from tests.scripts import invoke
from torch_utils.cameras import View

SIDE = 16
VIEWS = Path(__file__).resolve().parent.parent / "assets" / "vivid-tiny" / "views"
DEMO_CLIP = "kaos2_128_02"  # the third of seven by name, of 4 frames


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of twelve frames; the first and the fourth are missing in test-00001, and all in test-00002."""
    root = tmp_path_factory.mktemp("data")
    write_tree(root, "test", SyntheticClips("test", 3, frames=12, width=40, height=24))
    files = sorted((root / "test" / "test-00001").glob("*.png"), key=lambda path: int(path.stem))
    for missing in (0, 3):
        files[missing].unlink()
    shutil.rmtree(root / "test" / "test-00002")
    return root


@pytest.fixture(scope="module")
def out(network: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    arguments = ["--frames", 4, "--samples", 2, "--seeds", "5,8", "--export", "realestate10k", "--fps", 5]
    result = run(network, "--data", data, "--clip", "test-00001", *arguments, "--outdir", folder)
    assert result.exit_code == 0, result.output
    return folder


def run(network: str, *arguments: str | Path | int) -> Result:
    fixed = ["--net", network, "--steps", "1", "--device", "cpu"]
    return invoke(main, *fixed, *arguments)


def picture(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def true_views(root: Path, name: str, positions: list[int]) -> list[View]:
    clips = open_split(root, "test")
    clip = clips.open(list(clips.names).index(name))
    return [clip.view(position).square(SIDE) for position in positions]


def test_the_files_of_a_path_and_the_true_frames(out: Path, data: Path) -> None:
    kinds = ("frame_{:06d}.png", "frame_{:06d}_seed8.png", "spread_{:06d}.png", "truth_{:06d}.png")
    numbered = {kind.format(k) for kind in kinds for k in range(4)}
    written = {path.name for path in out.iterdir()} - {"video.mp4", ".lock"}  # the video needs PyAV
    assert written == numbered | {"video.gif", "sheet.png", "trajectory.json", "realestate10k.txt"}
    document = json.loads((out / "trajectory.json").read_text())
    assert (document["clip"], document["split"], document["seeds"]) == ("test-00001", "test", [5, 8])
    assert document["positions"] == [1, 5, 8, 11]  # of 1, 2, 4, .. 11
    for k, view in enumerate(true_views(data, "test-00001", document["positions"])):
        assert np.array_equal(picture(out / f"truth_{k:06d}.png"), view.image.permute(1, 2, 0).numpy())


def test_the_cameras_are_the_clips_own(out: Path, data: Path) -> None:
    views = true_views(data, "test-00001", [1, 5, 8, 11])
    for name in ("trajectory.json", "realestate10k.txt"):
        for camera, view in zip(read_trajectory(out / name, views[0].camera), views, strict=True):
            torch.testing.assert_close(camera.extrinsics, view.camera.extrinsics, rtol=0, atol=1e-8)
            torch.testing.assert_close(camera.intrinsics, view.camera.intrinsics, rtol=0, atol=1e-6)


def test_the_sheet_has_the_truth_below_the_samples(out: Path) -> None:
    sheet = picture(out / "sheet.png")
    rows = []
    for kind in ("frame_{:06d}.png", "frame_{:06d}_seed8.png", "truth_{:06d}.png", "spread_{:06d}.png"):
        places = [find(sheet, Image.open(out / kind.format(k)).convert("RGB")) for k in range(1, 4)]
        assert len({y for y, _ in places}) == 1
        rows.append((places[0][0], [x for _, x in places]))
    assert [y for y, _ in rows] == sorted({y for y, _ in rows})  # each row below the one before
    assert all(columns == rows[0][1] for _, columns in rows)  # in the same columns
    assert rows[0][1] == sorted(rows[0][1])


def find(sheet: np.ndarray, image: Image.Image) -> tuple[int, int]:
    """Row and column of the one place in the sheet [H, W, 3] where an image is, enlarged to 160 pixels."""
    cell = np.asarray(image.resize((160, 160), Image.Resampling.NEAREST))
    places = np.argwhere((sheet[:-159, :-159] == cell[0, 0]).all(axis=-1))
    found = [(y, x) for y, x in places.tolist() if np.array_equal(sheet[y : y + 160, x : x + 160], cell)]
    assert len(found) == 1
    return found[0]


def test_the_video_shows_source_sample_and_truth(out: Path) -> None:
    with Image.open(out / "video.gif") as video:
        assert video.n_frames == 4
        video.seek(2)
        shown = np.asarray(video.convert("RGB")).astype(int)
    names = ("truth_000000.png", "frame_000002.png", "truth_000002.png")
    expected = np.concatenate([picture(out / name) for name in names], axis=1)
    factor = shown.shape[0] // SIDE
    assert shown.shape == (factor * SIDE, factor * 3 * SIDE, 3)
    assert np.abs(shown[::factor, ::factor] - expected).mean() < 4  # a palette of 256 colours


def test_psnr_leaves_out_the_source_view(out: Path) -> None:
    found = json.loads((out / "trajectory.json").read_text())["truth"]
    frames, truth = (
        torch.stack([torch.tensor(picture(out / f"{kind}_{k:06d}.png")).permute(2, 0, 1) for k in range(4)])
        for kind in ("frame", "truth")
    )
    assert found["psnr_db"] == pytest.approx(float(psnr(frames[1:], truth[1:]).mean()))
    assert found["copy_source_psnr_db"] == pytest.approx(float(psnr(truth[:1].expand(3, -1, -1, -1), truth[1:]).mean()))


@pytest.mark.parametrize("condition", ["chain", "stochastic"])
def test_all_frames_of_a_short_clip_by_number(condition: str, network: str, tmp_path: Path) -> None:
    arguments = ["--data", VIEWS, "--clip", 2, "--condition", condition, "--key-every", 1, "--outdir", tmp_path]
    result = run(network, *arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "frame_000003.png").exists()
    assert not (tmp_path / "frame_000004.png").exists()
    document = json.loads((tmp_path / "trajectory.json").read_text())
    lens = {"fov_deg": pytest.approx(53.12, abs=0.01), "fov_from": "clip", "center": [64.0, 64.0]}
    assert document["photograph"] == {"name": DEMO_CLIP, **lens, "crop": None}
    assert document["positions"] == list(open_split(VIEWS, "test").open(2).frames)
    assert document["condition"] == condition
    again = run(network, *arguments, "--clip", 3, "--frames", 2, "--overwrite")
    assert again.exit_code == 0, again.output
    assert sorted(path.name for path in tmp_path.glob("truth_*")) == ["truth_000000.png", "truth_000001.png"]


def test_one_frame_is_no_novel_view(network: str, data: Path, tmp_path: Path) -> None:
    result = run(network, "--data", data, "--clip", 0, "--frames", 1, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "trajectory.json").read_text())["truth"]
    assert found == {"psnr_db": None, "copy_source_psnr_db": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "test-00009"], "give a number from 0 to 2, or a name: test-00000, test-00001, test-00002"),
        (["--clip", "3"], "there is no clip '3': give a number from 0 to 2"),
        (["--clip", ""], "there is no clip ''"),
        (["--clip", "2"], "no frames"),
        (["--clip", "0", "--split", "train"], "has no split 'train'; it has test"),
        (["--clip", "0", "--frames", "13"], "the path has 12 frames, 13 were asked for"),
        (["--clip", "0", "--frames", "0"], "a path of 0 frames shows nothing"),
        (["--clip", "0", "--image", "photo.jpg"], "is for data sets: leave it out, or --image"),
        (["--clip", "0", "--trajectory", "pan"], "--trajectory is for one's own photographs: leave it out, or --clip"),
        (["--clip", "0", "--range-selection", "mid"], "--range-selection is for pairs of a data set"),
        (["--clip", "0", "--subdirs"], "--subdirs is for pairs of a data set: leave it out, or --clip"),
        (["--clip", "0", "--samples", "9"], "9 samples need as many seeds; --seeds has 8"),
        (["--clip", "0", "--depth-model", "file"], "has no depth"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments: list[str], message: str, network: str, data: Path, tmp_path: Path) -> None:
    result = run(network, "--data", data, "--outdir", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("*.png"))
