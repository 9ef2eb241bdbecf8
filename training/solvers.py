"""Solvers: how a sample goes from one noise level to the next (EDM: arXiv:2206.00364).

A solver is a function of the denoiser, made anew for every sample, that gives the step: it may remember what it has
seen. A new one is a function here and its line in `SOLVERS`; every command line then offers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command lines read the names without waiting for PyTorch
    import torch

    Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x and sigma to D(x, sigma)
    Step = Callable[[torch.Tensor, float, float], torch.Tensor]  # x, its noise level, the next one -> x there


def euler(denoise: Denoiser) -> Step:
    """First order, one evaluation a step: x' = x + (sigma' - sigma) (x - D(x, sigma)) / sigma."""

    def step(x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        return x + (sigma_next - sigma) * _slope(denoise, x, sigma)

    return step


def heun(denoise: Denoiser) -> Step:
    """Second order, two evaluations a step but for the one to 0: EDM, algorithm 1."""

    def step(x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        slope = _slope(denoise, x, sigma)
        x_next = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope_next = _slope(denoise, x_next, sigma_next)
            x_next = x + (sigma_next - sigma) * 0.5 * (slope + slope_next)
        return x_next

    return step


def dpmpp_2m(denoise: Denoiser) -> Step:
    """Second order, one evaluation a step: DPM-Solver++(2M), Lu et al. 2022 (arXiv:2211.01095), algorithm 2.

    With alpha = 1 and lambda = -ln sigma. The first step is of first order, and so is the one to 0, where h diverges.
    """
    earlier: tuple[torch.Tensor, float] | None = None  # D and h of the step before

    def step(x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        nonlocal earlier
        denoised = target = denoise(x, _level(x, sigma))
        if sigma_next > 0:
            h = math.log(sigma / sigma_next)
            if earlier is not None:
                target = denoised + h / (2 * earlier[1]) * (denoised - earlier[0])
            earlier = denoised, h
        return target + sigma_next / sigma * (x - target)

    return step


SOLVERS: dict[str, Callable[[Denoiser], Step]] = {"heun": heun, "euler": euler, "dpmpp_2m": dpmpp_2m}
WITHOUT_CHURN = ("dpmpp_2m",)  # noise on the way would part x from what these remember


def _slope(denoise: Denoiser, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """dx/dsigma of the probability-flow ODE: EDM, equation 3."""
    return (x - denoise(x, _level(x, sigma))) / sigma


def _level(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The noise level as a 0-d tensor on the CPU."""
    import torch

    return torch.tensor(sigma, dtype=x.dtype)
