from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden import relative_error
from training.layers import (
    MP_SILU_GAIN,
    MPConv,
    MPFourier,
    MPHeads,
    attend,
    mp_cat,
    mp_sum,
    normalize,
    normalize_weights,
    resample,
    scaled_direction,
)


def test_normalize_divides_by_the_rms() -> None:
    x = torch.randn(3, 4, 5) * 7
    expected = x / (1e-4 + x.pow(2).mean(dim=(1, 2), keepdim=True).sqrt())
    torch.testing.assert_close(normalize(x), expected)
    expected = x / (1e-4 + x.pow(2).mean(dim=1, keepdim=True).sqrt())
    torch.testing.assert_close(normalize(x, dims=[1]), expected)


@pytest.mark.parametrize(("dims", "last"), [([1], True), ([1], False), (None, False), ([-1], False)])
def test_gradient_of_normalize_is_that_of_its_formula(dims: list[int] | None, last: bool) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(2, 3, 4, 5, 6)
    x[0] = 0  # a source that is not seen
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    normalize(ours, dims).backward(grad)
    rms = theirs.square().mean(dim=dims or [1, 2, 3], keepdim=True).clamp_min(1e-30).sqrt()
    (theirs / (1e-4 + rms)).backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_sum_and_concatenation_preserve_magnitude() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(8, 64, 32, 32), torch.randn(8, 16, 32, 32)
    for t in (0.0, 0.3, 0.5, 1.0):
        assert mp_sum(a, torch.randn_like(a), t).std().item() == pytest.approx(1, abs=0.01)
        joined = mp_cat(a, b, t)
        assert joined.pow(2).mean().item() == pytest.approx(1, abs=0.02)
    halves = mp_cat(a, b, 0.5)
    # both inputs contribute alike, however many channels they have
    assert halves[:, :64].pow(2).sum().item() == pytest.approx(halves[:, 64:].pow(2).sum().item(), rel=0.02)


def test_sum_and_concatenation_by_hand() -> None:
    a, b = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 4, 1, 1), 5.0)
    t, length = 0.3, math.sqrt(0.7**2 + 0.3**2)
    torch.testing.assert_close(mp_sum(a, b[:, :1], t), (0.7 * a + 0.3 * b[:, :1]) / length)
    joined = mp_cat(a, b, t).flatten()
    scale = math.sqrt(5) / length
    torch.testing.assert_close(joined[:1], torch.tensor([scale * 0.7 * 3]))
    torch.testing.assert_close(joined[1:], torch.full((4,), scale * 0.3 / 2 * 5))
    assert torch.equal(mp_cat(a, b), mp_cat(a, b, 0.5))


def test_fourier_features_by_hand() -> None:
    """Frequencies of a normal distribution times 2 pi, phases around the circle."""
    torch.manual_seed(0)
    layer = MPFourier(10_000, bandwidth=3.0)
    assert layer.freqs.std().item() == pytest.approx(2 * math.pi * 3, rel=0.03)
    assert layer.phases.min() >= 0
    assert layer.phases.max().item() == pytest.approx(2 * math.pi, rel=1e-3)
    x = torch.tensor([0.25, -1.5])
    expected = math.sqrt(2) * torch.cos(x[:, None] * layer.freqs + layer.phases)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x.bfloat16()).dtype == torch.float32
    assert MPFourier(10_000).freqs.std().item() == pytest.approx(2 * math.pi, rel=0.03)


def test_fourier_features_have_unit_magnitude() -> None:
    torch.manual_seed(0)
    layer = MPFourier(256)
    assert layer(torch.randn(500)).pow(2).mean().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(layer(torch.zeros(1)), math.sqrt(2) * torch.cos(layer.phases)[None])


def test_resampling_is_the_box_filter() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(resample(x, "down")[:, :, 0, 0], x[:, :, :2, :2].mean(dim=(2, 3)))
    torch.testing.assert_close(resample(resample(x, "up"), "down"), x)
    assert resample(x, "keep") is x
    assert torch.equal(resample(x, "up"), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


@pytest.mark.parametrize("kernel", [None, 1, 3])
def test_the_stored_weight_is_replaced_by_its_direction(kernel: int | None) -> None:
    layer = MPConv(5, 7, kernel)
    x = torch.randn(2, 5) if kernel is None else torch.randn(2, 5, 6, 6)
    with torch.no_grad():
        layer.weight.mul_(13)
    before, long = layer(x), layer.weight.detach().clone()
    normalize_weights(nn.Sequential(layer))
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-3)  # 1e-4 in normalize, once more
    torch.testing.assert_close(layer.weight.detach(), normalize(long))
    assert layer.weight.requires_grad


@pytest.mark.parametrize("gain", [None, 0.0, 1.7])
@pytest.mark.parametrize("size", [(4, 6), (3, 2, 3, 3)])
def test_weights_have_the_gradient_of_their_formula(size: tuple[int, ...], gain: float | None) -> None:
    """normalize(w) f g, whose gradient is in closed form, against automatic differentiation: 1e-12."""
    torch.manual_seed(0)
    weight = torch.randn(size, dtype=torch.float64, requires_grad=True)
    learned = None if gain is None else torch.tensor(gain, dtype=torch.float64, requires_grad=True)
    inputs = [weight] if learned is None else [weight, learned]
    rms = weight.square().mean(dim=tuple(range(1, len(size))), keepdim=True).sqrt()
    expected = weight / (1e-4 + rms) * 0.3 * (1 if learned is None else learned)
    found = scaled_direction(weight, 0.3, learned, torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    towards = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, towards),
        torch.autograd.grad(expected, inputs, towards),
        rtol=1e-12,
        atol=1e-12,
    )


def test_weights_of_unit_length_keep_the_magnitude() -> None:
    torch.manual_seed(0)
    layer, x = MPConv(64, 64, 3).eval(), torch.randn(4, 64, 16, 16)
    assert layer(x)[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(layer(x, gain=2.0), 2 * layer(x))


def test_heads_are_channels_ordered_head_channel_part() -> None:
    layer, x = MPHeads(6, heads=2, parts=3).eval(), torch.randn(2, 6, 4, 4)
    weight = normalize(layer.weight.detach()) / math.sqrt(6)
    y = F.conv2d(x, weight).reshape(2, 2, 3, 3, 16)  # [B, head, channel, part, token]
    for part, found in enumerate(layer(x)):
        expected = normalize(y[:, :, :, part], dims=[2]).mT
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("tokens", [(6, 10), (1024, 1024)])  # all heads at once, and one after the other
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision_is_that_of_torch(
    dtype: torch.dtype, biased: bool, tokens: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, count, 8, dtype=dtype) for count in (tokens[0], tokens[1], tokens[1]))
    bias = torch.randn(1, 2, *tokens, dtype=dtype) if biased else None
    exact = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=None if bias is None else bias.float()
    )
    ours = attend(q, k, v, bias)
    assert ours.dtype == dtype
    assert relative_error(ours, exact) < 1e-2  # 8 bits of bfloat16 are 4e-3


@pytest.mark.parametrize("biased", [False, True])
def test_gradient_of_attention_in_half_precision_is_that_of_torch(biased: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, count, 8) for count in (600, 700, 700)] + [torch.randn(2, 3, 600, 700)] * biased
    grad = torch.randn(2, 3, 600, 8)
    exact = [part.clone().requires_grad_() for part in inputs]
    F.scaled_dot_product_attention(*exact[:3], attn_mask=exact[3] if biased else None).backward(grad)
    half = [part.bfloat16().requires_grad_() for part in inputs]
    attend(*half).backward(grad.bfloat16())
    for ours, theirs in zip(half, exact, strict=True):
        assert relative_error(ours.grad, theirs.grad) < 2e-2


def test_attention_in_half_precision_writes_rows_whatever_its_inputs_look_like() -> None:
    """Where the channels of a token lie apart in a result, PyTorch's product takes a loop a hundred times slower."""
    inputs = [torch.randn(2, 3, 8, 50).bfloat16().mT.requires_grad_() for _ in range(3)]
    y = attend(*inputs)
    grads = torch.autograd.grad(y.sum(), inputs)
    assert not any(part.is_contiguous() for part in inputs)
    assert all(part.is_contiguous() for part in (y, *grads))


def test_silu_of_unit_noise_times_its_gain_has_unit_magnitude() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert (F.silu(x) * MP_SILU_GAIN).square().mean().sqrt().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("channels", [20, 82])
def test_a_convolution_with_channels_last_is_the_same(channels: int) -> None:
    """Many channels are converted in parts; where the gradient goes as well."""
    layer, x = MPConv(channels, 8, 3), torch.randn(2, channels, 12, 12, requires_grad=True)
    expected = layer(x)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), x)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], expected_gradient, rtol=0, atol=1e-4)


def test_a_frozen_layer_is_neither_trained_nor_normalised_again() -> None:
    layer, x = MPConv(4, 6, 3, gain=0.5).train(), torch.randn(2, 4, 8, 8)
    layer.freeze(torch.float32)
    assert layer.frozen
    assert not layer.weight.requires_grad
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(layer(x), 2 * before)
