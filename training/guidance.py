"""Denoisers for the samplers: a network, a source view and a guidance network become `denoise(x, sigma)`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.precond import NVPrecond
from training.sampling import Denoiser


def guided_denoiser(
    net: NVPrecond,
    src: torch.Tensor,
    geometry: torch.Tensor,
    gnet: NVPrecond | None = None,
    guidance: float = 1.0,
    *,
    conditioning_image: torch.Tensor | None = None,
    randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> Denoiser:
    """D_g + guidance (D - D_g), with D from `net` and D_g from `gnet` (EDM2, equation 3; arXiv:2406.02507).

    Args:
        src: source views [B, 3 or 4, R, R]; geometry: [B, 20]; conditioning_image: [B, 3, R, R], as for the network.
        gnet: guidance network, usually unconditional; not evaluated at guidance 1.
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
        return guide(x, sigma).lerp(main(x, sigma), guidance)

    return denoise


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
