"""The sampler. It knows `denoise(x, sigma)` and nothing else: docs/method.md, section 6; EDM, algorithm 2."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch

from training.sampling_config import DEFAULTS, SamplingConfig
from training.solvers import SOLVERS

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def noise_levels(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80, rho: float = 7) -> list[float]:
    """sigma_i = (sigma_max^(1/rho) + i/(N-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i < N, then 0.

    EDM, equation 5.
    """
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + i / max(num_steps - 1, 1) * (last - first)) ** rho for i in range(num_steps)] + [0.0]


def evaluation_levels(config: SamplingConfig) -> list[float]:
    """The noise levels at which `edm_sampler` asks its denoiser, in order."""
    levels = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        levels.append(float(sigma))
        return x

    edm_sampler(denoise, torch.zeros(1), config, randn_like=torch.zeros_like)
    return levels


def edm_sampler(
    denoise: Denoiser,
    noise: torch.Tensor,
    config: SamplingConfig = DEFAULTS,
    *,
    randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> torch.Tensor:
    """Integrate the probability-flow ODE from `noise`, N(0, 1) of any shape, to a sample.

    Args:
        denoise: D(x, sigma), sigma a 0-d tensor on the CPU: to read it waits for no device.
        noise: its dtype is that of the integration.
        config: its solver, noise levels, and noise added on the way (S_churn, S_min, S_max, S_noise).
        randn_like: where that noise comes from; not called in other steps.
    """
    step = SOLVERS[config.solver](denoise)
    sigmas = noise_levels(config.num_steps, config.sigma_min, config.sigma_max, config.rho)
    x = noise * sigmas[0]
    for sigma, sigma_next in itertools.pairwise(sigmas):
        sigma_hat = sigma
        churned = config.S_min <= sigma <= config.S_max
        gamma = min(config.S_churn / config.num_steps, math.sqrt(2) - 1) if churned else 0
        if gamma > 0:
            sigma_hat = (1 + gamma) * sigma
            x = x + math.sqrt(sigma_hat**2 - sigma**2) * config.S_noise * randn_like(x)
        x = step(x, sigma_hat, sigma_next)
    return x
