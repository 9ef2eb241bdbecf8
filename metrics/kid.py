"""Kernel Inception distance (Bińkowski et al. 2018)."""

from __future__ import annotations

import torch

from metrics.frechet import ArrayLike

_BLOCK = 1024  # rows of the kernel matrix at a time


def kernel_distance(generated: ArrayLike, target: ArrayLike) -> float:
    """The unbiased squared MMD of two feature sets [N, D] and [M, D] under the kernel (x.y/D + 1)^3.

    It can be negative. The usual figure is the mean of this estimator over random subsets of 1000; over all pairs at
    once it has the same expectation and the least variance, and needs no seed. Raises ValueError below two of either.
    """
    x, y = (torch.as_tensor(features, device="cpu").double() for features in (generated, target))
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"a kernel distance needs two or more features of one length, not {list(x.shape)} and {list(y.shape)}"
        )
    cross = _kernel_sum(x, y) / (len(x) * len(y))
    return _mean_off_diagonal(x) + _mean_off_diagonal(y) - 2 * cross


def _mean_off_diagonal(x: torch.Tensor) -> float:
    diagonal = float((x.square().sum(dim=1) / x.shape[1] + 1).pow(3).sum())
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(x: torch.Tensor, y: torch.Tensor) -> float:
    return sum(float((block @ y.T / x.shape[1] + 1).pow(3).sum()) for block in x.split(_BLOCK))
