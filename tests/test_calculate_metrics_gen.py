from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from calculate_metrics import main
from datasets.pairs import FramePair, read_pairs, write_pairs
from datasets.synthetic import SyntheticClips, write_tree
from metrics.reference import load_reference
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


def protocol_run(data: Path, tmp_path: Path, *arguments: object) -> Result:
    return call("gen", *NET, "--data", data, "--json", tmp_path / "table.json", *arguments)


def test_protocol_list_prints_sources() -> None:
    result = call("gen", "--protocol=list")
    assert result.exit_code == 0
    for text in ("vivid-mid: gaps of 30 to 59", "arXiv:2406.04343", "tsed:"):
        assert text in result.output


def test_a_protocol_decides_pairs_metrics_and_border(data: Path, tmp_path: Path) -> None:
    clips = sorted(path.stem for path in (data / "RealEstate10K" / "test").iterdir())
    rows = [f"{clips[0]} 1 6 11 3", "0000000000000000 1 2 3 4", f"{clips[1]} 0 5 10 2"]
    (tmp_path / "rows.txt").write_text("\n".join(rows))
    arguments = ("--protocol=flash3d", "--pairs", tmp_path / "rows.txt", "--write-pairs", tmp_path / "pairs.jsonl")
    result = protocol_run(data, tmp_path, *arguments, "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for text in (
        "5% of the images are cut off",
        "cropped to the central square",
        "the protocol is at 256",
        "5 frames ",
    ):
        assert text in result.output
    content = json.loads((tmp_path / "table.json").read_text())
    assert list(content["metrics"]) == ["psnr", "ssim", "lpips_vgg"]
    expected = [(clips[0], 1, 6), (clips[0], 1, 11), (clips[0], 1, 3), *((clips[1], 0, k) for k in (5, 10, 2))]
    assert [(row["clip"], row["source"], row["target"]) for row in content["pairs"]] == expected
    # Pair by pair: the kept pictures, cut by hand.
    numbers = {}
    for seed in range(6):
        sample, target = (
            np.array(Image.open(tmp_path / "out" / f"{role}_{seed:06d}.png"), float) for role in ("sample", "tgt")
        )
        side = sample.shape[0]
        cut = slice(math.ceil(0.05 * side), math.floor(0.95 * side))
        numbers[str(seed)] = 10 * math.log10(255**2 / ((sample - target)[cut, cut] ** 2).mean())
    assert content["metrics"]["psnr"]["per_image"] == pytest.approx(numbers, abs=1e-4)
    assert content["groups"]["psnr"]["5 frames"] == pytest.approx((numbers["0"] + numbers["3"]) / 2, abs=1e-4)
    assert content["run"]["options"]["protocol"] == "flash3d"
    assert content["run"]["judging"] == {"bootstrap": 0, "baseline": None, "border": 0.05}
    listed = call("gen", "--protocol=list").output
    assert "published    see the tables of the source" in listed
    assert "published    Flash3D 28.46, 0.899, 0.100 at 5 frames" in listed
    assert re.fullmatch("[0-9a-f]{64}", content["run"]["options"]["net"])
    assert read_pairs(tmp_path / "pairs.jsonl") == expected


def test_written_pairs_and_run_files_are_pair_lists(data: Path, table: Path, tmp_path: Path) -> None:
    first = json.loads((table / "gen.json").read_text())
    arguments = ("--metrics", "psnr", "--num", "3", "--write-pairs", tmp_path / "pairs.jsonl")
    result = protocol_run(data, tmp_path, "--pairs", table / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "table.json").read_text())["pairs"] == first["pairs"][:3]
    result = call("calc", "--images", table / "out", "--metrics=psnr", "--pairs", tmp_path / "pairs.jsonl", *NET[4:])
    assert "3 of 3 listed pairs are here" in result.output
    again = call(
        *("gen", *NET, "--data", data, "--pairs", tmp_path / "pairs.jsonl", "--metrics", "psnr"),
        *("--outdir", tmp_path / "again"),
    )
    assert again.exit_code == 0, again.output
    result = call("calc", "--images", tmp_path / "again", "--metrics=psnr", *NET[4:])
    assert "range: a list of pairs" in result.output


def test_compare_two_runs(data: Path, table: Path, tmp_path: Path) -> None:
    other = ("gen", *NET[:2], "--steps", "3", *NET[4:], "--metrics", "psnr", "--data", data, "--pairs", table / "out")
    result = call(*other, "--outdir", tmp_path / "b", "--write-pairs", tmp_path / "b.jsonl")
    assert result.exit_code == 0, result.output
    arguments = ("compare", table / "out", tmp_path / "b", "--metrics=psnr", "--device=cpu", "--workers=0")
    result = call(*arguments, "--json", tmp_path / "compared.json", "--outdir", tmp_path / "pictures")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "pictures" / "differences.png").exists()
    content = json.loads((tmp_path / "compared.json").read_text())
    assert content["changed"]["num_steps"] == [1, 3]
    assert "num_steps 1, 3" in result.output
    (found,) = content["metrics"]
    psnrs = [numbers(table / "gen.json")["psnr"]["per_image"][str(seed)] for seed in range(5)]
    others = [json.loads(line)["psnr"] for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert found["pairs"] == 5
    assert found["difference"] == pytest.approx(np.mean(others) - np.mean(psnrs), abs=1e-9)
    from_files = call("compare", table / "gen.json", tmp_path / "b.jsonl", "--device=cpu")
    assert from_files.exit_code == 0, from_files.output
    assert f"{found['difference']:+.4f}" in from_files.output
    assert "pictures need the folders" in call(*arguments[:2], tmp_path / "b.jsonl", "--outdir", tmp_path).output


def test_statistics_of_a_data_set_are_those_of_its_pictures(data: Path, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    with Image.open(table / "out" / "tgt_000000.png") as picture:
        side = picture.width
    where = ("--data", data, "--range-selection=3-8", "--num=5", f"--resolution={side}", "--device=cpu", "--workers=0")
    for name, source in (("data", where), ("images", ("--images", table / "out", "--device=cpu", "--workers=0"))):
        result = call("ref", *source, "--dest", tmp_path / f"{name}.npz")
        assert result.exit_code == 0, result.output
    one, two = (load_reference(tmp_path / f"{name}.npz").moments["efficientnet"] for name in ("data", "images"))
    np.testing.assert_allclose(one.mean, two.mean, atol=1e-6)
    assert one.count == two.count == 5


def test_statistics_are_of_a_list_once(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    clips = sorted(path.stem for path in (data / "RealEstate10K" / "test").iterdir())
    write_pairs(tmp_path / "pairs.json", [FramePair(clip, 0, 4) for clip in clips])
    arguments = ("ref", "--data", data, "--pairs", tmp_path / "pairs.json", "--dest", tmp_path / "ref.npz")
    result = call(*arguments, "--num=10", "--resolution=32", "--device=cpu")
    assert f"statistics of {len(clips)} images" in result.output
    for options, message in (
        (("--generated", data), "give them as --target, or --images or --data"),
        (("--data", data, "--target", data), "Leave out --data, or --images and --target"),
    ):
        result = call("ref", *options, "--dest", tmp_path / "none.npz", "--device=cpu")
        assert (result.exit_code, message in result.output) == (2, True), result.output


def test_fid_is_said_to_be_left_out(data: Path) -> None:
    result = call("gen", *NET, "--data", data, "--range-selection", "3-8", "--num", 2)
    assert result.exit_code == 0, result.output
    assert "left out: fid: 2 images are fewer than the 2048 features" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "mid"], "there is no protocol 'mid'; known are vivid-mid"),
        (["--protocol", "vivid-mid", "--range-selection", "3-8"], "leave --range-selection out"),
        (["--protocol", "vivid-mid"], "longer clips"),
        (["--protocol", "pixelsplat"], "give pairs"),
    ],
)
def test_bad_protocols_are_one_line(arguments: list[str], message: str, data: Path) -> None:
    test_bad_input_is_one_line(arguments, message, data)
