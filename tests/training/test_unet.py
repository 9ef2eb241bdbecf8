"""Which blocks there are, what they are called, and which have attention: docs/method.md, section 4."""

from __future__ import annotations

import pytest
import torch

from training.unet import Block, UNet

SIZES = dict(model_channels=8, channel_mult=(1, 2), num_blocks=2, channels_per_head=8)


def attending(net: UNet) -> list[str]:
    named = [*(("enc", *item) for item in net.enc.items()), *(("dec", *item) for item in net.dec.items())]
    return [f"{side}.{name}" for side, name, block in named if getattr(block, "attn_qkv", None) is not None]


def test_blocks_and_their_names() -> None:
    net = UNet(16, 3, 20, attn_resolutions=(), **SIZES)
    assert list(net.enc) == [
        *("16x16_conv", "16x16_block0", "16x16_block1"),
        *("8x8_down", "8x8_block0", "8x8_block1"),
    ]
    assert list(net.dec) == [
        *("8x8_in0", "8x8_in1", "8x8_block0", "8x8_block1", "8x8_block2"),
        *("16x16_up", "16x16_block0", "16x16_block1", "16x16_block2"),
    ]
    assert attending(net) == ["dec.8x8_in0"]


def test_levels_with_attention_have_it_in_their_blocks_alone() -> None:
    low = ["enc.8x8_block0", "enc.8x8_block1", "dec.8x8_in0", "dec.8x8_block0", "dec.8x8_block1", "dec.8x8_block2"]
    assert attending(UNet(16, 3, 20, attn_resolutions=(8,), **SIZES)) == low
    top = [f"dec.16x16_block{i}" for i in range(3)]
    assert attending(UNet(16, 3, 20, attn_resolutions=(16,), **SIZES)) == [
        *("enc.16x16_block0", "enc.16x16_block1", "dec.8x8_in0", *top)
    ]


@pytest.mark.parametrize(("extra", "names"), [(0, ["enc.8x8_block0", "dec.8x8_in0", "dec.8x8_block2"]),
                                              (1, ["enc.8x8_block1", "dec.8x8_in0", "dec.8x8_block1"]),
                                              (2, ["dec.8x8_in0", "dec.8x8_block0"]),
                                              (None, ["dec.8x8_in0"])])  # fmt: skip
def test_extra_attention_is_below_the_first_level_and_0_is_a_number(extra: int | None, names: list[str]) -> None:
    assert attending(UNet(16, 3, 20, attn_resolutions=(), extra_attn=extra, **SIZES)) == names


def test_the_source_encoder_ends_with_its_last_attention_and_gives_what_the_denoiser_takes() -> None:
    options = dict(attn_resolutions=(8,), **SIZES)
    encoder = UNet(16, 3, 20, source_encoder=True, **options)
    assert list(encoder.dec)[-1] == "8x8_block2"
    assert not hasattr(encoder, "out_conv")
    features = encoder(torch.randn(2, 3, 16, 16), torch.zeros(2), torch.zeros(2, 20))
    denoiser = UNet(16, 3, 20, **options)
    assert [(f.shape[1], f.shape[2]) for f in features] == denoiser.feature_shapes == [(16, 8)] * 6
    assert denoiser(torch.randn(2, 3, 16, 16), torch.zeros(2), torch.zeros(2, 20), features).shape == (2, 3, 16, 16)


def test_head_widths_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        UNet(15, 3, 20, **SIZES)
    with pytest.raises(ValueError, match="cannot be shared by heads"):
        Block(8, 8, 8, attention=True, channels_per_head=16)


@pytest.mark.parametrize("decoder", [False, True])
def test_activations_are_clipped_to_256(decoder: bool) -> None:
    block = Block(4, 4, 8, decoder=decoder, clip_act=2.0)
    assert float(block(1000 * torch.randn(1, 4, 8, 8), torch.randn(1, 8)).detach().abs().max()) <= 2
    assert Block(4, 4, 8).clip_act == 256
    assert (Block(4, 4, 8).res_main_weight, Block(4, 4, 8).attn_main_weight) == pytest.approx(
        (0.7 / 0.58**0.5, 0.7 / 0.58**0.5)
    )
