"""The learning rate against the golden vectors."""

from __future__ import annotations

import pytest

from tests.golden import vectors
from training.schedule import learning_rate


@pytest.mark.parametrize("row", vectors()["lr"])
def test_golden(row: list[float]) -> None:
    images, batch, ref_lr, ref_batches, expected = row
    assert learning_rate(images, batch, ref_lr, ref_batches) == pytest.approx(expected, rel=1e-12)


def test_no_ramp_and_no_decay() -> None:
    assert learning_rate(0, 64, 0.01, 100, ramp_up_images=0) == 0.01
    assert learning_rate(10**9, 64, 0.01, 0) == 0.01


def test_ramp_and_decay_of_one_image() -> None:
    assert learning_rate(0, 64, 0.01, 0, ramp_up_images=1) == 0
    assert learning_rate(16, 4, 0.01, 1, ramp_up_images=0) == pytest.approx(0.005)
