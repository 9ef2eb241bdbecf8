from __future__ import annotations

import pytest
import torch

from tests.golden import golden_network, recipe, relative_error, tensors, vectors
from training.guidance import guided_denoiser
from training.sampling import edm_sampler, evaluation_levels, noise_levels
from training.sampling_config import SamplingConfig

MU, S = 0.3, 0.4  # vectors.json -> sampler.gauss


def gaussian_denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The exact denoiser of N(MU, S^2)."""
    return (S**2 * x + sigma**2 * MU) / (S**2 + sigma**2)


def test_noise_levels_run_from_sigma_max_to_sigma_min_to_zero() -> None:
    levels = noise_levels(32)
    assert levels[0] == pytest.approx(80)
    assert levels[31] == pytest.approx(0.002)
    assert levels[32] == 0
    assert levels == sorted(levels, reverse=True)
    assert noise_levels(1) == [pytest.approx(80), 0]
    assert noise_levels(2) == [pytest.approx(80), pytest.approx(0.002), 0]


def test_churn_reaches_from_s_min_to_s_max_both_included() -> None:
    levels, calls = noise_levels(8), []
    config = SamplingConfig(num_steps=8, S_churn=1, S_min=levels[5], S_max=levels[2])
    edm_sampler(gaussian_denoiser, torch.zeros(1), config, randn_like=lambda x: calls.append(1) or torch.zeros_like(x))
    assert len(calls) == 4


@pytest.mark.parametrize("steps", [4, 8, 18, 32])
def test_gaussian_is_the_published_one(steps: int) -> None:
    ours = edm_sampler(gaussian_denoiser, tensors()["sampler/noise"].double(), SamplingConfig(num_steps=steps))
    assert relative_error(ours, tensors()[f"sampler/gauss_heun_{steps}"]) < 1e-10


def test_churn_is_the_published_one() -> None:
    calls = []

    def randn_like(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls) + 1)
        return recipe(f"churn{len(calls)}", x.shape).to(x.dtype)

    ours = edm_sampler(
        gaussian_denoiser,
        tensors()["sampler/noise"].double(),
        SamplingConfig(num_steps=8, S_churn=10, S_min=0.05, S_max=50, S_noise=1.003),
        randn_like=randn_like,
    )
    assert relative_error(ours, tensors()["sampler/gauss_churn_8"]) < 1e-10
    assert len(calls) == sum(0.05 <= level <= 50 for level in noise_levels(8)[:-1])


@pytest.mark.parametrize(("steps", "guidance"), [(4, 1.0), (6, 1.5)])
def test_network_sampling_is_the_published_one(steps: int, guidance: float) -> None:
    denoise = guided_denoiser(
        golden_network("base"),
        tensors()["sampler/src"],
        tensors()["net/base/geometry"],
        golden_network("uncond"),
        guidance,
    )
    ours = edm_sampler(denoise, tensors()["sampler/noise"], SamplingConfig(num_steps=steps))
    assert relative_error(ours, tensors()[f"sampler/heun_{steps}_guidance_{guidance}"]) < 1e-4


@pytest.mark.parametrize(("solver", "evaluations"), [("heun", 9), ("euler", 5), ("dpmpp_2m", 5)])
def test_the_sampler_calls_the_denoiser_with_a_number_on_the_cpu(solver: str, evaluations: int) -> None:
    sigmas = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sigmas.append(sigma)
        return torch.zeros_like(x)

    edm_sampler(denoise, torch.empty(1, 3, 4, 4, device="meta"), SamplingConfig(num_steps=5, solver=solver))
    assert len(sigmas) == evaluations
    assert all(sigma.ndim == 0 and sigma > 0 and sigma.device.type == "cpu" for sigma in sigmas)
    assert evaluation_levels(SamplingConfig(num_steps=5, solver=solver)) == [float(sigma) for sigma in sigmas]


def test_vectors_are_complete() -> None:
    assert vectors()["sampler"]["gauss"] == {"mu": MU, "s": S}
