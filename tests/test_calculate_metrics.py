from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from calculate_metrics import main
from metrics import compute_metrics
from metrics.reference import load_reference
from tests.metrics.scenes import noisy, synthetic_pairs, views_of, write_run
from tests.scripts import invoke, run_python
from torch_utils.batches import Pair

ROOT = Path(__file__).resolve().parents[1]
COMMON = ("--device=cpu", "--workers=0")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return synthetic_pairs(6)


@pytest.fixture
def run(pairs: list[Pair], tmp_path: Path) -> Path:
    return write_run(tmp_path / "out", pairs, noisy(views_of(pairs).target, 12))


def call(*args: str | Path) -> Result:
    return invoke(main, *args)


def error_of(*args: str | Path) -> str:
    """The one line of a command that fails."""
    result = call(*args, *COMMON)
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def test_calc_needs_nothing_but_the_images(run: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """The numbers of the saved 8-bit images are those of the images; baseline, pairs and networks are named."""
    result = call("calc", f"--images={run}", f"--json={tmp_path / 'table.json'}", "--batch=4", *COMMON)
    assert result.exit_code == 0, result.output
    assert re.search(r"psnr ↑ +\d+\.\d\d ± \d\.\d\d +\d+\.\d\d ± \d\.\d\d +– +6\n", result.stdout)
    for fact in ("images: 6 of 64x64 pixels", "range: 5-15", "seeds: 0-5", "lpips (v0.1, AlexNet)", "SHA-256 ac3e78f"):
        assert fact in result.stdout
    assert "left out: fd_efficientnet" in result.stdout

    table = json.loads((tmp_path / "table.json").read_text())
    views = views_of(pairs)
    images = noisy(views.target, 12), views.target, views.source
    expected = compute_metrics(*images, metrics=("psnr", "ssim", "lpips", "tsed"), cameras=views.cameras)
    found = {name: row["generated"] for name, row in table["metrics"].items()}
    assert found == pytest.approx(expected, rel=1e-6)
    copied = compute_metrics(views.source, views.target)
    assert {name: table["metrics"][name]["copy_source"] for name in copied} == pytest.approx(copied, rel=1e-6)
    assert list(table["metrics"]["psnr"]["per_image"]) == [str(seed) for seed in range(6)]


def test_chosen_metrics_of_some_images_without_run_file(run: Path) -> None:
    (run / "run.json").unlink()
    result = call("calc", f"--images={run}", "--metrics=psnr,ssim,psnr", "--num=3", "--seed=1", *COMMON)
    assert result.exit_code == 0, result.output
    assert "images: 3 of" in result.stdout
    assert "range: unknown" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[1:3]] == ["psnr", "ssim"]
    result = call("calc", f"--images={run}", *COMMON)
    assert "left out: tsed needs run.json" in result.stdout


def test_reference_statistics(run: Path, dinov2: Path, tmp_path: Path) -> None:
    reference = tmp_path / "ref.npz"
    weights = f"--weights=dinov2={dinov2}"
    names = "--metrics=fd_dinov2,joint_fd_dinov2"
    made = call("ref", f"--images={run}", names, f"--dest={reference}", weights, *COMMON)
    assert made.exit_code == 0, made.output
    assert {name: moments.count for name, moments in load_reference(reference).moments.items()} == {
        "dinov2": 6,
        "joint_dinov2": 6,
    }
    tables = []
    for number, extra in enumerate(([], [f"--ref={reference}"])):
        file = tmp_path / f"{number}.json"
        result = call("calc", f"--images={run}", names, weights, "--allow-few", f"--json={file}", *extra, *COMMON)
        assert result.exit_code == 0, result.output
        tables.append(json.loads(file.read_text())["metrics"])
    for name in ("fd_dinov2", "joint_fd_dinov2"):
        assert tables[1][name]["generated"] == pytest.approx(tables[0][name]["generated"], rel=1e-6)
        assert "fewer than the" in tables[1][name]["note"]


def test_show(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = tmp_path / "pictures"
    result = call("show", f"--images={run}", "--metrics=psnr,tsed", f"--outdir={folder}", *COMMON)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["gaps.png", "samples.png"]
    (run / "run.json").unlink()
    result = call("show", f"--images={run}", "--metrics=psnr", f"--outdir={tmp_path / 'more'}", *COMMON)
    assert result.exit_code == 0, result.output
    assert "no run.json" in result.stderr
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["samples.png"]


def test_bad_images(run: Path, tmp_path: Path) -> None:
    assert "there is no folder or zip file" in error_of("calc", f"--images={tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    assert "holds neither images of generate_images" in error_of("calc", f"--images={tmp_path / 'empty'}")
    broken = run / "sample_000003.png"
    broken.write_bytes(broken.read_bytes()[:100])
    assert "sample_000003.png is not a whole image" in error_of("calc", f"--images={run}", "--metrics=psnr")
    (run / "tgt_000002.png").unlink()
    assert "lacks tgt_000002.png" in error_of("calc", f"--images={run}")
    assert "lacks tgt_000002.png" in error_of("show", f"--images={run}")
    assert "lacks tgt_000002.png" in error_of("ref", f"--images={run}", f"--dest={tmp_path / 'r.npz'}")


def test_bad_options(run: Path, dinov2: Path, tmp_path: Path) -> None:
    images = f"--images={run}"
    weights = f"--weights=dinov2={dinov2}"
    assert "no metric 'fld'; known are psnr, ssim" in error_of("calc", images, "--metrics=psnr,fld")
    assert "name one or more" in error_of("calc", images, "--metrics=,")
    assert "6 images are fewer than the 32 features" in error_of("calc", images, "--metrics=fd_dinov2", weights)
    one = ("--metrics=kid_dinov2", "--num=1", weights)
    assert "needs two or more, not 1" in error_of("calc", images, *one)
    assert "no NAME=PATH" in error_of("calc", images, "--weights=dinov2")
    assert "holds 6 images, not the 7 asked for" in error_of("calc", images, "--num=7")
    assert "there is no reference file" in error_of("calc", images, "--metrics=psnr", f"--ref={tmp_path / 'r.npz'}")
    np.savez(tmp_path / "r.npz", mean=np.zeros(3))
    assert "is no reference file" in error_of("calc", images, "--metrics=psnr", f"--ref={tmp_path / 'r.npz'}")
    assert "no statistics for psnr" in error_of("ref", images, "--metrics=psnr", f"--dest={tmp_path / 's.npz'}")
    assert "no number for a single image" in error_of("show", images, "--metrics=fid")
    assert "unknown device" in call("calc", images, "--device=abacus").stderr
    (run / "run.json").unlink()
    assert "tsed needs the cameras" in error_of("calc", images, "--metrics=tsed")


def test_two_processes_give_the_same(run: Path, dinov2: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    options = ["calc", f"--images={run}", "--metrics=psnr,tsed,fd_dinov2,kid_dinov2", f"--weights=dinov2={dinov2}"]
    options += ["--allow-few", "--batch=2", *COMMON]
    assert call(*options, f"--json={tmp_path / '1.json'}").exit_code == 0
    command = ["calculate_metrics.py", *options, f"--json={tmp_path / '2.json'}"]
    done = run_python(*command, processes=2, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seeds: 0-5") == 1  # one process speaks
    one, two = (json.loads((tmp_path / f"{count}.json").read_text()) for count in (1, 2))
    for name, row in one["metrics"].items():
        assert two["metrics"][name]["per_image"] == row["per_image"]
        assert two["metrics"][name]["generated"] == pytest.approx(row["generated"], rel=1e-6)


def test_help() -> None:
    for command in ("calc", "ref", "show"):
        help_text = call(command, "--help").stdout
        for name in ("--images", "--num", "--seed", "--batch", "--workers", "--metrics", "--device", "--weights"):
            assert name in help_text
