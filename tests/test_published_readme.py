"""The command lines that the published system's README promises, each as it stands there, cut small behind it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click import Command
from click.testing import Result

import calculate_metrics
import generate_images
import train_nvs
from datasets.synthetic import SyntheticClips, write_tree
from tests.golden import DATA, tiny_network
from tests.scripts import error_of, run_python, succeed
from training.model_io import save_network

RELEASED = "https://ml-site.cdn-apple.com/models/vivid/"
EXPANDED = (
    f"--net={RELEASED}vivid-base.pkl --gnet={RELEASED}vivid-uncond.pkl --sr-model={RELEASED}vivid-sr.pkl "
    "--guidance=1.5 --range-selection mid"
)
SCRIPTS: dict[str, Command] = {
    "generate_images.py": generate_images.main,
    "calculate_metrics.py": calculate_metrics.main,
    "train_nvs.py": train_nvs.main,
}
QUICK = "--steps=1 --device=cpu"
SMALL = "--channels=8 --channels-per-head=8 --blocks=1 --duration=2 --batch=2 --workers=0 --device=cpu"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What stands in for the released files, which cannot be fetched here, by address."""
    sr = tmp_path_factory.mktemp("weights") / "sr.safetensors"
    net = tiny_network(img_resolution=256, super_res=True, channel_mult=[1, 1, 1, 1, 2], attn_resolutions=[])
    save_network(sr, net)
    return {
        f"{RELEASED}vivid-base.pkl": DATA / "released-layout-base.pkl",
        f"{RELEASED}vivid-uncond.pkl": DATA / "released-layout-uncond.pkl",
        f"{RELEASED}vivid-sr.pkl": sr,
    }


@pytest.fixture(scope="module")
def published_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/`, laid out as that README says."""
    root = tmp_path_factory.mktemp("published")
    for split in ("train", "test"):
        write_tree(root / "data", split, SyntheticClips(split, 2, frames=64, width=80, height=64))
    singles = root / "data" / "SingleImages"
    singles.mkdir()
    frame = next((root / "data" / "train").glob("*/*.png"))
    shutil.copy(frame, singles / "6134661.png")
    return root


@pytest.fixture(autouse=True)
def there(published_tree: Path, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").symlink_to(published_tree / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dnnlib.download.download", lambda address, *_, **__: weights[address])


def run(line: str, cut: str) -> Result:
    """``python SCRIPT ARGUMENTS``, with options behind them that make it small."""
    script, *arguments = shlex.split(line)[1:]
    return succeed(SCRIPTS[script], *arguments, *shlex.split(cut))


@pytest.mark.parametrize("options", ["--preset=vivid", EXPANDED])
def test_sampling_and_the_metrics_of_what_was_sampled(options: str, tmp_path: Path) -> None:
    run(f"python generate_images.py {options} --outdir=out", f"--seeds=0,1 {QUICK}")
    images = json.loads((tmp_path / "out" / "run.json").read_text())["images"]
    assert all(30 <= image["gap"] < 60 for image in images)
    assert {path.name for path in (tmp_path / "out").glob("sample_*")} == {"sample_000000.png", "sample_000001.png"}
    table = run("python calculate_metrics.py calc --images=out", "--device=cpu --workers=0").output
    assert "psnr" in table.lower()


def test_metrics_on_the_spot() -> None:
    table = run(f"python calculate_metrics.py gen --num 10000 {EXPANDED}", f"--num 2 {QUICK} --workers=0").output
    assert "psnr" in table.lower()


def test_under_torchrun_it_wants_two_dashes() -> None:
    """torchrun takes `--num` for an abbreviation of its own options: README and help show the form that works."""
    root = Path(calculate_metrics.__file__).parent
    done = run_python("calculate_metrics.py", "gen", "--num", "10000", "--help", processes=2)
    assert done.returncode == 0, done.stderr
    assert "torchrun --nproc_per_node=8 -- calculate_metrics.py gen" in (root / "README.md").read_text()
    assert "-- calculate_metrics.py gen" in succeed(calculate_metrics.main, "--help").output


@pytest.mark.parametrize("preset", ["vivid-base", "vivid-sr", "vivid-uncond"])
def test_training(preset: str, tmp_path: Path) -> None:
    small = SMALL + (" --resolution=64" if preset == "vivid-sr" else " --resolution=16 --attn-resolutions=8")
    run(f"python train_nvs.py --preset={preset}", small + " --single-image-mix=0.5")
    folder = tmp_path / "runs" / preset
    assert list(folder.glob("network-snapshot-*"))
    assert (folder / "training_options.json").exists()


def test_training_without_a_preset_asks_for_a_folder() -> None:
    assert "--outdir is missing" in error_of(train_nvs.main, "--device=cpu")
