"""The loop: the same run on any number of processes, in any micro-batches, however often it is stopped or killed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import re
import resource
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datasets.config import open_pairs
from datasets.pairs import OwnPairs
from datasets.synthetic import SyntheticClips, write_tree
from dnnlib.imaging import save_png
from dnnlib.util import UserError
from tests.golden import TINY
from tests.training.runs import (
    Run,
    final_tensors,
    losses,
    relative_difference,
    state_names,
    tiny_config,
    write_data,
)
from torch_utils.batches import Batch, Pair, collate
from torch_utils.cameras import Camera, View
from torch_utils.distributed import Processes, start_processes
from torch_utils.random import SeededGenerators
from training.checkpoint import load_newest_state
from training.config import TrainingConfig
from training.generation import generate_images
from training.loss import NVLoss
from training.model_io import load_network, read_metadata, save_network
from training.precond import ARCHITECTURES, NVPrecond
from training.reporting import sample_sheet
from training.run_pairs import RunPairs
from training.training_loop import Trainer, train

# Sums over images in another order differ by float32 rounding, which Adam's division then amplifies a little.
LOSS_TOLERANCE = 2e-6
WEIGHT_TOLERANCE = 3e-4  # of Adam's second moments, where it is largest


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def processes() -> Processes:
    return start_processes("cpu")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    outdir = tmp_path_factory.mktemp("whole")
    assert Run(outdir, tiny_config(data)).wait() == [0]
    return outdir


def steps(config: TrainingConfig, processes: Processes, count: int = 4) -> Trainer:
    """A trainer after some steps."""
    trainer, pairs = Trainer(config, processes), open_pairs(config.training_pairs(), config.resolution)
    for _ in range(count):
        trainer.step(collate([pairs[number] for number in trainer.image_numbers(trainer.images)]))
    return trainer


def wait_for(condition: Callable[[], bool], timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def assert_same_run(outdir: Path, whole: Path) -> None:
    """Bit by bit the same losses, and the same weights, moments and averages in the end."""
    assert losses(outdir) == losses(whole)
    mine, reference = final_tensors(outdir), final_tensors(whole)
    assert mine.keys() == reference.keys()
    assert all(torch.equal(mine[name], reference[name]) for name in reference)


@pytest.mark.parametrize("batch_gpu", [1, 3])
def test_micro_batches_change_nothing(data: Path, processes: Processes, batch_gpu: int) -> None:
    one = steps(tiny_config(data), processes)
    many = steps(tiny_config(data, batch_gpu=batch_gpu), processes)
    assert torch.allclose(torch.stack(one.losses), torch.stack(many.losses), rtol=LOSS_TOLERANCE)
    assert relative_difference(many.net.state_dict(), one.net.state_dict()) < WEIGHT_TOLERANCE


def test_two_processes_are_one(data: Path, whole: Path, tmp_path: Path) -> None:
    """With micro-batches within each, too."""
    assert Run(tmp_path, tiny_config(data, batch_gpu=1), world_size=2).wait() == [0, 0]
    assert relative_difference(losses(tmp_path), losses(whole)) < LOSS_TOLERANCE
    assert relative_difference(final_tensors(tmp_path), final_tensors(whole)) < WEIGHT_TOLERANCE


def test_goes_on_with_another_number_of_processes(data: Path, whole: Path, tmp_path: Path) -> None:
    assert Run(tmp_path, tiny_config(data, duration=24), world_size=2).wait() == [0, 0]
    assert Run(tmp_path, tiny_config(data)).wait() == [0]
    assert relative_difference(losses(tmp_path), losses(whole)) < LOSS_TOLERANCE
    assert relative_difference(final_tensors(tmp_path), final_tensors(whole)) < WEIGHT_TOLERANCE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(
    data: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """No other checkpoint is due. A status line is the mean of three steps, also where the signal came in between."""
    config = tiny_config(data, checkpoint=None, status=12, workers=1)
    assert Run(tmp_path, config, signal_after=(number, 16)).wait() == [0]  # train_nvs.py gives it a code of its own
    assert load_newest_state(tmp_path)["images"] == 20
    assert "stopped by signal" in (tmp_path / "log.txt").read_text()
    assert Run(tmp_path, config).wait() == [0]
    every = losses(whole)
    assert losses(tmp_path) == {
        images: pytest.approx(np.mean([every[images - back] for back in (0, 4, 8)]), rel=1e-6)
        for images in (12, 24, 36, 48)
    }
    assert relative_difference(final_tensors(tmp_path), final_tensors(whole)) == 0


def test_kill_at_any_moment_loses_nothing_that_was_saved(data: Path, whole: Path, tmp_path: Path) -> None:
    moments, codes = random.Random(0), []
    for steps in (2, 5, 8):  # of 12, done before the kill
        run = Run(tmp_path, tiny_config(data))
        wait_for(lambda steps=steps: steps_told(tmp_path) >= steps)
        time.sleep(moments.uniform(0, 0.05))
        run.processes[0].kill()
        codes += run.wait()
    assert -signal.SIGKILL in codes  # on a busy machine a later run may be done before it is killed
    assert Run(tmp_path, tiny_config(data)).wait() == [0]
    assert_same_run(tmp_path, whole)
    assert state_names(tmp_path) == ["training-state-0000000.040.pt", "training-state-0000000.048.pt"]


def test_what_a_killed_process_was_writing_is_removed(data: Path, processes: Processes, tmp_path: Path) -> None:
    leftover = tmp_path / ".training-state-0000000.008.0123abcd.tmp.pt"
    leftover.write_bytes(b"half")
    train(tiny_config(data, duration=4), tmp_path, processes)
    assert not leftover.exists()


def steps_told(outdir: Path) -> int:
    stats = outdir / "stats.jsonl"
    return stats.read_text().count("\n") if stats.exists() else 0


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path: Path) -> None:
    """In the middle of a tensor, where the file still looks whole."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content[largest.header_offset + largest.file_size // 2 + 128] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_one_bit])
def test_a_damaged_state_is_passed_over_aloud(
    data: Path, whole: Path, processes: Processes, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    train(tiny_config(data, duration=24), tmp_path, processes)
    newest = tmp_path / state_names(tmp_path)[-1]
    damage(newest)
    train(tiny_config(data), tmp_path, processes)
    assert "damaged and passed over" in (tmp_path / "log.txt").read_text()
    assert_same_run(tmp_path, whole)


def test_a_snapshot_is_the_average_in_half_precision_but_for_its_fourier_features(whole: Path) -> None:
    name = "network-snapshot-0000000.048-0.100.safetensors"
    net = load_network(whole / name)
    average = load_newest_state(whole)["ema"]["0.1"]
    assert relative_difference(net.state_dict(), average) < 1e-3
    assert torch.equal(net.logvar_fourier.freqs, average["logvar_fourier.freqs"])
    assert load_file(whole / name)["unet.out_conv.weight"].dtype == torch.float16


def test_gradients_that_are_not_finite_are_replaced_and_counted(data: Path, processes: Processes) -> None:
    """One entry of one gradient is made NaN in each of 3 steps: it stays where it is, all else moves on."""
    trainer = Trainer(tiny_config(data, ramp_up=0), processes)
    weight = trainer.net.unet.out_conv.weight
    weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(0), float("nan")))
    start = {name: parameter.detach().clone() for name, parameter in trainer.net.named_parameters()}
    pairs = open_pairs(trainer.config.training_pairs(), trainer.config.resolution)
    for _ in range(3):
        trainer.step(collate([pairs[number] for number in trainer.image_numbers(trainer.images)]))
    assert int(trainer.nonfinite) == 3 * weight[0].numel()
    assert all(parameter.isfinite().all() for parameter in trainer.net.parameters())
    direction, before = weight.detach().flatten(1), start["unet.out_conv.weight"].flatten(1)
    cosine = torch.nn.functional.cosine_similarity(direction, before)
    assert cosine[0] > 1 - 1e-6 > cosine[1:].max()


def test_loss_scale_is_taken_out(data: Path, processes: Processes) -> None:
    plain, scaled = (steps(tiny_config(data, loss_scaling=scale), processes) for scale in (1.0, 1024.0))
    assert relative_difference(scaled.net.state_dict(), plain.net.state_dict()) < WEIGHT_TOLERANCE
    overflowing = steps(tiny_config(data, loss_scaling=3e38), processes)
    assert int(overflowing.nonfinite) > 0
    assert all(parameter.isfinite().all() for parameter in overflowing.net.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_close(data: Path, processes: Processes, precision: str) -> None:
    """Weights and their moments are float32 all the same; losses agree to the 8 bits of bfloat16, summed up."""
    exact = steps(tiny_config(data), processes)
    half = steps(tiny_config(data, precision=precision), processes)
    assert torch.allclose(torch.stack(half.losses), torch.stack(exact.losses), rtol=0.03)
    assert not torch.equal(torch.stack(half.losses), torch.stack(exact.losses))
    assert {parameter.dtype for parameter in half.net.parameters()} == {torch.float32}


@pytest.mark.parametrize("network", [{}, dict(super_res=True, img_resolution=32, plane_sweep=2)])
def test_a_compiled_step_is_the_same_step(
    data: Path, processes: Processes, network: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_part(part: torch.nn.Module, mode: str) -> None:  # the real one, without minutes of C++
        assert mode == "default"
        part._compiled_call_impl = torch.compile(part._call_impl, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_part)
    config = tiny_config(data, network, precision="bfloat16", batch_gpu=2)
    plain, compiled = (steps(dataclasses.replace(config, compile=fused), processes, 2) for fused in (False, True))
    torch.testing.assert_close(torch.stack(compiled.losses), torch.stack(plain.losses), rtol=1e-3, atol=0)
    assert relative_difference(compiled.net.state_dict(), plain.net.state_dict()) < 1e-2


def test_stored_weights_keep_their_length(data: Path, processes: Processes) -> None:
    """In a step, whatever the optimiser made of them before."""
    trainer = steps(tiny_config(data, ramp_up=0), processes)
    weight = trainer.net.unet.out_conv.weight
    with torch.no_grad():
        weight.mul_(3)
    seen = []
    trainer.loss = lambda net, batch, generators: seen.append(weight.detach().clone()) or weight.sum() * batch.target
    pairs = open_pairs(trainer.config.training_pairs(), trainer.config.resolution)
    trainer.step(collate([pairs[0]] * 4))
    assert float(seen[0].square().mean()) == pytest.approx(1, abs=1e-3)


def test_dropout_does_not_depend_on_what_was_drawn_before(data: Path, processes: Processes) -> None:
    config = tiny_config(data, dict(dropout=0.5))
    first = steps(config, processes)
    torch.rand(100)
    second, without = steps(config, processes), steps(tiny_config(data), processes)
    assert torch.equal(torch.stack(first.losses), torch.stack(second.losses))
    assert not torch.equal(torch.stack(first.losses), torch.stack(without.losses))


@pytest.mark.parametrize("network", [dict(uncond=True), dict(super_res=True, img_resolution=32)])
def test_other_kinds_of_network_with_photographs_sheets_and_metrics(
    data: Path, processes: Processes, tmp_path: Path, network: dict
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    save_png(tmp_path / "photos" / "noise.png", noise)
    config = tiny_config(
        data,
        network,
        duration=8,
        single_image_mix=0.5,
        single_image_data=str(tmp_path / "photos"),
        samples=8,
        metrics=8,
    )
    asked = []
    train(config, tmp_path, processes, evaluate=lambda net, selection, _: asked.append((net, selection)) or {"m": 1.5})
    assert [selection for _, selection in asked] == ["mid", "long"]
    assert not asked[0][0].training
    assert '"m/mid": 1.5, "m/long": 1.5' in (tmp_path / "stats.jsonl").read_text()
    assert (tmp_path / "samples-0000000.008.png").exists()
    assert np.isfinite(list(losses(tmp_path).values())).all()


def test_sample_sheet_of_a_cascade(data: Path) -> None:
    base, large = (
        tiny_config(data, network).build_network().eval() for network in ({}, dict(super_res=True, img_resolution=32))
    )
    pairs = RunPairs(tiny_config(data)).shown()
    small, cascade = (
        sample_sheet(pairs, base, count=1),
        sample_sheet(pairs, base, large, count=1),
    )
    assert (np.asarray(small) != np.asarray(cascade)).any()


def test_a_failing_process_ends_all_with_its_error(data: Path, tmp_path: Path) -> None:
    good = tiny_config(data, workers=1)
    bad = dataclasses.replace(good, data=str(tmp_path / "nowhere"))
    run = Run(tmp_path / "run", good, bad, world_size=2)
    codes = run.wait()
    assert None not in codes, "a process hangs"
    assert 0 not in codes
    assert "there is no data folder" in run.errors()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(data="nowhere"), "there is no data folder .*nowhere"),
        (dict(batch=8), "holds a run with other options .batch was 4 and is 8."),
        (dict(network=dict(depth_input=True), outdir="new"), "need source depth"),
        (dict(outdir="file"), "not a folder"),
        (dict(network=dict(img_resolution=17), outdir="new"), "no network can be built"),
    ],
)
def test_what_stands_against_a_run_is_said_in_one_line(
    data: Path, processes: Processes, tmp_path: Path, changes: dict, message: str
) -> None:
    train(tiny_config(data, duration=4), tmp_path, processes)
    (tmp_path / "file").touch()
    outdir = tmp_path / changes.pop("outdir", ".")
    with pytest.raises(UserError, match=message) as error:
        train(tiny_config(**{"data": data, **changes}), outdir, processes)
    assert "\n" not in str(error.value)


def test_full_disk_is_said_and_leaves_the_last_state(data: Path, processes: Processes, tmp_path: Path) -> None:
    """Files that may not grow beyond half a checkpoint stand for the disk."""
    train(tiny_config(data, duration=8), tmp_path, processes)
    (state,) = state_names(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / state).stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*training-state"):
            train(tiny_config(data, snapshot=None, duration=44), tmp_path, processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert state_names(tmp_path) == [state]
    assert load_newest_state(tmp_path)["images"] == 8


def test_a_run_starts_from_a_network(data: Path, processes: Processes, tmp_path: Path) -> None:
    """Its averages too; a later state of the run itself counts more, and other architectures are refused."""
    earlier = steps(tiny_config(data), processes, 2)
    file = tmp_path / "earlier.safetensors"
    save_network(file, earlier.net)
    trainer = Trainer(tiny_config(data, seed=7, init=str(file)), processes)
    for net in (trainer.net, *trainer.ema.averages):
        torch.testing.assert_close(net.state_dict(), earlier.net.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match="another architecture"):
        Trainer(tiny_config(data, {"model_channels": 16}, init=str(file)), processes)


def test_snapshots_carry_the_typical_depth_of_the_clips(
    data: Path, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("datasets.typical_depth.typical_depth", lambda pairs: seen.append(pairs) or 6.5)
    train(tiny_config(data, duration=32, snapshot=16), tmp_path, processes)
    found = [load_network(file).typical_depth for file in tmp_path.glob("network-snapshot-*.safetensors")]
    assert found == [6.5] * 4
    (pairs,) = seen  # measured once, at the size that the frames are stored in
    assert pairs.resolution is None


def test_a_second_run_in_the_folder_of_a_running_one_is_refused(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, duration=1 << 20, workers=1, snapshot=None)
    (tmp_path / "run").mkdir()
    first = Run(tmp_path / "run", config)
    try:
        wait_for(lambda: bool(state_names(tmp_path / "run")))
        leftover = tmp_path / "run" / ".training-state-0000999.000.0.tmp.pt"
        leftover.write_bytes(b"what the first is writing")
        second = Run(tmp_path / "run", config)
        assert second.wait() == [1]
        assert "another training is at work in" in second.errors()
        assert leftover.exists()
        os.kill(first.processes[0].pid, signal.SIGHUP)
        assert first.wait() == [0]
    finally:
        first.wait(0)


def test_a_loss_that_stays_not_finite_ends_the_run_with_the_checkpoint_kept(
    data: Path, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_finite(self: NVLoss, net: NVPrecond, batch: Batch, _: object) -> torch.Tensor:
        return batch.source * next(net.parameters()).sum() * math.nan

    train(tiny_config(data, duration=8), tmp_path, processes)
    before = {path: path.read_bytes() for path in tmp_path.glob("training-state-*")}
    monkeypatch.setattr(NVLoss, "__call__", not_finite)
    with pytest.raises(UserError, match=r"not finite in the last \d+ steps, .* the last checkpoint is kept"):
        train(tiny_config(data, duration=400), tmp_path, processes)
    assert {path: path.read_bytes() for path in tmp_path.glob("training-state-*")} == before


def test_a_frame_that_cannot_be_read_is_skipped_counted_and_said(
    tmp_path: Path, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    write_tree(tmp_path / "data", "train", SyntheticClips("train", 3, frames=8, width=16, height=16))
    torn = sorted((tmp_path / "data" / "train").glob("*/*.png"))[::6]
    for frame in torn:
        frame.write_bytes(frame.read_bytes()[:60])
    config = tiny_config(tmp_path / "data", duration=48)
    with caplog.at_level("WARNING"):
        assert train(config, tmp_path / "run", processes)
    assert 1 <= caplog.text.count("a pair is skipped: ") <= 5
    assert "is not a whole image" in caplog.text
    last = (tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["skipped_pairs"] > 0

    for frame in (tmp_path / "data" / "train").glob("*/*.png"):
        frame.write_bytes(b"")
    with pytest.raises(UserError, match=r"16 pairs in a row cannot be read, the last one because .*png"):
        train(config, tmp_path / "other", processes)


def test_metrics_break_off_and_what_was_done_is_saved_before(data: Path, tmp_path: Path, processes: Processes) -> None:
    """As when the last signal of a job comes while its metrics are computed."""

    def evaluate(net: NVPrecond, selection: str, is_stopping: Callable[[], bool]) -> dict[str, float]:
        assert load_newest_state(tmp_path)["images"] == 8
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_stopping()
        return {"psnr": 0.0}

    assert not train(tiny_config(data, metrics=8), tmp_path, processes, evaluate=evaluate)
    assert "psnr" not in (tmp_path / "stats.jsonl").read_text()
    assert load_newest_state(tmp_path)["images"] < 48


def test_validation_loss_is_that_of_fixed_pairs_and_noise_and_leaves_the_run_alone(
    data: Path, whole: Path, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the averages that the run leaves; by two processes as by one; interrupted as whole."""
    monkeypatch.setattr("training.validation.PAIRS", 6)
    config = tiny_config(data, validation=20)
    assert train(dataclasses.replace(config, duration=24), tmp_path, processes)
    assert train(config, tmp_path, processes)
    assert_same_run(tmp_path, whole)
    found = {line["images"]: line for line in read_lines(tmp_path) if "validation_loss/0.050" in line}
    assert list(found) == [20, 24, 40, 48]
    pairs = open_pairs(dataclasses.replace(config.pairs("test"), seed=0), config.resolution)
    state = load_newest_state(tmp_path)
    for std, name in ((0.05, "validation_loss/0.050"), (0.1, "validation_loss/0.100")):
        net = config.build_network().eval()
        net.load_state_dict(state["ema"][str(std)])
        every = [config.build_loss()(net, collate([pairs[k]]), SeededGenerators([(0, k)])).mean() for k in range(6)]
        assert found[48][name] == pytest.approx(float(torch.stack(every).mean().detach()), rel=1e-5)
    assert found[24] != found[48]


def test_validation_by_two_processes_is_that_of_one(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, validation=4, duration=4)
    for processes, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        folder.mkdir()
        assert Run(folder, config, world_size=processes).wait() == [0] * processes
    one, two = (read_lines(tmp_path / name)[-1]["validation_loss/0.050"] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)


def test_metrics_are_computed_at_the_end_too(data: Path, tmp_path: Path, processes: Processes) -> None:
    seen: list[int] = []
    config = tiny_config(data, duration=16, metrics=12)
    train(config, tmp_path, processes, evaluate=lambda *_: {"m": float(seen.append(1) or len(seen))})
    assert [line["images"] for line in read_lines(tmp_path) if "m/mid" in line] == [12, 16]


def test_the_documented_training_with_everything_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands in docs/training.md; it goes on, and its snapshots are read and sampled from like any other."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    (example,) = re.findall(r"```python\n(import logging\n.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.precond.ARCHITECTURES", dict(ARCHITECTURES))
    monkeypatch.setattr("training.validation.PAIRS", 4)
    names: dict = {}
    exec(compile(example, "docs/training.md", "exec"), names)
    folder = tmp_path / "runs" / "mine"
    told = [line for line in read_lines(folder) if "validation_loss/0.050" in line]
    assert [line["images"] for line in told] == [32, 64]
    (snapshot,) = folder.glob("network-snapshot-*64-0.050.safetensors")
    provenance = read_metadata(snapshot)[1]
    assert (provenance["own_pairs"], provenance["own_loss"]) == ("MyPairs", "my_loss")
    net = load_network(snapshot)
    assert net.arguments.architecture == "mine"
    (batch,) = generate_images(net, OwnPairs(names["MyPairs"]()), range(2), num_steps=2)
    assert batch.images.shape == (2, 3, 16, 16)
    longer = dataclasses.replace(names["config"], duration=96)
    parts = {"pairs": names["MyPairs"](), "held_out": names["MyPairs"](), "loss": names["my_loss"]}
    assert train(longer, folder, start_processes("cpu"), **parts, net=NVPrecond(img_resolution=16, architecture="mine"))
    assert [line["images"] for line in read_lines(folder) if "loss" in line] == [64, 96]


def test_own_parts_that_do_not_fit_are_refused(data: Path, tmp_path: Path, processes: Processes) -> None:
    config = tiny_config(data, duration=4)
    view = View(torch.zeros(3, 16, 16, dtype=torch.uint8), Camera.from_fov(60, 16, 16))
    pairs = [Pair(view, view, "grey", 0, 1)]
    for parts, message in (
        ({"pairs": []}, "`pairs` is empty"),
        ({"pairs": [1, 2]}, "item . of `pairs` is of type int"),
        ({"net": NVPrecond(**{**TINY, "model_channels": 16})}, "give net.arguments"),
    ):
        with pytest.raises(UserError, match=message):
            train(config, tmp_path / "run", processes, **parts)
    with pytest.raises(UserError, match="needs `held_out` pairs"):
        train(dataclasses.replace(config, validation=4), tmp_path / "run", processes, pairs=pairs)
    with pytest.raises(UserError, match=r"no .*nowhere"):
        train(dataclasses.replace(config, validation=4, validation_split="nowhere"), tmp_path / "run", processes)
    assert not list((tmp_path / "run").glob("*.safetensors"))


def read_lines(outdir: Path) -> list[dict]:
    return [json.loads(line) for line in (outdir / "stats.jsonl").read_text().splitlines()]
