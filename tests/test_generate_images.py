from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from datasets.synthetic import SyntheticClips, write_tree
from generate_images import main
from tests.golden import DATA
from tests.scripts import error_of, invoke, run_python

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ["--net", str(DATA / "released-layout-base.pkl"), "--gnet", str(DATA / "released-layout-uncond.pkl")]
FAST = ["--guidance", "1.5", "--range-selection", "3-8", "--steps", "1", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_tree(root, "test", SyntheticClips("test", 3, frames=12, width=112, height=63))
    return root


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    result = run(*NETWORKS, *FAST, "--data", str(data), "--seeds", "0-3", "--outdir", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def run(*arguments: str) -> Result:
    return invoke(main, *arguments)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in sorted(folder.rglob("*_0*.png"))}


def test_writes_the_published_names_a_sheet_and_a_record(out: Path, data: Path) -> None:
    expected = {f"{kind}_{seed:06d}.png" for kind in ("src", "sample", "tgt") for seed in range(4)}
    assert {path.name for path in out.iterdir()} == expected | {"sheet.png", "run.json", ".run.lock"}
    assert all(picture.shape == (64, 64, 3) for picture in pictures(out).values())
    record = json.loads((out / "run.json").read_text())
    assert record["options"]["guidance"] == 1.5
    assert record["options"]["num_steps"] == 1
    assert len(record["options"]["net"]) == 64  # SHA-256 of the checkpoint
    assert record["options"]["dtype"] == "float32"
    assert record["versions"]["torch"]
    assert [image["seed"] for image in record["images"]] == [0, 1, 2, 3]
    for image in record["images"]:
        assert 3 <= image["gap"] < 8
        assert image["gap"] == abs(image["source_index"] - image["target_index"])
        assert len(image["source_camera"]) == len(image["target_camera"]) == 18


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_computes_in_what_the_processor_multiplies_fast(
    supported: bool, dtype: str, out: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: supported)
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--seeds", "0", "--outdir", str(tmp_path), "--dtype", "auto"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run.json").read_text())["options"]["dtype"] == dtype
    exact, fast = (pictures(folder)["sample_000000.png"] for folder in (out, tmp_path))
    assert np.abs(exact - fast).mean() < 1  # of 255


def test_running_again_makes_nothing_and_finishes_what_is_missing(out: Path, data: Path) -> None:
    before = pictures(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("sample_*.png")}
    (out / "sample_000002.png").unlink()
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--seeds", "0-3", "--outdir", str(out)]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    for path, time in times.items():
        assert (path.stat().st_mtime_ns == time) == (path.name != "sample_000002.png")
    after = pictures(out)
    assert before.keys() == after.keys()
    assert all(np.abs(before[name] - after[name]).max() <= 1 for name in before)


def test_another_experiment_in_the_same_folder_is_refused_unless_asked_for(out: Path, data: Path) -> None:
    other = [*NETWORKS, *FAST, "--data", str(data), "--seeds", "0", "--outdir", str(out), "--guidance", "2"]
    result = run(*other)
    assert result.exit_code == 2
    assert "holds a run with guidance 1.5, this one has 2.0: give --overwrite or another --outdir" in result.output


def test_solver_and_guidance_interval(out: Path, data: Path, tmp_path: Path) -> None:
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--seeds", "0", "--guidance-interval", "0.1", "inf"]
    result = run(*arguments, "--solver", "dpmpp_2m", "--outdir", str(tmp_path))
    assert result.exit_code == 0, result.output
    options = json.loads((tmp_path / "run.json").read_text())["options"]
    assert (options["solver"], options["guidance_interval"]) == ("dpmpp_2m", [0.1, "inf"])
    again = run(*arguments, "--outdir", str(tmp_path))
    assert again.exit_code == 2
    assert "holds a run with solver dpmpp_2m, this one has heun" in again.output


def test_a_folder_from_before_there_was_a_choice_goes_on(out: Path, data: Path) -> None:
    run_file = out / "run.json"
    content = json.loads(run_file.read_text())
    del content["options"]["solver"], content["options"]["guidance_interval"]
    run_file.write_text(json.dumps(content))
    result = run(*NETWORKS, *FAST, "--data", str(data), "--seeds", "0-3", "--outdir", str(out))
    assert result.exit_code == 0, result.output


def test_subdirs_and_super_resolution(data: Path, tmp_path: Path) -> None:
    import torch

    from training.model_io import save_network
    from training.precond import NVPrecond

    torch.manual_seed(0)
    small = dict(model_channels=8, channel_mult=[1, 1], num_blocks=1, attn_resolutions=[], channels_per_head=8)
    save_network(tmp_path / "sr.safetensors", NVPrecond(img_resolution=128, super_res=True, **small))
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--sr-model", str(tmp_path / "sr.safetensors")]
    result = run(*arguments, "--seeds", "999,1000", "--subdirs", "--outdir", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    for name in ("000000/sample_000999.png", "001000/sample_001000.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (128, 128)


def test_two_processes_make_the_same_pictures(out: Path, data: Path, tmp_path: Path) -> None:
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--seeds", "0-3", "--outdir", str(tmp_path)]
    done = run_python("generate_images.py", *arguments, processes=2)
    assert done.returncode == 0, done.stderr
    one, two = pictures(out), pictures(tmp_path)
    assert one.keys() == two.keys()
    for name in one:
        assert np.abs(one[name] - two[name]).max() <= 1
    records = [json.loads((folder / "run.json").read_text())["images"] for folder in (out, tmp_path)]
    assert records[0] == records[1]


def torn(data: Path, out: Path, folder: Path, seed: int) -> tuple[Path, Path]:
    """A copy of the data in which the target frame of a seed is half a file; that frame."""
    shutil.copytree(data, folder)
    image = json.loads((out / "run.json").read_text())["images"][seed]
    frames = sorted((folder / "test" / image["clip"]).iterdir(), key=lambda frame: int(frame.stem))
    frame = frames[image["target_index"]]
    frame.write_bytes(frame.read_bytes()[:100])
    return folder, frame


@pytest.mark.parametrize("processes", [1, 2])
def test_a_torn_frame_costs_its_own_images_only(processes: int, out: Path, data: Path, tmp_path: Path) -> None:
    broken, frame = torn(data, out, tmp_path / "data", 2)
    arguments = ["--data", str(broken), "--seeds", "0-3", "--outdir", str(tmp_path / "out")]
    done = run_python("generate_images.py", *NETWORKS, *FAST, *arguments, processes=processes)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert " of 4 failed: " in line
    assert "seed 2: " in line
    assert frame.name in line
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    failed = {int(seed) for seed in record["failed"]}
    assert [image["seed"] for image in record["images"]] == [seed for seed in range(4) if seed not in failed]
    assert (tmp_path / "out" / "sheet.png").exists()

    shutil.copy(data / frame.relative_to(broken), frame)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("sample_*.png")}
    assert run(*NETWORKS, *FAST, *arguments).exit_code == 0
    one, two = pictures(out), pictures(tmp_path / "out")
    assert one.keys() == two.keys()
    assert all(np.abs(one[name] - two[name]).max() <= 1 for name in one)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert "failed" not in json.loads((tmp_path / "out" / "run.json").read_text())


def test_batch_auto_says_its_number_and_changes_no_picture(
    out: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    arguments = ["--data", str(data), "--seeds", "0-3", "--batch", "auto", "--outdir", str(tmp_path)]
    result = run(*NETWORKS, *FAST, *arguments)
    assert result.exit_code == 0, result.output
    assert "batch auto: 4 images at once" in caplog.text
    one, two = pictures(out), pictures(tmp_path)
    assert all(np.abs(one[name] - two[name]).max() <= 1 for name in one)


def test_estimate_makes_nothing_and_needs_neither_data_nor_folder(tmp_path: Path) -> None:
    arguments = ["--guidance", "1.5", "--steps", "3", "--device", "cpu", "--data", "/nonexistent", "--seeds", "0-99"]
    result = run(*NETWORKS, *arguments, "--estimate", "--batch", "2", "--outdir", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out").exists()
    head, *rows = [line.split() for line in result.stdout.splitlines()]
    assert head[2:] == ["parameters", "evaluations", "GFLOP", "seconds"]
    table = {row[0]: row[1:] for row in rows}
    assert [table[role][1] for role in ("net", "gnet", "all")] == ["5", "5", "10"]  # Heun: 2 * 3 - 1
    assert "at batch 2" in " ".join(table["memory"])
    assert re.fullmatch(r"\d+,", table["fits"][1])
    assert " ".join(table["in"]).startswith("all 100 images: ")


def test_the_folder_is_asked_for() -> None:
    result = run(*NETWORKS, *FAST)
    assert result.exit_code == 2
    assert "--outdir is missing" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--net", "nothing.pkl"], "nothing.pkl does not exist"),
        (["--batch", "0"], "--batch"),
        (["--batch", "all"], "--batch"),
        (["--preset", "vivit"], "there is no preset 'vivit'"),
        (["--data", "/nonexistent"], "/nonexistent"),
        (["--split", "validation"], "validation"),
        (["--range-selection", "30-60"], "3 too short for gap 30-60"),
        (["--range-selection", "near"], "no range of frame gaps"),
        (["--seeds", "5-1"], "runs backwards"),
        (["--steps", "0"], "--steps"),
        (["--solver", "rk4"], "--solver"),
        (["--solver", "dpmpp_2m", "--S_churn", "1"], "leave out --S_churn"),
        (["--guidance-interval", "2", "1"], "is empty"),
        (["--sigma_min", "0"], "--sigma_min must be in (0, inf)"),
        (["--sigma_max", "inf"], "--sigma_max must be in (0, inf)"),
        (["--rho", "nan"], "--rho must be in (0, inf)"),
        (["--guidance", "inf"], "--guidance must be in (-inf, inf)"),
        (["--sigma_min", "90"], "is above --sigma_max 80: give a lower one"),
        (["--device", "tpu9"], "tpu9"),
        (["--device", "mps"], "not available"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, data: Path, tmp_path: Path) -> None:
    base = [*NETWORKS, *FAST, "--data", str(data), "--outdir", str(tmp_path / "out")]
    result = run(*base, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert result.output.count("Error: ") == 1
    assert not list(tmp_path.rglob("*.png"))


def test_guidance_without_a_guidance_network_is_refused(data: Path, tmp_path: Path) -> None:
    arguments = [*NETWORKS[:2], *FAST, "--data", str(data), "--outdir", str(tmp_path / "out")]
    result = run(*arguments)
    assert result.exit_code == 2
    assert "guidance 1.5 needs a guidance network: give --gnet, or --guidance 1" in result.output
    assert not (tmp_path / "out").exists()


def test_two_runs_at_once_into_one_folder_tell_of_all_pictures(data: Path, tmp_path: Path) -> None:
    """As array jobs do."""
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--outdir", str(tmp_path)]
    with ThreadPoolExecutor() as pool:
        both = pool.map(lambda seeds: run_python("generate_images.py", *arguments, "--seeds", seeds), ("0-1", "2-3"))
    assert [done.returncode for done in both] == [0, 0]
    record = json.loads((tmp_path / "run.json").read_text())
    assert [image["seed"] for image in record["images"]] == [0, 1, 2, 3]


def test_an_interrupted_run_is_known_for_what_it_is(out: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    run_file = folder / "run.json"
    content = json.loads(run_file.read_text())
    records, content["images"] = content["images"], []  # as it was before the first batch
    run_file.write_text(json.dumps(content))
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--seeds", "0-3", "--outdir", str(folder)]
    assert run(*arguments, "--dtype", "bfloat16").exit_code == 2
    assert run(*arguments).exit_code == 0
    assert json.loads(run_file.read_text())["images"] == records


def test_pictures_of_other_data_are_refused(out: Path, tmp_path: Path, data: Path) -> None:
    """Data that have grown since give other pairs for the same seeds."""
    grown = tmp_path / "data"
    write_tree(grown, "test", SyntheticClips("test", 5, frames=12, width=112, height=63))
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    run_file = folder / "run.json"
    content = json.loads(run_file.read_text())
    content["options"]["data"] = str(grown)
    run_file.write_text(json.dumps(content))
    result = run(*NETWORKS, *FAST, "--data", str(grown), "--seeds", "0-3", "--outdir", str(folder))
    assert result.exit_code == 2
    assert "they have changed since; give --overwrite or another --outdir" in result.output


def test_samples_that_are_not_finite_are_failures(data: Path, tmp_path: Path) -> None:
    import torch

    from training.model_io import load_network, save_network

    net = load_network(str(DATA / "released-layout-uncond.pkl"))
    with torch.no_grad():
        next(net.parameters()).fill_(3e38)
    save_network(tmp_path / "broken.safetensors", net)
    arguments = ["--range-selection", "3-8", "--steps", "1", "--dtype", "float32", "--data", str(data)]
    result = run("--net", str(tmp_path / "broken.safetensors"), *arguments, "--seeds", "0,1", "--outdir", str(tmp_path))
    assert result.exit_code == 1, result.output
    assert "2 of 2 failed: seed 0: the sample is not finite" in result.output
    assert not list(tmp_path.glob("sample_*"))


def test_a_pair_list_takes_the_place_of_a_presets_range(data: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.json"
    pairs.write_text('[{"clip": "test-00001", "source": 2, "target": 7}]')
    arguments = ["--preset", "vivid-tiny", "--data", str(data), "--pairs", str(pairs), "--seeds", "0"]
    result = run(*arguments, "--outdir", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    (image,) = json.loads((tmp_path / "out" / "run.json").read_text())["images"]
    assert (image["clip"], image["source_index"], image["target_index"]) == ("test-00001", 2, 7)


def test_a_list_is_made_whole_unless_seeds_are_given(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the data do not have is counted and said."""
    caplog.set_level("INFO")
    rows = [{"clip": f"test-{clip:05d}", "source": 2, "target": 7} for clip in (1, 99, 0, 1, 1, 0, 1, 0, 1, 0, 1)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    arguments = [*NETWORKS, *FAST[:2], *FAST[4:], "--data", str(data), "--pairs", str(tmp_path / "pairs.json")]
    result = run(*arguments, "--outdir", str(tmp_path / "all"))
    assert result.exit_code == 0, result.output
    assert "10 images made" in caplog.text
    assert "skipped 1: 1 listed pairs of clips that are not here" in caplog.text
    assert len(json.loads((tmp_path / "all" / "run.json").read_text())["images"]) == 10
    assert "11 images" in run(*arguments, "--estimate").output  # for which no data are read
    run(*arguments, "--outdir", str(tmp_path / "some"), "--seeds", "9,10")
    assert "seeds from 10 on go through the list again" in caplog.text
    assert "2 images made" in caplog.text


def test_the_list_of_pairs_that_was_used_is_a_pair_list(data: Path, tmp_path: Path) -> None:
    from datasets.pairs import read_pairs

    listed = tmp_path / "pairs.jsonl"
    arguments = [*NETWORKS, *FAST, "--data", str(data), "--outdir", str(tmp_path / "out")]
    result = run(*arguments, "--seeds", "0-2", "--write-pairs", str(listed))
    assert result.exit_code == 0, result.output
    images = json.loads((tmp_path / "out" / "run.json").read_text())["images"]
    expected = [(image["clip"], image["source_index"], image["target_index"]) for image in images]
    assert read_pairs(listed) == read_pairs(tmp_path / "out") == expected


@pytest.mark.parametrize("nothing", ["", "none"])
def test_no_base_network_is_one_line(nothing: str, tmp_path: Path) -> None:
    message = error_of(main, f"--net={nothing}", "--image=nowhere.png", f"--outdir={tmp_path / 'out'}", "--device=cpu")
    assert "no base network" in message
