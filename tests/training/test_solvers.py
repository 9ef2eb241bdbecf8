"""Solvers: single steps by hand, order of convergence, another implementation."""

from __future__ import annotations

import math

import pytest
import torch

from dnnlib.util import UserError
from tests.golden import relative_error
from training.sampling import edm_sampler, noise_levels
from training.sampling_config import SamplingConfig
from training.solvers import SOLVERS, WITHOUT_CHURN, dpmpp_2m, euler, heun

MU, S = 0.3, 0.4


def gaussian_denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The exact denoiser of N(MU, S^2)."""
    return (S**2 * x + sigma**2 * MU) / (S**2 + sigma**2)


def line(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A denoiser to reckon with by hand: D = x/2 + sigma."""
    return x / 2 + sigma


def test_single_steps_by_hand() -> None:
    """From x = 8 at sigma 4 to sigma 2: D = 8, no slope; then from 8 at 2 to 1: D = 6, slope 1."""
    x = torch.tensor([8.0], dtype=torch.float64)
    assert euler(line)(x, 4.0, 2.0).item() == 8
    assert euler(line)(x, 2.0, 1.0).item() == 7
    # Heun: at sigma 1 x is 7, D = 4.5 and the slope 2.5; the mean of 1 and 2.5 is 1.75
    assert heun(line)(x, 2.0, 1.0).item() == 8 - 1.75
    # DPM-Solver++: the first step is Euler's, the second goes by D + h/(2 h_before) (D - D_before), here h = h_before
    step = dpmpp_2m(line)
    assert step(x, 4.0, 2.0).item() == 8
    target = 6 + (6 - 8) / 2
    assert step(x, 2.0, 1.0).item() == pytest.approx(target + (8 - target) / 2, rel=1e-15)
    target = 4.5 + math.log(10) / (2 * math.log(2)) * (4.5 - 6)  # of h that differ
    assert step(torch.full_like(x, 7), 1.0, 0.1).item() == pytest.approx(target + 0.1 * (7 - target), rel=1e-14)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_step_to_zero_gives_the_denoised(name: str) -> None:
    """With one evaluation, whatever was before."""
    calls = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(float(sigma))
        return line(x, sigma)

    step, x = SOLVERS[name](denoise), torch.tensor([3.0, -1.0], dtype=torch.float64)
    x = step(x, 4.0, 1.0)
    calls.clear()
    torch.testing.assert_close(step(x, 1.0, 0.0), x / 2 + 1, rtol=1e-15, atol=0)
    assert calls == [1]


def test_a_solver_that_remembers_takes_no_churn() -> None:
    assert {"dpmpp_2m"} == set(WITHOUT_CHURN) <= set(SOLVERS)
    with pytest.raises(UserError, match="churn"):
        SamplingConfig(solver="dpmpp_2m", S_churn=1)


@pytest.mark.parametrize(("solver", "expected"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence_on_the_gaussian(solver: str, expected: int) -> None:
    """The ODE dx/dsigma = sigma (x - mu)/(s^2 + sigma^2) scales x - mu by sqrt(s^2 + sigma^2): a closed form."""
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma_min, sigma_max = 0.5, 80.0
    shrink = math.sqrt(S**2 + sigma_min**2) / math.sqrt(S**2 + sigma_max**2)

    def error(steps: int) -> float:
        # the last step goes from sigma_min to 0 by Euler, for which this problem is exact only in the limit: undo it
        levels = noise_levels(steps, sigma_min, sigma_max)
        config = SamplingConfig(num_steps=steps, sigma_min=sigma_min, sigma_max=sigma_max, solver=solver)
        result = edm_sampler(gaussian_denoiser, noise, config)
        at_sigma_min = MU + (result - MU) * (S**2 + levels[-2] ** 2) / S**2
        return float((at_sigma_min - (MU + (noise * sigma_max - MU) * shrink)).abs().max())

    order = math.log2(error(256) / error(512))
    assert abs(order - expected) < 0.1


def test_dpmpp_2m_is_that_of_diffusers() -> None:
    """In float64 noise levels differ by the rounding of theirs, which are float32."""
    diffusers = pytest.importorskip("diffusers")
    steps, noise = 12, torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_data=0.5, final_sigmas_type="zero")
    scheduler.set_timesteps(steps)
    assert scheduler.sigmas.tolist() == pytest.approx(noise_levels(steps), rel=1e-5)
    x = noise * scheduler.sigmas[0]
    for sigma, time in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        output = (gaussian_denoiser(x, sigma) - c_skip * x) / c_out  # what a network would give
        x = scheduler.step(output, time, x).prev_sample
    ours = edm_sampler(gaussian_denoiser, noise, SamplingConfig(num_steps=steps, solver="dpmpp_2m"))
    assert relative_error(ours, x) < 1e-5
