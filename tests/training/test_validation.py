"""The validation loss: of fixed pairs and noise, the same on any number of processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from datasets.config import open_pairs
from tests.training.runs import (
    Run,
    assert_same_run,
    read_lines,
    tiny_config,
)
from torch_utils.batches import collate
from torch_utils.distributed import Processes
from torch_utils.random import SeededGenerators
from training.checkpoint import load_newest_state
from training.training_loop import train


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
