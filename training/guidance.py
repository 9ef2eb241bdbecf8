"""Denoisers for the samplers: a network, a source view and a guidance network become `denoise(x, sigma)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dnnlib.util import present
from torch_utils.cameras import Camera, View
from torch_utils.depth import DepthModel
from torch_utils.geometry_vector import geometry_vector
from training.conditioning import Prepared
from training.precond import NVPrecond
from training.sampling import Denoiser
from training.sampling_config import EVERYWHERE, in_interval


def guided_denoiser(
    net: NVPrecond,
    src: torch.Tensor,
    geometry: torch.Tensor,
    gnet: NVPrecond | None = None,
    guidance: float = 1.0,
    *,
    interval: tuple[float, float] = EVERYWHERE,
    conditioning_image: torch.Tensor | None = None,
    randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> Denoiser:
    """D_g + guidance (D - D_g), with D from `net` and D_g from `gnet` (Autoguidance, equation 3; arXiv:2406.02507).

    Args:
        src: source views [B, 3 or 4, R, R]; geometry: [B, 20]; conditioning_image: [B, 3, R, R], as for the network.
        gnet: guidance network, usually unconditional; not evaluated at guidance 1.
        interval: (low, high); elsewhere than in low < sigma <= high the guidance network is not evaluated, and D comes
            out (Kynkäänniemi et al. 2024; arXiv:2404.07724).
        randn_like: where the noise on the conditioning image comes from, anew in each evaluation.

    What does not depend on the noise level (epipolar distances, warped coordinates, and of a network with `no_time_enc`
    or `uncond` the keys and values of the source view) is computed here, once.
    """
    return _denoiser(net, [(src, geometry)], gnet, guidance, interval, conditioning_image, randn_like)


def view_denoiser(
    net: NVPrecond,
    pools: Sequence[Sequence[View]],
    targets: Sequence[Camera],
    gnet: NVPrecond | None = None,
    guidance: float = 1.0,
    *,
    interval: tuple[float, float] = EVERYWHERE,
    published_intrinsics: bool = False,
    depth_model: DepthModel | None = None,
    conditioning_image: torch.Tensor | None = None,
    randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> Denoiser:
    """`guided_denoiser` from views and cameras, of any size.

    Args:
        pools: for each image the views it may be conditioned on, equally many. Where there are several, each evaluation
            takes one at random (stochastic conditioning: Watson et al. 2022, section 3.1; arXiv:2210.04628).
        targets: for each image the camera it is seen from.
        depth_model: see `Encodings.views_input`.
        randn_like: for the noise on the conditioning image, and for the choice of views, each image's from its own.
    """
    inputs = [
        _network_input(net, views, targets, published_intrinsics, depth_model) for views in zip(*pools, strict=True)
    ]
    return _denoiser(net, inputs, gnet, guidance, interval, conditioning_image, randn_like)


def _denoiser(
    net: NVPrecond,
    inputs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    gnet: NVPrecond | None,
    guidance: float,
    interval: tuple[float, float],
    conditioning_image: torch.Tensor | None,
    randn_like: Callable[[torch.Tensor], torch.Tensor],
) -> Denoiser:
    """`guided_denoiser` of one of several (src, geometry), drawn anew for each image in each evaluation."""
    if gnet is None and guidance != 1:
        raise ValueError(f"guidance {guidance} needs a guidance network")
    networks = [net] if guidance == 1 else [net, present(gnet)]
    with torch.no_grad():
        pools = [
            Prepared.cat(
                [
                    network.prepare(src[:, : network.source_channels], geometry, conditioning_image)
                    for src, geometry in inputs
                ]
            )
            for network in networks
        ]

    def draw(x: torch.Tensor) -> list[Prepared]:
        if len(inputs) == 1:
            return pools
        uniform = torch.special.ndtr(randn_like(x.new_empty(len(x))))  # the normal distribution's own integral
        view = (uniform * len(inputs)).long().clamp(max=len(inputs) - 1)
        rows = view * len(x) + torch.arange(len(x), device=x.device)
        return [pool[rows] for pool in pools]

    @torch.no_grad()
    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        views = draw(x)
        denoised = net(views[0], x, sigma, randn_like=randn_like)
        if guidance == 1 or not in_interval(float(sigma), interval):
            return denoised
        return networks[1](views[1], x, sigma, randn_like=randn_like).lerp(denoised, guidance)

    return denoise


def _network_input(
    net: NVPrecond,
    sources: Sequence[View],
    targets: Sequence[Camera],
    published_intrinsics: bool,
    depth_model: DepthModel | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """src [B, 3 or 4, R, R] and geometry [B, 20] on the network's device."""
    side, device = net.img_resolution, next(net.parameters()).device
    views = [source.square(side) for source in sources]
    geometry = torch.stack(
        [
            geometry_vector(source.camera, target, side, published_intrinsics)
            for source, target in zip(views, targets, strict=True)
        ]
    )
    return net.encodings.views_input(views, depth_model, device), geometry.to(device)
