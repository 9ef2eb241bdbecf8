"""The kernel distance: its sum over pairs, its bias, its blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics.kid import kernel_distance


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 3 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]) for rows in (x, y)
    ]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(torch.tensor(y), x) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    """Its mean over samples of one distribution is 0, to three standard errors; that of unlike ones is not."""
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.standard_normal((2, 30, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert kernel_distance(rng.standard_normal((100, 4)) + 1, rng.standard_normal((100, 4))) > 10 * np.std(same)


def test_kernel_distance_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 40, 6))
    whole = kernel_distance(x, y)
    monkeypatch.setattr("metrics.kid._BLOCK", 7)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)
    with pytest.raises(ValueError, match="two or more"):
        kernel_distance(x[:1], y)
