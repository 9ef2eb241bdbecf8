"""The training loss of base and super-resolution networks: docs/method.md, section 7.1; EDM2, equation 15."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from torch_utils.batches import Batch
from torch_utils.cameras import pixels_to_float
from torch_utils.random import SeededGenerators
from training.cascade import BaseViews
from training.encodings import Encodings
from training.network_config import EncodingConfig

# Of two batches in [-1, 1], be they empty, a number per image: [B].
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# Of a network, which may be wrapped for several processes, a batch, and the randomness of its images: float32 [B, ..].
Loss = Callable[[nn.Module, Batch, SeededGenerators], torch.Tensor]


@dataclass(frozen=True)
class PerceptualTerm:
    """weight * distance(D, y) for images whose noise level is at most `highest_sigma`: the perceptual term of PixelGen.

    Above, D is the mean of what may be, and a mean has no texture to compare.
    """

    distance: Distance
    weight: float
    highest_sigma: float

    def __call__(self, denoised: torch.Tensor, y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Float32 [B, 1, 1, 1]."""
        chosen = sigma <= self.highest_sigma
        distance = self.distance(denoised[chosen], y[chosen])  # of no image, too
        return torch.zeros_like(sigma).masked_scatter(chosen, self.weight * distance).reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class NVLoss:
    """w/exp(u) (D - y)^2 + u per element, w = (sigma^2 + sigma_d^2) / (sigma sigma_d)^2, ln sigma ~ N(P_mean, P_std^2).

    u is the network's own log-variance: it balances noise levels, and makes the loss comparable across them.
    `encodings` are those of the network. `perceptual` is added to every element, where there is one. `base` makes some
    of what super-resolution is given.
    """

    P_mean: float = -0.8
    P_std: float = 1.6
    sigma_data: float = 0.5
    encodings: Encodings = field(default_factory=lambda: Encodings(EncodingConfig()))
    perceptual: PerceptualTerm | None = None
    base: BaseViews | None = None

    def __call__(self, net: nn.Module, batch: Batch, generators: SeededGenerators) -> torch.Tensor:
        """Loss of each element, float32 [B, 3, R, R]. Noise comes from the images' own generators.

        `net` may be wrapped for several processes; everything goes through its `forward`.
        """
        y = pixels_to_float(batch.target)
        src, conditioning_image = self.encodings.batch_input(batch), self.encodings.conditioning_image(y)
        if self.base is not None and conditioning_image is not None:
            conditioning_image = self.base(batch, conditioning_image, generators)
        sigma = (generators.randn([], y.device) * self.P_std + self.P_mean).exp()
        noise = generators.randn_like(y) * sigma.reshape(-1, 1, 1, 1)
        denoised, u = net(
            *(src, y + noise, sigma, batch.geometry, conditioning_image),
            return_logvar=True,
            randn_like=generators.randn_like,
        )
        weight = ((sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2).reshape(-1, 1, 1, 1)
        loss = weight / u.exp() * (denoised - y) ** 2 + u
        return loss if self.perceptual is None else loss + self.perceptual(denoised, y, sigma)
