"""What is told and saved between the steps of a run, and when."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dnnlib.util import UserError
from tests.training.runs import (
    read_lines,
    relative_difference,
    state_names,
    tiny_config,
)
from torch_utils.batches import Batch
from torch_utils.distributed import Processes
from training.checkpoint import load_newest_state
from training.loss import NVLoss
from training.model_io import load_network
from training.precond import NVPrecond
from training.reporting import sample_sheet
from training.run_pairs import RunPairs
from training.training_loop import train


def test_a_snapshot_is_the_average_in_half_precision_but_for_its_fourier_features(whole: Path) -> None:
    name = "network-snapshot-0000000.048-0.100.safetensors"
    net = load_network(whole / name)
    average = load_newest_state(whole)["ema"]["0.1"]
    assert relative_difference(net.state_dict(), average) < 1e-3
    assert torch.equal(net.logvar_fourier.freqs, average["logvar_fourier.freqs"])
    assert load_file(whole / name)["unet.out_conv.weight"].dtype == torch.float16


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


def test_metrics_are_computed_at_the_end_too(data: Path, tmp_path: Path, processes: Processes) -> None:
    seen: list[int] = []
    config = tiny_config(data, duration=16, metrics=12)
    train(config, tmp_path, processes, evaluate=lambda *_: {"m": float(seen.append(1) or len(seen))})
    assert [line["images"] for line in read_lines(tmp_path) if "m/mid" in line] == [12, 16]


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
