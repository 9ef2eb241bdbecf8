from __future__ import annotations

import math

import pytest
import torch

from tests.golden import fill, golden_network, recipe, relative_error, tensors, tiny_network, vectors
from torch_utils.random import SeededGenerators
from training.guidance import guided_denoiser
from training.precond import NVPrecond
from training.sampling import Denoiser, edm_sampler, evaluation_levels, noise_levels
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


def test_guidance_extrapolates_away_from_the_guidance_network() -> None:
    net, gnet = golden_network("base"), golden_network("uncond")
    src, geometry, x = tensors()["sampler/src"], tensors()["net/base/geometry"], tensors()["sampler/noise"]
    sigma = torch.tensor(2.0)
    d, d_g = net(src, x, sigma, geometry), gnet(src, x, sigma, geometry)
    guided = guided_denoiser(net, src, geometry, gnet, 1.5)(x, sigma)
    torch.testing.assert_close(guided, d_g + 1.5 * (d - d_g), rtol=1e-5, atol=1e-5)
    assert torch.equal(guided_denoiser(net, src, geometry, gnet, 1.0)(x, sigma), d)
    with pytest.raises(ValueError, match="needs a guidance network"):
        guided_denoiser(net, src, geometry, None, 1.5)


def test_a_conditional_network_guides_with_encodings_of_its_own() -> None:
    """Autoguidance: a smaller network that sees the source view too, in another form and at other planes."""
    net, gnet = tiny_network(plane_sweep=3, no_time_enc=True), tiny_network(plane_sweep=2, plane_nearest=0.2)
    generator = torch.Generator().manual_seed(0)
    src, x = torch.rand(2, 2, 3, 16, 16, generator=generator) * 2 - 1
    geometry, sigma = torch.randn(2, 20, generator=generator) / 4, torch.tensor(0.7)
    d, d_g = net(src, x, sigma, geometry), gnet(src, x, sigma, geometry)
    assert relative_error(d, d_g) > 0.1
    guided = guided_denoiser(net, src, geometry, gnet, 1.5)(x, sigma)
    torch.testing.assert_close(guided, d_g + 1.5 * (d - d_g), rtol=1e-4, atol=1e-4)


def test_outside_its_interval_guidance_is_off_and_its_network_not_evaluated() -> None:
    net, gnet = golden_network("base"), golden_network("uncond")
    src, geometry, x = tensors()["sampler/src"], tensors()["net/base/geometry"], tensors()["sampler/noise"]
    calls = []
    gnet.register_forward_hook(lambda *_: calls.append(1))

    def denoiser(**options: object) -> Denoiser:
        return guided_denoiser(net, src, geometry, gnet, 1.5, **options)

    sigma = torch.tensor(2.0)
    alone, guided = guided_denoiser(net, src, geometry)(x, sigma), denoiser()(x, sigma)
    assert not torch.equal(alone, guided)
    for interval, inside in (((0.0, math.inf), True), ((1.0, 2.0), True), ((2.0, 3.0), False)):
        calls.clear()
        assert torch.equal(denoiser(interval=interval)(x, sigma), guided if inside else alone)
        assert len(calls) == inside


def test_noise_on_the_low_resolution_image_is_drawn_anew_in_each_evaluation() -> None:
    net = fill(NVPrecond(**{**vectors()["nets"]["sr"]["init_kwargs"], "noisy_sr": 0.25}))
    conditioning_image, sigma = tensors()["net/sr/cond"], torch.tensor(1.0)
    src, geometry, x = (tensors()[f"net/sr/{name}"] for name in ("src", "geometry", "dst"))

    def results() -> list[torch.Tensor]:
        generators = SeededGenerators([1, 2])
        denoise = guided_denoiser(
            net, src, geometry, conditioning_image=conditioning_image, randn_like=generators.randn_like
        )
        return [denoise(x, sigma), denoise(x, sigma)]

    first, second = results()
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip((first, second), results(), strict=True))


def test_vectors_are_complete() -> None:
    assert vectors()["sampler"]["gauss"] == {"mu": MU, "s": S}
