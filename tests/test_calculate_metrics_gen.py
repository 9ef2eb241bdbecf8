from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result

from calculate_metrics import main
from datasets.pairs import FramePair, write_pairs
from datasets.synthetic import SyntheticClips, write_tree
from tests.golden import DATA
from tests.scripts import invoke, run_python

ROOT = Path(__file__).resolve().parent.parent
NET = ("--net", str(DATA / "released-layout-base.pkl"), "--steps", "1", "--device", "cpu", "--workers", "0")
METRICS = ("--metrics", "psnr,ssim,fd_efficientnet", "--allow-few")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_tree(root, "test", SyntheticClips("test", 3, frames=12, width=96, height=64), depth=True)
    return root


def call(*arguments: object) -> Result:
    return invoke(main, *arguments)


def numbers(file: Path) -> dict:
    return json.loads(file.read_text())["metrics"]


@pytest.fixture(scope="module")
def table(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gen")
    result = call(
        *("gen", *NET, *METRICS, "--data", data, "--range-selection", "3-8", "--num", 5, "--batch", 2),
        *("--outdir", folder / "out", "--json", folder / "gen.json"),
    )
    assert result.exit_code == 0, result.output
    return folder


def close(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        for role in ("generated", "copy_source"):
            assert a[name][role] == pytest.approx(b[name][role], rel=1e-9), (name, role)


def test_calc_of_the_kept_pictures_gives_the_same_numbers(table: Path) -> None:
    result = call("calc", "--images", table / "out", *METRICS, *NET[4:], "--json", table / "calc.json")
    assert result.exit_code == 0, result.output
    close(numbers(table / "gen.json"), numbers(table / "calc.json"))


def test_two_processes_give_the_same_numbers(table: Path, data: Path, tmp_path: Path) -> None:
    arguments = ["calculate_metrics.py", "gen", *NET, "--metrics", "psnr", "--data", data, "--range-selection", "3-8"]
    arguments += ["--num", 5, "--json", tmp_path / "two.json"]
    done = run_python(*arguments, processes=2)
    assert done.returncode == 0, done.stderr
    one, two = numbers(table / "gen.json")["psnr"], numbers(tmp_path / "two.json")["psnr"]
    assert one["images"] == two["images"] == 5
    assert one["copy_source"] == pytest.approx(two["copy_source"], rel=1e-9)
    assert one["generated"] == pytest.approx(two["generated"], abs=0.01)  # 8-bit values may be 1 apart


def test_a_pair_list_names_the_pairs(data: Path, tmp_path: Path) -> None:
    clips = sorted(path.stem for path in (data / "RealEstate10K" / "test").iterdir())
    write_pairs(tmp_path / "pairs.json", [FramePair(clips[0], 0, 4), FramePair(clips[1], 9, 2)])
    arguments = ("gen", *NET, "--metrics", "psnr", "--data", data, "--pairs", tmp_path / "pairs.json")
    result = call(*arguments, "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    images = json.loads((tmp_path / "out" / "run.json").read_text())["images"]
    assert [(image["clip"], image["source_index"], image["target_index"]) for image in images] == [
        (clips[0], 0, 4),
        (clips[1], 9, 2),
    ]


def test_a_torn_frame_costs_its_own_pairs_only(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    clips = sorted(path.stem for path in (data / "RealEstate10K" / "test").iterdir())
    write_pairs(tmp_path / "pairs.json", [FramePair(clip, 0, 4) for clip in clips])
    frames = [path for path in (tmp_path / "data" / "test" / clips[1]).iterdir() if path.stem.isdecimal()]
    frame = sorted(frames, key=lambda path: int(path.stem))[4]
    frame.write_bytes(frame.read_bytes()[:100])
    result = call(
        *("gen", *NET, "--metrics", "psnr", "--data", tmp_path / "data", "--pairs", tmp_path / "pairs.json"),
        *("--batch", "auto", "--json", tmp_path / "table.json", "--outdir", tmp_path / "out"),
    )
    assert result.exit_code == 1
    assert "Error: 1 of 3 failed: seed 1: " in result.output
    assert frame.name in result.output
    assert numbers(tmp_path / "table.json")["psnr"]["images"] == 2
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["images"]) == 2


def test_the_warp_by_true_depth_beats_the_copy(data: Path, tmp_path: Path) -> None:
    result = call(
        *("gen", *NET, "--metrics", "psnr,psnr_visible", "--data", data, "--range-selection", "3-8", "--num", 4),
        *("--baseline", "warp", "--depth-model", "file", "--json", tmp_path / "warp.json"),
    )
    assert result.exit_code == 0, result.output
    found = numbers(tmp_path / "warp.json")["psnr"]
    assert found["warp"] > found["copy_source"] + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "fdi"], "there is no metric 'fdi'"),
        (["--guidance", "2"], "needs a guidance network"),
        (["--metrics", "fd_efficientnet", "--num", "3"], "3 images are fewer than the 1280 features"),
        (["--pairs", "nowhere.json"], "nowhere.json"),
        (["--baseline", "warp"], "--depth-model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, data: Path) -> None:
    result = call("gen", *NET, "--metrics", "psnr", "--data", data, "--num", 2, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(re.findall("Error: ", result.output)) == 1
    assert "Traceback" not in result.output
