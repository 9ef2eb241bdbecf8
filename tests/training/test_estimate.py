"""What a dry run says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.runs import tiny_config
from training.estimate import estimate


def test_counts(tmp_path: Path) -> None:
    """Memory is that of 28 bytes a parameter and of the activations, which grow with the micro-batch alone."""
    config = tiny_config(tmp_path, {"img_resolution": 32, "model_channels": 16}, batch=4096)
    plans = [
        estimate(tiny_config(tmp_path, dict(config.network), batch=4096, batch_gpu=size), torch.device("cpu"), 2)
        for size in (1024, 2048)
    ]
    parameters = sum(parameter.numel() for parameter in config.build_network().parameters())
    assert [plan["parameters"] for plan in plans] == [parameters] * 2
    state = 28 * parameters / 2**30
    one, two = (plan["gib_per_process"] - state for plan in plans)
    assert one > 0.1
    assert two == pytest.approx(2 * one, rel=0.05)
    assert plans[0]["gflop_per_image"] == plans[1]["gflop_per_image"]
    # Twice forward for the backward pass, two operations per weight and place where it is used.
    at_most = 3 * 2 * parameters * 32**2 / 1e9
    assert 0.05 * at_most < plans[0]["gflop_per_image"] < at_most
    assert plans[0]["images_per_second_estimate"] > 0


def test_everything_fits_one_process_and_half_in_half_precision(tmp_path: Path) -> None:
    full, half = (
        estimate(tiny_config(tmp_path, batch=4096, precision=precision), torch.device("cpu"), 1)["gib_per_process"]
        for precision in ("float32", "bfloat16")
    )
    assert 0.4 * full < half < 0.8 * full
