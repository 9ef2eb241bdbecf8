"""Guided denoisers: what guidance is, where it is off, what is drawn anew in each evaluation."""

from __future__ import annotations

import math

import pytest
import torch

from tests.golden import fill, golden_network, relative_error, tensors, tiny_network, vectors
from torch_utils.random import SeededGenerators
from training.guidance import guided_denoiser
from training.precond import NVPrecond
from training.sampling import Denoiser


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
