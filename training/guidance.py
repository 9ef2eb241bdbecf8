"""Denoisers for the samplers: a network, a source view and a guidance network become `denoise(x, sigma)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from torch_utils.cameras import Camera, View, geometry_vector
from torch_utils.depth import DepthModel
from training.conditioning import views_input
from training.precond import GeometryTerms, NVPrecond
from training.sampling import Denoiser
from training.unet import SourceFeature

EVERYWHERE = (0.0, math.inf)


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


def in_interval(sigma: float, interval: tuple[float, float]) -> bool:
    """low < sigma <= high."""
    return interval[0] < sigma <= interval[1]


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
        depth_model: see `views_input`.
        randn_like: for the noise on the conditioning image, and for the choice of views, each image's from its own.
    """
    inputs = [
        _network_input(net, views, targets, published_intrinsics, depth_model) for views in zip(*pools, strict=True)
    ]
    return _denoiser(net, inputs, gnet, guidance, interval, conditioning_image, randn_like)


@dataclass(frozen=True)
class _Told:
    """What a network is told of pairs, and all that follows from it at any noise level."""

    src: torch.Tensor
    geometry: torch.Tensor
    terms: GeometryTerms
    features: list[SourceFeature] | None


def _tell(net: NVPrecond, src: torch.Tensor, geometry: torch.Tensor) -> _Told:
    src = src[:, : net.source_channels]
    terms = net.geometry_terms(src, geometry)
    features = None
    if net.arguments.no_time_enc or net.arguments.uncond:
        any_level = torch.ones(len(src), device=src.device)
        features = net.unet.keys_and_values(net.encode_source(src, any_level, geometry, terms))
    return _Told(src, geometry, terms, features)


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
    networks = [net] if guidance == 1 else [net, gnet]
    with torch.no_grad():
        told = [[_tell(network, *pair) for pair in inputs] for network in networks]
        pools = [_map_tensors(lambda *views: torch.stack(views), *views) for views in told] if len(inputs) > 1 else []

    def draw(x: torch.Tensor) -> list[_Told]:
        if not pools:
            return [views[0] for views in told]
        uniform = torch.special.ndtr(randn_like(x.new_empty(len(x))))  # the normal distribution's own integral
        view = (uniform * len(inputs)).long().clamp(max=len(inputs) - 1)
        image = torch.arange(len(x), device=x.device)
        return [_map_tensors(lambda pool: pool[view, image], pool) for pool in pools]

    @torch.no_grad()
    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        def evaluate(network: NVPrecond, view: _Told) -> torch.Tensor:
            more = {"source_features": view.features, "terms": view.terms, "randn_like": randn_like}
            return network(view.src, x, sigma, view.geometry, conditioning_image, **more)

        views = draw(x)
        denoised = evaluate(net, views[0])
        if guidance == 1 or not in_interval(float(sigma), interval):
            return denoised
        return evaluate(gnet, views[1]).lerp(denoised, guidance)

    return denoise


def _map_tensors(function: Callable[..., torch.Tensor], *values: Any) -> Any:
    """`function` of the tensors that stand at the same place in values of the same build."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return function(*values)
    if isinstance(first, dict):
        return {key: _map_tensors(function, *(value[key] for value in values)) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_map_tensors(function, *parts) for parts in zip(*values, strict=True))
    if is_dataclass(first):
        names = [field.name for field in fields(first)]
        return type(first)(*(_map_tensors(function, *(getattr(value, name) for value in values)) for name in names))
    return first


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
    return views_input(
        views, net.arguments.depth_input, net.arguments.warp_depth_coor, depth_model, device
    ), geometry.to(device)
