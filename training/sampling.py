"""Samplers. They know `denoise(x, sigma)` and nothing else: SPEC section 6, EDM algorithm 2 (arXiv:2206.00364)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def noise_levels(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80, rho: float = 7) -> list[float]:
    """sigma_i = (sigma_max^(1/rho) + i/(N-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho for i < N, then 0. Eq. 5."""
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + i / max(num_steps - 1, 1) * (last - first)) ** rho for i in range(num_steps)] + [0.0]


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
    randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> torch.Tensor:
    """Integrate the probability-flow ODE with Heun's method from `noise`, N(0, 1) of any shape, to a sample.

    Args:
        denoise: D(x, sigma), sigma a 0-d tensor; called 2 num_steps - 1 times.
        noise: its dtype is that of the integration.
        S_churn, S_min, S_max, S_noise: noise added on the way, in steps with S_min <= sigma <= S_max.
        randn_like: where that noise comes from; not called in other steps.
    """
    sigmas = noise_levels(num_steps, sigma_min, sigma_max, rho)
    x_next = noise * sigmas[0]
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        x_hat, sigma_hat = x_next, sigma
        gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0
        if gamma > 0:
            sigma_hat = (1 + gamma) * sigma
            x_hat = x_next + math.sqrt(sigma_hat**2 - sigma**2) * S_noise * randn_like(x_next)

        slope = (x_hat - denoise(x_hat, noise.new_tensor(sigma_hat))) / sigma_hat
        x_next = x_hat + (sigma_next - sigma_hat) * slope
        if i < num_steps - 1:  # Heun's correction, on all but the last step
            slope_next = (x_next - denoise(x_next, noise.new_tensor(sigma_next))) / sigma_next
            x_next = x_hat + (sigma_next - sigma_hat) * 0.5 * (slope + slope_next)
    return x_next
