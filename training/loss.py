"""The training loss of base and super-resolution networks: docs/method.md, section 7.1; EDM2, equation 15."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from torch_utils.batches import Batch
from torch_utils.cameras import pixels_to_float
from torch_utils.random import SeededGenerators
from training.conditioning import low_resolution_image, source_input


@dataclass(frozen=True)
class NVLoss:
    """w/exp(u) (D - y)^2 + u per element, w = (sigma^2 + sigma_d^2) / (sigma sigma_d)^2, ln sigma ~ N(P_mean, P_std^2).

    u is the network's own log-variance: it balances noise levels, and makes the loss comparable across them.
    """

    P_mean: float = -0.8
    P_std: float = 1.6
    sigma_data: float = 0.5
    super_res: bool = False
    depth_input: bool = False
    warp_depth_coor: bool = False

    def __call__(self, net: nn.Module, batch: Batch, generators: SeededGenerators) -> torch.Tensor:
        """Loss of each element, float32 [B, 3, R, R]. Noise comes from the images' own generators.

        `net` may be wrapped for several processes; everything goes through its `forward`.
        """
        y = pixels_to_float(batch.target)
        src = source_input(batch.source, batch.depth, self.depth_input, self.warp_depth_coor)
        sigma = (generators.randn([], y.device) * self.P_std + self.P_mean).exp()
        noise = generators.randn_like(y) * sigma.reshape(-1, 1, 1, 1)
        low = low_resolution_image(y) if self.super_res else None
        denoised, u = net(
            src, y + noise, sigma, batch.geometry, low, return_logvar=True, randn_like=generators.randn_like
        )
        weight = ((sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2).reshape(-1, 1, 1, 1)
        return weight / u.exp() * (denoised - y) ** 2 + u
