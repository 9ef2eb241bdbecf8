"""Super-resolution that learns from what a base network makes, not from true views made small alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from torch_utils.batches import Batch
from torch_utils.cameras import resize_image
from torch_utils.geometry_vector import resize_geometry
from torch_utils.random import SeededGenerators
from training.guidance import guided_denoiser
from training.precond import NVPrecond
from training.sampling import edm_sampler
from training.sampling_config import SamplingConfig


@dataclass(frozen=True)
class BaseViews:
    """A base network's views in place of true ones made small, for a share of the pairs: docs/method.md, section 7.1.

    Attributes:
        net: the base network, frozen. share: of the pairs that get its view, [0, 1]. sampling: how it makes it.
    """

    net: NVPrecond
    share: float
    sampling: SamplingConfig

    @torch.no_grad()
    def __call__(self, batch: Batch, low: torch.Tensor, generators: SeededGenerators) -> torch.Tensor:
        """`low`, true views made small [B, 3, R, R] in [-1, 1], with some replaced; each image draws its own noise."""
        chosen = torch.special.ndtr(generators.randn([])) < self.share
        rows = chosen.nonzero().flatten().tolist()
        if not rows:
            return low
        net, side, own = self.net, self.net.img_resolution, generators[rows]
        some = batch[rows]
        geometry = resize_geometry(some.geometry, low.shape[-1], side)
        src = net.encodings.batch_input(replace(some, source=resize_image(some.source, side, side), depth=None))
        denoise = guided_denoiser(net, src, geometry, randn_like=own.randn_like)
        noise = own.randn((net.arguments.img_channels, side, side), low.device)
        views = edm_sampler(denoise, noise, self.sampling, randn_like=own.randn_like)
        low = low.clone()
        low[rows] = resize_image(views, *low.shape[-2:])
        return low
