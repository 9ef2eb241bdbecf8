"""The loop: the same run on any number of processes, in any micro-batches, however often it is stopped or killed."""

from __future__ import annotations

import dataclasses
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.config import open_pairs
from datasets.pairs import OwnPairs
from dnnlib.imaging import save_png
from dnnlib.util import UserError
from tests.training.runs import (
    Run,
    after_steps,
    assert_same_run,
    final_tensors,
    losses,
    read_lines,
    relative_difference,
    state_names,
    tiny_config,
    wait_for,
)
from torch_utils.batches import collate
from torch_utils.distributed import Processes, start_processes
from training.generation import generate_images
from training.model_io import load_network, read_metadata, save_network
from training.precond import ARCHITECTURES, NVPrecond
from training.training_loop import Trainer, train

# Sums over images in another order differ by float32 rounding, which Adam's division then amplifies a little.
LOSS_TOLERANCE = 2e-6
WEIGHT_TOLERANCE = 3e-4  # of Adam's second moments, where it is largest


@pytest.mark.parametrize("batch_gpu", [1, 3])
def test_micro_batches_change_nothing(data: Path, processes: Processes, batch_gpu: int) -> None:
    one = after_steps(tiny_config(data), processes)
    many = after_steps(tiny_config(data, batch_gpu=batch_gpu), processes)
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


def steps_told(outdir: Path) -> int:
    stats = outdir / "stats.jsonl"
    return stats.read_text().count("\n") if stats.exists() else 0


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
    plain, scaled = (after_steps(tiny_config(data, loss_scaling=scale), processes) for scale in (1.0, 1024.0))
    assert relative_difference(scaled.net.state_dict(), plain.net.state_dict()) < WEIGHT_TOLERANCE
    overflowing = after_steps(tiny_config(data, loss_scaling=3e38), processes)
    assert int(overflowing.nonfinite) > 0
    assert all(parameter.isfinite().all() for parameter in overflowing.net.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_close(data: Path, processes: Processes, precision: str) -> None:
    """Weights and their moments are float32 all the same; losses agree to the 8 bits of bfloat16, summed up."""
    exact = after_steps(tiny_config(data), processes)
    half = after_steps(tiny_config(data, precision=precision), processes)
    assert torch.allclose(torch.stack(half.losses), torch.stack(exact.losses), rtol=0.03)
    assert not torch.equal(torch.stack(half.losses), torch.stack(exact.losses))
    assert {parameter.dtype for parameter in half.net.parameters()} == {torch.float32}


def test_a_compiled_step_is_the_same_step(data: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_part(part: torch.nn.Module, mode: str) -> None:  # the real one, without minutes of C++
        assert mode == "default"
        part._compiled_call_impl = torch.compile(part._call_impl, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_part)
    network = dict(super_res=True, img_resolution=32, plane_sweep=2)
    config = tiny_config(data, network, precision="bfloat16", batch_gpu=2)
    plain, compiled = (after_steps(dataclasses.replace(config, compile=fused), processes, 2) for fused in (False, True))
    torch.testing.assert_close(torch.stack(compiled.losses), torch.stack(plain.losses), rtol=1e-3, atol=0)
    assert relative_difference(compiled.net.state_dict(), plain.net.state_dict()) < 1e-2


def test_stored_weights_keep_their_length(data: Path, processes: Processes) -> None:
    """In a step, whatever the optimiser made of them before."""
    trainer = after_steps(tiny_config(data, ramp_up=0), processes)
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
    first = after_steps(config, processes)
    torch.rand(100)
    second, without = after_steps(config, processes), after_steps(tiny_config(data), processes)
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


def test_a_failing_process_ends_all_with_its_error(data: Path, tmp_path: Path) -> None:
    good = tiny_config(data, workers=1)
    bad = dataclasses.replace(good, data=str(tmp_path / "nowhere"))
    run = Run(tmp_path / "run", good, bad, world_size=2)
    codes = run.wait()
    assert None not in codes, "a process hangs"
    assert 0 not in codes
    assert "there is no data folder" in run.errors()


def test_a_run_starts_from_a_network(data: Path, processes: Processes, tmp_path: Path) -> None:
    """Its averages too; a later state of the run itself counts more, and other architectures are refused."""
    earlier = after_steps(tiny_config(data), processes, 2)
    file = tmp_path / "earlier.safetensors"
    save_network(file, earlier.net)
    trainer = Trainer(tiny_config(data, seed=7, init=str(file)), processes)
    for net in (trainer.net, *trainer.ema.averages):
        torch.testing.assert_close(net.state_dict(), earlier.net.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match="another architecture"):
        Trainer(tiny_config(data, {"model_channels": 16}, init=str(file)), processes)


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
