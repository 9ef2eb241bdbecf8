"""The training loss of base and super-resolution networks: docs/method.md, section 7.1; EDM2, equation 15."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from torch_utils.batches import Batch
from torch_utils.cameras import pixels_to_float
from torch_utils.random import SeededGenerators
from training.encodings import EncodingConfig, Encodings


@dataclass(frozen=True)
class NVLoss:
    """w/exp(u) (D - y)^2 + u per element, w = (sigma^2 + sigma_d^2) / (sigma sigma_d)^2, ln sigma ~ N(P_mean, P_std^2).

    u is the network's own log-variance: it balances noise levels, and makes the loss comparable across them.
    `encodings` are those of the network.
    """

    P_mean: float = -0.8
    P_std: float = 1.6
    sigma_data: float = 0.5
    encodings: Encodings = field(default_factory=lambda: Encodings(EncodingConfig()))

    def __call__(self, net: nn.Module, batch: Batch, generators: SeededGenerators) -> torch.Tensor:
        """Loss of each element, float32 [B, 3, R, R]. Noise comes from the images' own generators.

        `net` may be wrapped for several processes; everything goes through its `forward`.
        """
        y = pixels_to_float(batch.target)
        src, conditioning_image = self.encodings.batch_input(batch), self.encodings.conditioning_image(y)
        sigma = (generators.randn([], y.device) * self.P_std + self.P_mean).exp()
        noise = generators.randn_like(y) * sigma.reshape(-1, 1, 1, 1)
        denoised, u = net(
            *(src, y + noise, sigma, batch.geometry, conditioning_image),
            return_logvar=True,
            randn_like=generators.randn_like,
        )
        weight = ((sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2).reshape(-1, 1, 1, 1)
        return weight / u.exp() * (denoised - y) ** 2 + u
