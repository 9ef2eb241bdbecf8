"""A signal ends a training run after its step, with a checkpoint; what it was in the middle of breaks off."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.runs import (
    Run,
    final_tensors,
    losses,
    relative_difference,
    tiny_config,
)
from torch_utils.distributed import Processes
from training.checkpoint import load_newest_state
from training.precond import NVPrecond
from training.training_loop import train


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
