"""Samplers. They know `denoise(x, sigma)` and nothing else: docs/method.md, section 6; EDM (arXiv:2206.00364),
algorithm 2.

A solver is a function of the denoiser, made anew for every sample, that gives the step from one noise level to the
next: it may remember what it has seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch

from dnnlib.util import UserError

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Step = Callable[[torch.Tensor, float, float], torch.Tensor]  # x, its noise level, the next one -> x there


def noise_levels(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80, rho: float = 7) -> list[float]:
    """sigma_i = (sigma_max^(1/rho) + i/(N-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i < N, then 0.

    EDM, equation 5.
    """
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + i / max(num_steps - 1, 1) * (last - first)) ** rho for i in range(num_steps)] + [0.0]


def euler(denoise: Denoiser) -> Step:
    """First order, one evaluation a step: x' = x + (sigma' - sigma) (x - D(x, sigma)) / sigma."""

    def step(x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        return x + (sigma_next - sigma) * _slope(denoise, x, sigma)

    return step


def heun(denoise: Denoiser) -> Step:
    """Second order, two evaluations a step but for the one to 0: EDM algorithm 1."""

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


def check_solver(solver: str = "heun", S_churn: float = 0, **_: Any) -> None:
    """Raise UserError for arguments of `edm_sampler` that do not go together."""
    if solver not in SOLVERS:
        raise UserError(f"there is no solver {solver!r}; known are {', '.join(SOLVERS)}")
    if solver == "dpmpp_2m" and S_churn > 0:  # noise would part x from what the solver remembers
        raise UserError("the solver dpmpp_2m takes no noise on the way: leave out --S_churn, or --solver heun")


def evaluation_levels(**sampler_kwargs: Any) -> list[float]:
    """The noise levels at which `edm_sampler`, with these arguments, asks its denoiser, in order."""
    levels = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        levels.append(float(sigma))
        return x

    edm_sampler(denoise, torch.zeros(1), randn_like=torch.zeros_like, **sampler_kwargs)
    return levels


def edm_sampler(
    denoise: Denoiser,
    noise: torch.Tensor,
    num_steps: int = 32,
    sigma_min: float = 0.002,
    sigma_max: float = 80,
    rho: float = 7,
    S_churn: float = 0,
    S_min: float = 0,
    S_max: float = math.inf,
    S_noise: float = 1,
    solver: str = "heun",
    randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> torch.Tensor:
    """Integrate the probability-flow ODE from `noise`, N(0, 1) of any shape, to a sample.

    Args:
        denoise: D(x, sigma), sigma a 0-d tensor on the CPU: to read it waits for no device.
        noise: its dtype is that of the integration.
        S_churn, S_min, S_max, S_noise: noise added on the way, in steps with S_min <= sigma <= S_max.
        solver: one of `SOLVERS`.
        randn_like: where that noise comes from; not called in other steps.
    """
    check_solver(solver, S_churn)
    step = SOLVERS[solver](denoise)
    sigmas = noise_levels(num_steps, sigma_min, sigma_max, rho)
    x = noise * sigmas[0]
    for sigma, sigma_next in itertools.pairwise(sigmas):
        sigma_hat = sigma
        gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0
        if gamma > 0:
            sigma_hat = (1 + gamma) * sigma
            x = x + math.sqrt(sigma_hat**2 - sigma**2) * S_noise * randn_like(x)
        x = step(x, sigma_hat, sigma_next)
    return x


def _slope(denoise: Denoiser, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """dx/dsigma of the probability-flow ODE: EDM equation 3."""
    return (x - denoise(x, _level(x, sigma))) / sigma


def _level(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.tensor(sigma, dtype=x.dtype)
