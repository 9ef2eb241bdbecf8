"""Everything stays on its device and in its dtype: run on imagined tensors, without a GPU and without numbers.

PyTorch's fake tensors refuse what a real device would refuse, tensors of two devices in one operation. Where PyTorch is
built for CUDA they are imagined there, elsewhere on a device that exists in name alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from metrics.image import as_uint8, psnr
from metrics.lpips import LPIPS
from tests.golden import TINY
from torch_utils.batches import Batch
from torch_utils.cameras import Camera
from torch_utils.random import SeededGenerators
from torch_utils.warping import sweep_planes, warp_depth
from training.config import TrainingConfig
from training.guidance import guided_denoiser
from training.layers import MPConv, normalize_weights
from training.loss import PerceptualTerm
from training.precond import NVPrecond
from training.sampling import edm_sampler
from training.sampling_config import SamplingConfig
from training.solvers import SOLVERS

BATCH = 2
NETWORKS = {
    "base": {},
    "no_time_enc": dict(no_time_enc=True),
    "uncond": dict(uncond=True),
    "super_res": dict(super_res=True),
    "noiseless_super_res": dict(super_res=True, noisy_sr=0.0),
    "depth_input": dict(depth_input=True),
    "warp_depth_coor": dict(warp_depth_coor=True),
    "epipolar_bias": dict(epipolar_attention_bias=True),
    "plane_sweep": dict(plane_sweep=3),
    "swept_super_res": dict(super_res=True, plane_sweep=3, no_time_enc=True),
    "plane_matching": dict(super_res=True, plane_sweep=3, plane_matching=True),
    "dropout": dict(dropout=0.5),
    "extra_attn": dict(extra_attn=0),
    "depth_and_lines": dict(depth_input=True, epipolar_attention_bias=True, no_time_enc=True),
}


@pytest.fixture(scope="module")
def device(imagined_device: torch.device) -> torch.device:
    return imagined_device


@pytest.fixture(autouse=True)
def imagined() -> Iterator[None]:
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) would look for the real device
    try:
        with FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True):  # how many a mask chooses may stay open
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def build(device: torch.device, dtype: torch.dtype | None = None, **arguments: Any) -> NVPrecond:
    with torch.device(device), patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", -1):  # see `_forget_numbers`
        net = NVPrecond(**{**TINY, **arguments})
    net.compute_dtype = dtype
    net.register_forward_pre_hook(_forget_numbers)
    return net


def results(net: NVPrecond) -> set[tuple[torch.dtype, torch.device]]:
    """Where, and in what, the convolutions of a network will have computed: a set that fills."""
    found: set[tuple[torch.dtype, torch.device]] = set()

    def note(layer: MPConv, inputs: tuple, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        found.update((part.dtype, part.device) for part in (output if isinstance(output, tuple) else (output,)))

    for layer in net.modules():
        if isinstance(layer, MPConv) and layer.weight.ndim == 4:
            layer.register_forward_hook(note)
    return found


def _forget_numbers(net: NVPrecond, arguments: tuple) -> tuple:
    """Noise levels made of a number would really be moved, to a device that may not exist."""
    return tuple(torch.empty(()) if isinstance(a, torch.Tensor) and a.ndim == 0 else a for a in arguments)


def inputs(net: NVPrecond, device: torch.device) -> tuple[torch.Tensor, ...]:
    """src, noisy view, noise level, geometry and low-resolution image."""
    side = net.img_resolution
    src = torch.empty(BATCH, net.source_channels, side, side, device=device)
    view = torch.empty(BATCH, 3, side, side, device=device)
    low = torch.empty_like(view) if net.super_res else None
    return src, view, torch.empty(BATCH, device=device), torch.empty(BATCH, 20, device=device), low


@pytest.mark.parametrize(("dtype", "frozen"), [(torch.float32, True), (torch.float16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, dtype: torch.dtype, frozen: bool, device: torch.device) -> None:
    """The view comes out in float32, and convolutions compute in the dtype that was asked for."""
    net = build(device, dtype, **NETWORKS[name])
    net = net.freeze() if frozen else net.eval()
    seen = results(net)
    denoised, logvar = net(*inputs(net, device), return_logvar=True)
    assert (denoised.device, denoised.dtype) == (device, torch.float32)
    assert (logvar.device, logvar.dtype) == (device, torch.float32)
    assert seen == {(dtype, device)}


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradient(name: str, device: torch.device) -> None:
    """A step of training up to the gradient: pictures come from the CPU as bytes, noise is drawn there."""
    net = build(device, torch.float16, **NETWORKS[name]).train()
    side, seen = net.img_resolution, results(net)
    views = torch.empty(BATCH, 3, side, side, dtype=torch.uint8)
    depth = torch.empty(BATCH, 1, side, side) if net.needs_depth else None
    batch = Batch(views, views, torch.empty(BATCH, 20), depth).to(device)
    config = TrainingConfig(net.arguments, depth_model="small" if net.needs_depth else None)
    normalize_weights(net)
    loss = config.build_loss()(net, batch, SeededGenerators(range(BATCH)))
    assert (loss.device, loss.dtype) == (device, torch.float32)
    assert seen == {(torch.float16, device)}
    if device.type != "cuda":  # backward threads ask for a real one
        loss.sum().backward()
        wrong = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.device != device}
        assert not wrong


@pytest.mark.parametrize("churn", [0.0, 20.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers(solver: str, churn: float, device: torch.device) -> None:
    config = SamplingConfig(num_steps=3, solver=solver)
    if churn and solver == "heun":
        config = replace(config, S_churn=churn)
    net = build(device, torch.float16, no_time_enc=True).freeze()
    src, noise, _, geometry, _ = inputs(net, device)
    generators, seen = SeededGenerators(range(BATCH)), results(net)
    view = edm_sampler(guided_denoiser(net, src, geometry), noise, config, randn_like=generators.randn_like)
    assert (view.device, view.dtype, view.shape) == (device, torch.float32, noise.shape)
    assert seen == {(torch.float16, device)}


def test_a_guided_cascade(device: torch.device) -> None:
    generators, config = SeededGenerators(range(BATCH)), SamplingConfig(num_steps=2)
    net, gnet = build(device, torch.float16).freeze(), build(device, torch.float16, uncond=True).freeze()
    large = build(device, torch.float16, super_res=True, img_resolution=32, plane_sweep=2).freeze()
    seen = [results(one) for one in (net, gnet, large)]
    src, noise, _, geometry, _ = inputs(net, device)
    how = dict(interval=(0.1, 50.0), randn_like=generators.randn_like)
    view = edm_sampler(guided_denoiser(net, src, geometry, gnet, 1.5, **how), noise, config)
    low = torch.nn.functional.interpolate(view, size=32, mode="bilinear", antialias=True)
    src, noise, _, geometry, _ = inputs(large, device)
    how = dict(conditioning_image=low, randn_like=generators.randn_like)
    view = edm_sampler(guided_denoiser(large, src, geometry, **how), noise, config)
    assert (view.device, view.dtype) == (device, torch.float32)
    assert seen == [{(torch.float16, device)}] * 3


def test_stochastic_conditioning(device: torch.device) -> None:
    from training.guidance import _denoiser

    net = build(device, torch.float16, no_time_enc=True).freeze()
    src, noise, _, geometry, _ = inputs(net, device)
    seen = results(net)
    denoise = _denoiser(net, [(src, geometry)] * 3, None, 1.0, (0.0, 100.0), None, SeededGenerators([0, 1]).randn_like)
    view = edm_sampler(denoise, noise, SamplingConfig(num_steps=2))
    assert (view.device, view.dtype) == (device, torch.float32)
    assert seen == {(torch.float16, device)}


def test_the_perceptual_term(device: torch.device) -> None:
    """Of as many images as have little noise, be it none."""
    with torch.device(device):
        term = PerceptualTerm(LPIPS().distance, 1.0, 0.5)
        views, sigma = torch.empty(BATCH, 3, 64, 64), torch.empty(BATCH)
    loss = term(views, views, sigma)
    assert (loss.device, loss.dtype, loss.shape) == (device, torch.float32, (BATCH, 1, 1, 1))


def test_metrics_and_warps(device: torch.device) -> None:
    """Detectors are in tests/metrics/test_detectors.py, homographies in tests/torch_utils/test_warping.py."""
    with torch.device(device):
        lpips, views, depths = LPIPS(), torch.empty(BATCH, 3, 64, 64), torch.empty(2)
        pictures = torch.empty(BATCH, 3, 64, 64, dtype=torch.uint8)
        pose, intrinsics = torch.empty(BATCH, 4, 4), torch.empty(BATCH, 3, 3)
    assert lpips(views, views).device == device
    value = psnr(pictures, pictures)
    assert (value.device, value.dtype) == (device, torch.float64)
    assert as_uint8(pictures).device.type == "cpu"  # where the command lines compute PSNR and SSIM, of kornia
    planes, inside = sweep_planes(views, pose, intrinsics, intrinsics, depths)
    assert planes.device == inside.device == device
    camera = Camera(torch.eye(3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[:3], 64, 64)
    warped, seen = warp_depth(views[0], views[0, 0], camera, camera)
    assert warped.device == seen.device == device


def test_tensors_of_two_devices_are_refused(device: torch.device) -> None:
    """So that the tests above can fail."""
    net = build(device).eval()
    src, view, sigma, geometry, _ = inputs(net, device)
    with pytest.raises(Exception, match=r"same device|two devices|different devices"):
        net(src.cpu(), view, sigma, geometry)
