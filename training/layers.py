"""Magnitude-preserving layers: section 2 and appendix B of Karras et al. 2024, "Analyzing and Improving the Training
Dynamics of Diffusion Models" (EDM2, arXiv:2312.02696). Equation numbers are that paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

_EPS = 1e-4
_FEW_CHANNELS = 48  # are converted to channels last at once
_ATTENTION_WEIGHTS = 2**19  # of so many tokens times source tokens at once, on CPUs in half precision


def normalize(x: torch.Tensor, dims: Sequence[int] | None = None, eps: float = _EPS) -> torch.Tensor:
    """x / (eps + RMS(x)) with the RMS over `dims` (default: all but the first), in float32. Equation 47."""
    return _Normalize.apply(x, tuple(range(1, x.ndim)) if dims is None else tuple(dims), eps)


class _Normalize(torch.autograd.Function):
    """`normalize` with its gradient in closed form, in a third of the passes over memory.

    With s = 1 / (eps + r) and r = RMS(x) over N elements, y = s x and dx = s dy - y s sum(x dy) / (N r).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dims: tuple[int, ...], eps: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
        rms = norm * math.sqrt(norm.numel() / x.numel())
        scale = 1 / (eps + rms)
        y = x * _spread(scale, x)
        ctx.save_for_backward(y, scale, rms)
        ctx.dims = dims
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        y, scale, rms = ctx.saved_tensors
        along = (grad * y).sum(dim=ctx.dims, keepdim=True, dtype=torch.float32)
        along *= (rms.numel() / y.numel()) / rms.clamp_min(torch.finfo(torch.float32).tiny)
        return torch.addcmul(grad * _spread(scale, y), y, _spread(-along, y)), None, None


def scaled_direction(
    weight: torch.Tensor, factor: float, gain: torch.Tensor | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """normalize(weight) times a constant factor and a learned gain, computed in float32 and given in a dtype."""
    return _ScaledDirection.apply(weight, factor, gain, dtype)


class _ScaledDirection(torch.autograd.Function):
    """`scaled_direction` with its gradient in closed form.

    For weights w [O, ...], factor f and gain g, with s = 1 / (eps + r) and r = RMS(w) over the N elements of a row:
    y = s f g w, and with a = sum(w dy), dw = s f g (dy - w s a / (N r)) and dg = sum(s f a), in the dtype of w.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, factor: float, gain: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor:
        norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
        rms = norm * math.sqrt(norm.numel() / weight.numel())
        direction = 1 / (_EPS + rms)
        scale = direction * factor if gain is None else direction * (factor * gain)
        ctx.save_for_backward(weight, rms, direction, scale)
        ctx.factor = factor
        return (weight * scale).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, rms, direction, scale = ctx.saved_tensors
        grad = grad.to(weight.dtype)
        along = (grad * weight).sum(dim=tuple(range(1, weight.ndim)), keepdim=True)
        of_gain = (along * direction).sum() * ctx.factor if ctx.needs_input_grad[2] else None
        along *= direction * scale * (rms.numel() / weight.numel()) / rms.clamp_min(torch.finfo(torch.float32).tiny)
        return torch.addcmul(grad * scale, weight, along, value=-1), None, of_gain, None


def _spread(factor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The factor in the dtype of x. In half precision on CPUs also in its shape: where few channels come last, it does
    not vary along the innermost dimension, and element-wise kernels are several times slower over such operands."""
    half_on_cpu = x.device.type == "cpu" and x.dtype != torch.float32
    return torch.empty_like(x).copy_(factor) if half_on_cpu else factor.to(x.dtype)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """x [B, C, R, R] as convolutions with channels-last weights on CPUs want it, once for them and their gradients.

    Of a hundred channels at once, the conversion takes four times as long. Other devices convert as they like.
    """
    layout = torch.channels_last
    if x.device.type != "cpu":
        return x
    if x.shape[1] <= _FEW_CHANNELS or x.is_contiguous(memory_format=layout):
        return x.contiguous(memory_format=layout)
    return torch.cat([part.contiguous(memory_format=layout) for part in x.split(16, dim=1)], dim=1)


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
    if q_BHTD.device.type != "cpu" or q_BHTD.dtype == torch.float32:
        return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=bias_BHTS)
    q, k, v = (part.flatten(0, 1) for part in (q_BHTD * (1 / math.sqrt(q_BHTD.shape[3])), k_BHSD, v_BHSD))
    bias = None if bias_BHTS is None else bias_BHTS.flatten(0, 1)
    return _HalfAttention.apply(q, k, v, bias).view_as(q_BHTD)


class _HalfAttention(torch.autograd.Function):
    """softmax(q k + bias) v of heads [G, T, D], [G, S, D] and [G, T, S], for CPUs in half precision.

    The fused kernel for CPUs does not use their half precision arithmetic; matrix products do. Some heads at a time, so
    that their weights stay in the cache; they are kept only where a gradient will want them.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y, kept = q.new_empty(q.shape), []  # not as q lies: over results with D apart, products are 100 times slower
        for some in _some_heads(q, k):
            logits = q[some] @ k[some].mT
            if bias is not None:
                logits += bias[some]
            weights = logits.softmax(dim=-1)
            torch.bmm(weights, v[some], out=y[some])
            if any(ctx.needs_input_grad):
                kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        dq, dk, dv = (part.new_empty(part.shape) for part in (q, k, v))
        dbias = q.new_empty(len(q), q.shape[1], k.shape[1]) if ctx.needs_input_grad[3] else None
        for some, weights in zip(_some_heads(q, k), kept, strict=True):
            torch.bmm(weights.mT, grad[some], out=dv[some])
            logits = torch.ops.aten._softmax_backward_data(grad[some] @ v[some].mT, weights, -1, weights.dtype)
            torch.bmm(logits, k[some], out=dq[some])
            torch.bmm(logits.mT, q[some], out=dk[some])
            if dbias is not None:
                dbias[some] = logits
        return dq, dk, dv, dbias


def _some_heads(q: torch.Tensor, k: torch.Tensor) -> list[slice]:
    heads = max(_ATTENTION_WEIGHTS // (q.shape[1] * k.shape[1]), 1)
    return [slice(start, start + heads) for start in range(0, len(q), heads)]


@torch.no_grad()
def normalize_weights(net: nn.Module) -> None:
    """Forced weight normalisation: stored weights become normalize(weight). Once before each step of training."""
    for layer in net.modules():
        if isinstance(layer, MPConv):
            layer.weight.copy_(normalize(layer.weight))


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

    Equation 47 and section 2.3: the layer uses normalize(weight) * gain / sqrt(fan-in). In training the stored weight
    is replaced by its direction before each step, so that its length never drifts: `normalize_weights`.

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
        return self._apply_weight(x, self.effective_weight(x.dtype, gain))

    def effective_weight(self, dtype: torch.dtype = torch.float32, gain: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the input is multiplied by."""
        factor = self.gain / math.sqrt(self.weight[0].numel())
        return scaled_direction(self.weight.to(torch.float32), factor, gain, dtype)

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
        if weight.ndim == 2:
            return F.linear(x, weight)
        if not weight.is_contiguous():  # its channels come last
            x = _channels_last(x)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


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
        y = super().forward(x)
        y = rearrange(y, "b (part head d) y x -> b (y x) part head d", part=self.parts, head=self.heads)
        return tuple(rearrange(normalize(y, dims=[-1]), "b t part head d -> part b head t d"))

    def effective_weight(self, dtype: torch.dtype = torch.float32, gain: torch.Tensor | None = None) -> torch.Tensor:
        rows = "(head d part) c y x -> (part head d) c y x"
        return rearrange(super().effective_weight(dtype, gain), rows, head=self.heads, part=self.parts)
