"""Magnitude-preserving layers: section 2 and appendix B of Karras et al. 2024, "Analyzing and Improving the Training
Dynamics of Diffusion Models" (EDM2, arXiv:2312.02696). Equation numbers are that paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_EPS = 1e-4
_ATTENTION_WEIGHTS = 2**19  # of so many tokens times source tokens at once, on CPUs in half precision


def normalize(x: torch.Tensor, dims: Sequence[int] | None = None, eps: float = _EPS) -> torch.Tensor:
    """x / (eps + RMS(x)) with the RMS over `dims` (default: all but the first), in float32. Equation 47."""
    dims = list(range(1, x.ndim)) if dims is None else list(dims)
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    rms = norm * math.sqrt(norm.numel() / x.numel())
    return x / (eps + rms).to(x.dtype)


# SiLU of unit normal input has this standard deviation; the layer behind it takes the inverse as gain. Equation 81.
MP_SILU_GAIN = 1 / 0.596


def mp_sum_weights(t: float) -> tuple[float, float]:
    """Weights of the two sides of `mp_sum`: (1-t, t) / sqrt((1-t)^2 + t^2). Equation 88."""
    length = math.sqrt((1 - t) ** 2 + t**2)
    return (1 - t) / length, t / length


def mp_sum(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """lerp(a, b, t) / sqrt((1-t)^2 + t^2). Equation 88."""
    weight_a, weight_b = mp_sum_weights(t)
    return a * weight_a + b * weight_b


def mp_cat(a: torch.Tensor, b: torch.Tensor, t: float = 0.5) -> torch.Tensor:
    """Concatenation of channels in which a and b contribute as 1-t to t, whatever their widths. Equation 103."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (scale * (1 - t) / math.sqrt(na)), b * (scale * t / math.sqrt(nb))], dim=1)


def resample(x: torch.Tensor, mode: str) -> torch.Tensor:
    """2-tap box filter: "down" takes the mean of 2x2 pixels, "up" doubles each pixel, "keep" does nothing."""
    if mode == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if mode == "up" else x


def attend(
    q_BHTD: torch.Tensor, k_BHSD: torch.Tensor, v_BHSD: torch.Tensor, bias_BHTS: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k / sqrt(D) + bias) v: [B, H, T, D]."""
    if q_BHTD.device.type != "cpu" or q_BHTD.dtype == torch.float32 or q_BHTD.requires_grad:
        return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=bias_BHTS)
    # The fused kernel for CPUs does not use their half precision arithmetic; matrix products do. Some heads at a time,
    # so that their weights stay in the cache and take no memory to speak of.
    q, k, v = (part.flatten(0, 1) for part in (q_BHTD, k_BHSD, v_BHSD))
    q = q * (1 / math.sqrt(q.shape[2]))
    heads = max(_ATTENTION_WEIGHTS // (q.shape[1] * k.shape[1]), 1)
    y = torch.empty_like(q)
    for start in range(0, len(q), heads):
        some = slice(start, start + heads)
        logits = q[some] @ k[some].mT
        if bias_BHTS is not None:
            logits += bias_BHTS.flatten(0, 1)[some]
        torch.bmm(logits.softmax(dim=-1), v[some], out=y[some])
    return y.view_as(q_BHTD)


class MPFourier(nn.Module):
    """Random Fourier features sqrt(2) cos(2 pi (f x + phi)): [N] to [N, channels], in float32. Equation 75."""

    def __init__(self, channels: int, bandwidth: float = 1.0) -> None:
        super().__init__()
        self.freqs: torch.Tensor
        self.phases: torch.Tensor
        self.register_buffer("freqs", 2 * math.pi * bandwidth * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return math.sqrt(2) * torch.cos(x.to(torch.float32)[:, None] * self.freqs + self.phases)


class MPConv(nn.Module):
    """Convolution (kernel k: k x k, "same" padding) or linear layer (kernel None) with forced weight normalisation.

    Equation 47 and section 2.3: the layer uses normalize(weight) * gain / sqrt(fan-in); in training mode the stored
    weight is replaced by normalize(weight) first, without gradient, so that its length never drifts.

    Args:
        gain: constant factor; a learned one is given to `forward`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int | None, gain: float = 1.0) -> None:
        super().__init__()
        size = () if kernel is None else (kernel, kernel)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *size))
        self.gain = gain
        self.frozen = False

    def forward(self, x: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        if self.frozen:
            y = self._apply_weight(x, self.weight)
            return y if gain is None else y * gain.to(y.dtype)
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight))
        weight = self.effective_weight()
        return self._apply_weight(x, (weight if gain is None else weight * gain).to(x.dtype))

    def effective_weight(self) -> torch.Tensor:
        """What the input is multiplied by, but for a learned gain: float32."""
        fan_in = self.weight[0].numel()
        return normalize(self.weight.to(torch.float32)) * (self.gain / math.sqrt(fan_in))

    @torch.no_grad()
    def freeze(self, dtype: torch.dtype) -> None:
        """Store the effective weight instead, once and for all, as the kernels want it. Linear layers stay float32."""
        weight = self.effective_weight()
        if weight.ndim == 4:
            weight = weight.to(dtype=dtype, memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.frozen = True

    @staticmethod
    def _apply_weight(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class MPHeads(MPConv):
    """1x1 projection to queries, keys and values (parts 3) or keys and values (2) of all heads, unit length per head.

    Stored weights give channels ordered [head][channel][part]. Their rows are reordered, not the activations: the
    channels of a head come out next to each other, which is what fused attention kernels read.
    """

    def __init__(self, channels: int, heads: int, parts: int) -> None:
        super().__init__(channels, parts * channels, 1)
        self.heads, self.parts = heads, parts

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]  # parts, and no gain
        """[B, C, R, R] to `parts` tensors [B, heads, R R, C/heads], normalised over their last dimension."""
        y = (
            super()
            .forward(x)
            .permute(0, 2, 3, 1)
            .reshape(len(x), x.shape[-2] * x.shape[-1], self.parts, self.heads, -1)
        )
        return tuple(part.transpose(1, 2) for part in normalize(y, dims=[-1]).unbind(dim=2))

    def effective_weight(self) -> torch.Tensor:
        weight = super().effective_weight()
        return weight.unflatten(0, (self.heads, -1, self.parts)).permute(2, 0, 1, 3, 4, 5).flatten(0, 2)
