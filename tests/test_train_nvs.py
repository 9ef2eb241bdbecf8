"""The command line: presets, precedence, dry runs, jobs of several machines, and what it says when it cannot go on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import train_nvs
from datasets.synthetic import SyntheticClips, write_chunks
from presets import TRAINING
from tests.scripts import TINY_OPTIONS
from tests.training.runs import final_tensors, losses, relative_difference, write_data
from train_nvs import earlier_precision
from training.config import TrainingConfig
from training.model_io import read_metadata

ROOT = Path(__file__).resolve().parent.parent
_64 = {"batch": 1024, "model_channels": 128, "lr": 0.012, "img_resolution": 64, "extra_attn": 1}
PUBLISHED = {  # docs/method.md, section 7.4
    "vivid-base": {"duration": 2**30, "uncond": False, "super_res": False, **_64},
    "vivid-uncond": {"duration": 2**29, "uncond": True, "super_res": False, **_64},
    "vivid-sr": {"duration": 2**28, "batch": 128, "model_channels": 64, "lr": 0.020, "img_resolution": 256}
    | {"uncond": False, "super_res": True, "noisy_sr": 0.25, "extra_attn": None},
}
TINY = [*TINY_OPTIONS, "--batch=4", "--lr=0.02", "--decay=4", "--ramp-up=8", "--workers=0", "--device=cpu"]
TINY += ["--status=4", "--checkpoint=8", "--snapshot=16", "--no-bf16"]  # runs are compared to the bits of float32


def config_of(*arguments: str, device: str = "cpu") -> TrainingConfig:
    options = train_nvs.main.make_context("train_nvs", list(arguments)).params
    return train_nvs.make_config(options, device)


def value_of(config: TrainingConfig, name: str) -> Any:
    return getattr(config.network if hasattr(config.network, name) else config, name)


def run(*arguments: str | Path) -> int:
    """Exit code of the command line in this process."""
    with pytest.raises(SystemExit) as exit_status:
        train_nvs.main([str(argument) for argument in arguments])
    return exit_status.value.code or 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_presets(preset: str) -> None:
    config = config_of(f"--preset={preset}")
    expected = {"decay": 35000, "P_mean": -0.8, "P_std": 1.6, "ramp_up": 10_000_000, "ema_stds": (0.05, 0.10)}
    expected |= {"perceptual": 0, "plane_matching": False, "init": None}
    expected |= PUBLISHED[preset]
    assert {name: value_of(config, name) for name in expected} == expected


@pytest.mark.parametrize("preset", TRAINING)
def test_every_preset_is_complete(preset: str) -> None:
    """Its network can be built; on the meta device, where that costs nothing."""
    import torch

    config = config_of(f"--preset={preset}")
    with torch.device("meta"):
        net = config.build_network()
    assert net.arguments.uncond == ("uncond" in preset)
    assert net.super_res == ("sr" in preset)


def test_option_beats_preset_beats_default() -> None:
    assert config_of().batch == TrainingConfig.batch
    assert config_of("--preset=vivid-sr").lr == 0.020
    assert config_of("--preset=vivid-sr", "--lr=0.5").lr == 0.5
    assert config_of("--lr=0.5", "--preset=vivid-sr").lr == 0.5
    assert config_of("--preset=vivid-uncond").network.uncond
    assert not config_of("--preset=vivid-uncond", "--cond").network.uncond
    assert not config_of("--base-training", "--preset=vivid-sr").network.super_res


def test_defaults_are_those_of_the_config() -> None:
    config = config_of("--no-bf16")
    fields = [field for field in dataclasses.fields(TrainingConfig) if field.name != "network"]
    assert {field.name: getattr(config, field.name) for field in fields} == {
        field.name: field.default for field in fields
    }


@pytest.mark.parametrize(
    ("arguments", "device", "precision"),
    [
        ([], "cuda", "float16"),
        (["--no-bf16"], "cpu", "float32"),
        (["--no-fp16"], "cuda", "float32"),
        (["--bf16"], "cpu", "bfloat16"),
        (["--bf16"], "cuda", "bfloat16"),
    ],
)
def test_precision(arguments: list[str], device: str, precision: str) -> None:
    assert config_of(*arguments, device=device).precision == precision


@pytest.mark.parametrize("fast", [torch.bfloat16, None])
def test_default_precision_is_what_the_processor_is_made_for(
    fast: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_utils.distributed.fast_dtype", lambda device: fast if device == "cpu" else None)
    assert config_of().precision == ("bfloat16" if fast else "float32")
    assert config_of(device="cuda").precision == "float16"


def test_a_run_goes_on_in_the_precision_it_began_with(tmp_path: Path) -> None:
    options = {"fp16": True, "bf16": None}
    assert earlier_precision(options, tmp_path) is None
    (tmp_path / "training_options.json").write_text('{"precision": "float32"}')
    assert earlier_precision(options, tmp_path) == "float32"
    assert earlier_precision({**options, "bf16": True}, tmp_path) is None


def test_dry_run_needs_no_data_and_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--preset=vivid-uncond", *TINY, "--data=nowhere", "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["preset"] == "vivid-uncond"
    assert plan["config"]["network"]["uncond"] is True
    assert plan["config"]["batch"] == 4
    assert set(plan["estimate"]) >= {"parameters", "gib_per_process", "images_per_second_estimate"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--outdir is missing"),
        (["--preset=vivid"], "no preset 'vivid'; known are vivid-base"),
        (["--outdir=/proc/vivid"], "cannot write to /proc/vivid"),
        (["--outdir={tmp}/run", "--data=nowhere"], "there is no data folder"),
        (["--outdir={tmp}/run", "--single-image-mix=1"], "--single-image-mix must be in [0, 1), but is 1.0"),
        (["--outdir={tmp}/run", "--single-image-mix=0.5", "--single-image-data={tmp}/none"], "{tmp}/none"),
        (["--outdir={tmp}/run", "--sr-model=none"], "network none does not exist"),
        (["--outdir={tmp}/run", "--batch-gpu=0"], "--batch-gpu must be in [1, inf), but is 0"),
    ],
)
def test_one_line_and_exit_code_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert run(f"--data={data}", *TINY, *given) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message.replace("{tmp}", str(tmp_path)) in error


def test_metrics_and_sheets_through_super_resolution(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A super-resolution network is trained and judged; then it stands behind a base network in training.

    The clips have 8 frames: no range that metrics are reported for selects any of them, which is said.
    """
    sr = [*TINY, "--sr-training", "--resolution=32", f"--data={data}", f"--outdir={tmp_path / 'sr'}", "--duration=16"]
    assert run(*sr, "--metrics=16", "--samples=16") == 0
    assert "no metrics for range mid" in (tmp_path / "sr" / "log.txt").read_text()
    network = tmp_path / "sr" / "network-snapshot-0000000.016-0.050.safetensors"
    longer = write_data(tmp_path / "longer", frames=70)
    base = [*TINY, f"--data={longer}", f"--outdir={tmp_path / 'base'}", "--duration=4", f"--sr-model={network}"]
    assert run(*base, "--metrics=4", "--metrics-num=2", "--samples=4") == 0
    lines = [json.loads(line) for line in (tmp_path / "base" / "stats.jsonl").read_text().splitlines()]
    metrics = lines[-1]
    assert 0 < metrics["psnr/mid"] < 50
    assert 0 < metrics["psnr/long"] < 50
    assert "fd_efficientnet/mid" not in metrics, "of two images"
    assert "metrics, left out: fd_efficientnet" in caplog.text


def torchrun(*arguments: str, outdir: Path, data: Path) -> subprocess.Popen:
    """A job of a few seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", *arguments, "train_nvs.py", *TINY]
    command += [f"--data={data}", f"--outdir={outdir}", "--duration=120", "--checkpoint=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with outdir.with_name(f"{outdir.name}.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def workers_of(job: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    return [int(child) for child in children.read_text().split()]


def wait_for_steps(outdir: Path, images: int) -> None:
    deadline = time.monotonic() + 240
    while not (outdir / "stats.jsonl").exists() or f'"images": {images},' not in (outdir / "stats.jsonl").read_text():
        assert time.monotonic() < deadline, outdir.with_name(f"{outdir.name}.txt").read_text()
        time.sleep(0.05)


def assert_finished(jobs: Sequence[subprocess.Popen], outdir: Path) -> None:
    try:
        codes = [job.wait(timeout=240) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    assert codes == [0] * len(jobs), outdir.with_name(f"{outdir.name}.txt").read_text()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds worker processes in /proc")
def test_torchrun_recovers_a_killed_worker(data: Path, tmp_path: Path) -> None:
    """On the same result as a run of one process that nobody kills."""
    outdir = tmp_path / "job"
    job = torchrun("--standalone", "--nproc-per-node=2", "--max-restarts=1", outdir=outdir, data=data)
    wait_for_steps(outdir, 8)
    os.kill(workers_of(job)[-1], signal.SIGKILL)
    assert_finished([job], outdir)
    assert (outdir / "log.txt").read_text().count("training goes on at") == 1
    alone = [*TINY, f"--data={data}", f"--outdir={tmp_path / 'alone'}", "--duration=120", "--checkpoint=4"]
    assert run(*alone) == 0
    assert relative_difference(losses(outdir), losses(tmp_path / "alone")) < 2e-5
    assert relative_difference(final_tensors(outdir), final_tensors(tmp_path / "alone")) < 2e-3


def test_two_machines_of_one_process(data: Path, tmp_path: Path) -> None:
    """They find each other through torchrun's c10d rendezvous, here both on the loopback."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"
    node = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=7", "--local-addr=127.0.0.1", where]
    jobs = [torchrun(*node, outdir=tmp_path / "job", data=data) for _ in range(2)]
    assert_finished(jobs, tmp_path / "job")
    assert "on 2 processes" in (tmp_path / "job" / "log.txt").read_text()
    assert len(losses(tmp_path / "job")) == 30


def test_a_perceptual_run_with_matched_planes_behind_a_base_network(tmp_path: Path, network: str) -> None:
    """From the command line to a snapshot; the same run without the one or the other goes another way."""
    write_chunks(tmp_path / "data", "train", SyntheticClips("train", 2, frames=4, width=32, height=32))
    options = ["--resolution=32", "--sr-training", "--plane-sweep=3", "--plane-matching", "--plane-nearest=0.4"]
    options += [f"--data={tmp_path / 'data'}", "--duration=8", "--perceptual-sigma=9"]
    for weight in (0, 0.5):
        assert run(*TINY, *options, f"--perceptual={weight}", f"--outdir={tmp_path / str(weight)}") == 0
    plain, perceptual = (losses(tmp_path / str(weight)) for weight in (0, 0.5))
    assert perceptual[4] > plain[4] + 0.01  # of a distance, which is not negative
    assert run(*TINY, *options, f"--base={network}", "--base-mix=1", f"--outdir={tmp_path / 'base'}") == 0
    assert losses(tmp_path / "base") != plain
    (snapshot, _) = sorted((tmp_path / "0.5").glob("network-snapshot-*.safetensors"))
    arguments, _ = read_metadata(snapshot)
    assert (arguments["plane_matching"], arguments["plane_nearest"]) == (True, 0.4)
