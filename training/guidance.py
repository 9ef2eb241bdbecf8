"""Denoisers for the samplers: a network, a source view and a guidance network become `denoise(x, sigma)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from torch_utils.cameras import Camera, View, geometry_vector
from torch_utils.depth import DepthModel
from training.conditioning import views_input
from training.precond import NVPrecond
from training.sampling import Denoiser

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
    """D_g + guidance (D - D_g), with D from `net` and D_g from `gnet` (EDM2, equation 3; arXiv:2406.02507).

    Args:
        src: source views [B, 3 or 4, R, R]; geometry: [B, 20]; conditioning_image: [B, 3, R, R], as for the network.
        gnet: guidance network, usually unconditional; not evaluated at guidance 1.
        interval: (low, high); elsewhere than in low < sigma <= high the guidance network is not evaluated, and D comes
            out (Kynkaanniemi et al. 2024; arXiv:2404.07724).
        randn_like: where the noise on the conditioning image comes from, anew in each evaluation.

    What does not depend on the noise level (epipolar distances, warped coordinates, the source features of a network
    with `no_time_enc` or `uncond`) is computed here, once.
    """
    if gnet is None and guidance != 1:
        raise ValueError(f"guidance {guidance} needs a guidance network")
    main = _single_denoiser(net, src, geometry, conditioning_image, randn_like)
    if gnet is None or guidance == 1:
        return main
    guide = _single_denoiser(gnet, src[:, : gnet.source_channels], geometry, conditioning_image, randn_like)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        if not in_interval(float(sigma), interval):
            return main(x, sigma)
        return guide(x, sigma).lerp(main(x, sigma), guidance)

    return denoise


def in_interval(sigma: float, interval: tuple[float, float]) -> bool:
    """low < sigma <= high."""
    return interval[0] < sigma <= interval[1]


def _single_denoiser(
    net: NVPrecond,
    src: torch.Tensor,
    geometry: torch.Tensor,
    conditioning_image: torch.Tensor | None,
    randn_like: Callable[[torch.Tensor], torch.Tensor],
) -> Denoiser:
    with torch.no_grad():
        terms = net.geometry_terms(src, geometry)
        fixed = net.no_time_enc or net.uncond
        features = net.encode_source(src, torch.ones(len(src), device=src.device), geometry, terms) if fixed else None

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return net(
                src,
                x,
                sigma,
                geometry,
                conditioning_image,
                source_features=features,
                terms=terms,
                randn_like=randn_like,
            )

    return denoise


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
    rest = {"interval": interval, "conditioning_image": conditioning_image, "randn_like": randn_like}
    inputs = [
        _network_input(net, views, targets, published_intrinsics, depth_model) for views in zip(*pools, strict=True)
    ]
    if len(inputs) == 1:
        return guided_denoiser(net, *inputs[0], gnet, guidance, **rest)
    src_PBCRR, geometry_PBN = (torch.stack(tensors) for tensors in zip(*inputs, strict=True))

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        uniform = torch.special.ndtr(randn_like(x.new_empty(len(x))))  # the normal distribution's own integral
        choice = (uniform * len(inputs)).long().clamp(max=len(inputs) - 1), torch.arange(len(x), device=x.device)
        return guided_denoiser(net, src_PBCRR[choice], geometry_PBN[choice], gnet, guidance, **rest)(x, sigma)

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
    return views_input(views, net.depth_input, net.warp_depth_coor, depth_model, device), geometry.to(device)
