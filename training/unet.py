"""The U-Net of EDM2 (arXiv:2312.02696, figure 21) with cross-attention to a source view (VIVID, arXiv:2411.07765).

One class of block and one of network serve both the denoiser and the source encoder. Shapes: B images, C channels,
T tokens of the denoiser and S tokens of the source, H heads of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from training.layers import (
    MP_SILU_GAIN,
    MPConv,
    MPFourier,
    MPHeads,
    attend,
    mp_cat,
    mp_sum,
    mp_sum_weights,
    normalize,
    resample,
)

# What a block is given of the source view: the encoder's feature [B, C, R, R], or the keys and values [B, H, S, D] that
# the block makes of it (see `UNet.keys_and_values`).
SourceFeature = torch.Tensor | tuple[torch.Tensor, ...]


class Block(nn.Module):
    """Residual block, optionally with self-attention, optionally with keys and values of a source feature appended.

    Args:
        in_channels, out_channels: width of the input and of the output.
        emb_channels: width of the embedding of noise level and geometry.
        decoder: decoder flavour (1x1 skip just before the sum) instead of encoder flavour (1x1 skip first, then
            normalisation over channels).
        resample_mode: "keep", "down" or "up".
        attention, cross_attention, epipolar_bias: which of these the block has, each needing the one before it.
        channels_per_head: wanted width of a head; there are floor(out_channels / channels_per_head) heads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        decoder: bool = False,
        resample_mode: str = "keep",
        attention: bool = False,
        cross_attention: bool = False,
        epipolar_bias: bool = False,
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float = 256.0,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.decoder = decoder
        self.resample_mode = resample_mode
        self.num_heads = out_channels // channels_per_head if attention else 0
        self.dropout = dropout
        # The weight of the branch in a sum is part of its last convolution; only that of the main path is applied.
        self.res_main_weight, res_weight = mp_sum_weights(res_balance)
        self.attn_main_weight, attn_weight = mp_sum_weights(attn_balance)
        self.clip_act = clip_act
        if attention and (self.num_heads < 1 or out_channels % self.num_heads):
            raise ValueError(f"{out_channels} channels cannot be shared by heads of {channels_per_head}")

        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(in_channels if decoder else out_channels, out_channels, 3, gain=MP_SILU_GAIN)
        self.emb_linear = MPConv(emb_channels, out_channels, None)
        self.conv_res1 = MPConv(out_channels, out_channels, 3, gain=MP_SILU_GAIN * res_weight)
        self.conv_skip = MPConv(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.attn_qkv = MPHeads(out_channels, self.num_heads, 3) if attention else None
        self.x_attn_kv = MPHeads(out_channels, self.num_heads, 2) if attention and cross_attention else None
        self.attn_proj = MPConv(out_channels, out_channels, 1, gain=attn_weight) if attention else None
        has_bias = attention and cross_attention and epipolar_bias
        # Rows: mixing, log-temperature, cutoff shift, bias. Zero mixing: the network starts without geometry.
        self.epipolar_mixing = nn.Parameter(torch.zeros(4, self.num_heads)) if has_bias else None

    def forward(
        self,
        x: torch.Tensor,
        emb: torch.Tensor,
        source: SourceFeature | None = None,
        distance_BTS: torch.Tensor | None = None,
        patch: float = 1.0,
    ) -> torch.Tensor:
        """x [B, C, R, R], emb [B, E], the source feature of the same place, distance in pixels, patch in pixels."""
        x = resample(x, self.resample_mode)
        if not self.decoder:
            x = self._skip(x)
            x = normalize(x, dims=[1])
        residual = self.conv_res0(F.silu(x))
        scale = 1 + self.emb_linear(emb, gain=self.emb_gain)
        residual = F.silu(residual * scale[:, :, None, None].to(residual.dtype))
        residual = F.dropout(residual, self.dropout, self.training)
        residual = self.conv_res1(residual)
        if self.decoder:
            x = self._skip(x)
        x = torch.add(residual, x, alpha=self.res_main_weight)
        if self.attn_qkv is not None:
            x = torch.add(self._attention(x, source, distance_BTS, patch), x, alpha=self.attn_main_weight)
        return F.hardtanh(x, -self.clip_act, self.clip_act)  # the gradient of clip takes four passes

    def _skip(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.conv_skip is None else self.conv_skip(x)

    def _attention(
        self, x: torch.Tensor, source: SourceFeature | None, distance_BTS: torch.Tensor | None, patch: float
    ) -> torch.Tensor:
        assert self.attn_qkv is not None
        assert self.attn_proj is not None
        q, k, v = self.attn_qkv(x)
        bias_BHTS = None
        if self.x_attn_kv is not None:
            assert source is not None
            x_k, x_v = source if isinstance(source, tuple) else self.x_attn_kv(source.to(x.dtype))
            if self.epipolar_mixing is not None:
                assert distance_BTS is not None
                bias_BHTS = self._epipolar_bias(distance_BTS, patch)
                bias_BHTS = F.pad(bias_BHTS, (k.shape[2], 0)).to(x.dtype)  # the denoiser's own tokens come first
            k, v = torch.cat([k, x_k], dim=2), torch.cat([v, x_v], dim=2)
        y_BHTD = attend(q, k, v, bias_BHTS)
        y_BTC = rearrange(y_BHTD, "b h t d -> b t (h d)")  # channels last, as convolutions want them
        return self.attn_proj(rearrange(y_BTC, "b (y x) c -> b c y x", y=x.shape[2]))

    def _epipolar_bias(self, distance_BTS: torch.Tensor, patch: float) -> torch.Tensor:
        """m sigmoid(exp(temperature) (patch/sqrt(2) + shift - distance)) + bias: [B, H, T, S].

        docs/method.md, section 5.4.
        """
        assert self.epipolar_mixing is not None
        mixing, log_temperature, shift, bias = self.epipolar_mixing[:, :, None, None]
        inside = patch / math.sqrt(2) + shift - distance_BTS[:, None]
        return mixing * torch.sigmoid(log_temperature.exp() * inside) + bias


class UNet(nn.Module):
    """Denoiser, or with `source_encoder` the same network without cross-attention, cut after its last attention block.

    Args:
        img_resolution: side R of the image; img_channels, out_channels: without the constant channel of ones.
        label_dim: size of the geometry vector.
        model_channels, channel_mult, num_blocks: width of the levels and residual blocks in each.
        attn_resolutions: levels whose blocks have attention.
        extra_attn: number of one more block with attention in every level below the first; 0 is a number, None is none.
        Others as in docs/method.md, section 4.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        *,
        out_channels: int = 3,
        source_encoder: bool = False,
        epipolar_attention_bias: bool = False,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        extra_attn: int | None = None,
        channels_per_head: int = 64,
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.img_resolution = img_resolution
        self.label_balance = label_balance
        self.concat_balance = concat_balance
        self.source_encoder = source_encoder
        self.channels_per_head = channels_per_head
        widths = [model_channels * mult for mult in channel_mult]
        emb_channels = max(widths)
        sides = [img_resolution >> level for level in range(len(widths))]
        attended = [
            _attended(side, level, num_blocks, attn_resolutions, extra_attn) for level, side in enumerate(sides)
        ]
        if img_resolution % 2 ** (len(widths) - 1):
            raise ValueError(f"{img_resolution} pixels cannot be halved {len(widths) - 1} times")

        if not source_encoder:
            self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(widths[0])
        self.emb_noise = MPConv(widths[0], emb_channels, None)
        self.emb_label = MPConv(label_dim, emb_channels, None)

        def block(width_in: int, width_out: int, **kwargs: Any) -> Block:
            return Block(
                width_in,
                width_out,
                emb_channels,
                cross_attention=not source_encoder,
                epipolar_bias=epipolar_attention_bias,
                channels_per_head=channels_per_head,
                **kwargs,
                **block_kwargs,
            )

        skip_widths = self._build_encoder(img_channels + 1, widths, attended, block)
        self._build_decoder(skip_widths, widths, attended, block)
        if source_encoder:
            while not _has_attention(self.dec[last := list(self.dec)[-1]]):
                del self.dec[last]
        else:
            self.out_conv = MPConv(widths[0], out_channels, 3)

    def _build_encoder(
        self, width: int, widths: Sequence[int], attended: Sequence[Sequence[bool]], block: Callable[..., Block]
    ) -> list[int]:
        """`enc`, from the finest level down; returns the widths of the outputs that the decoder is given."""
        self.enc = nn.ModuleDict()
        skip_widths = []
        for level, level_width in enumerate(widths):
            name = self._level_name(level)
            if level == 0:
                self.enc[f"{name}_conv"] = MPConv(width, level_width, 3)
                width = level_width
            else:
                self.enc[f"{name}_down"] = block(width, width, resample_mode="down")
            skip_widths.append(width)
            for index, attention in enumerate(attended[level][:-1]):
                self.enc[f"{name}_block{index}"] = block(width, level_width, attention=attention)
                width = level_width
                skip_widths.append(width)
        return skip_widths

    def _build_decoder(
        self,
        skip_widths: Sequence[int],
        widths: Sequence[int],
        attended: Sequence[Sequence[bool]],
        block: Callable[..., Block],
    ) -> None:
        """`dec`, from the coarsest level up, one block more a level than the encoder."""
        self.dec = nn.ModuleDict()
        skips, width = list(skip_widths), widths[-1]
        for level, level_width in reversed(list(enumerate(widths))):
            name = self._level_name(level)
            if level == len(widths) - 1:
                self.dec[f"{name}_in0"] = block(width, width, decoder=True, attention=True)
                self.dec[f"{name}_in1"] = block(width, width, decoder=True)
            else:
                self.dec[f"{name}_up"] = block(width, width, decoder=True, resample_mode="up")
            for index, attention in enumerate(reversed(attended[level])):
                width_in = width + skips.pop()
                self.dec[f"{name}_block{index}"] = block(width_in, level_width, decoder=True, attention=attention)
                width = level_width

    def _level_name(self, level: int) -> str:
        side = self.img_resolution >> level
        return f"{side}x{side}"

    @property
    def feature_shapes(self) -> list[tuple[int, int]]:
        """(channels, resolution) of the output of every block with attention, in order."""
        named = [*self.enc.items(), *self.dec.items()]
        return [(block.out_channels, int(name.split("x")[0])) for name, block in named if _has_attention(block)]

    def keys_and_values(self, source_features: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
        """Return what the blocks make of source features, to give `forward` instead where they serve more than once."""
        blocks = [block for block in (*self.enc.values(), *self.dec.values()) if _has_attention(block)]
        pairs = zip(blocks, source_features, strict=True)
        return [block.x_attn_kv(feature) for block, feature in pairs if block.x_attn_kv is not None]

    def forward(
        self,
        x: torch.Tensor,
        c_noise: torch.Tensor,
        geometry: torch.Tensor,
        source_features: Sequence[SourceFeature] = (),
        distances: dict[int, torch.Tensor] | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """Denoiser: F(x) [B, out_channels, R, R]. Source encoder: the outputs of all its blocks with attention.

        Args:
            x: [B, img_channels, R, R], its dtype is that of the computation.
            c_noise: [B]; geometry: [B, label_dim], normalised.
            source_features: those of the source encoder, in its order, or what `keys_and_values` made of them.
            distances: tokens a side -> epipolar distances [B, T, S] in pixels.
        """
        emb = self.emb_noise(self.emb_fourier(c_noise))
        emb = F.silu(mp_sum(emb, self.emb_label(geometry.to(emb.dtype)), self.label_balance)) * MP_SILU_GAIN
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        features: list[torch.Tensor] = []
        source = iter(source_features)

        def run(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
            if not _has_attention(block):
                return block(x, emb)
            tokens = x.shape[-1]
            distance = None if distances is None else distances[tokens]
            x = block(x, emb, next(source, None), distance, self.img_resolution / tokens)
            features.append(x)
            return x

        skips = []
        for name, block in self.enc.items():
            x = block(x) if name.endswith("conv") else run(block, x)
            skips.append(x)
        for name, block in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop(), self.concat_balance)
            x = run(block, x)
        return features if self.source_encoder else self.out_conv(x, gain=self.out_gain)


def _attended(
    side: int, level: int, num_blocks: int, attn_resolutions: Sequence[int], extra_attn: int | None
) -> list[bool]:
    """Return which blocks of a level have attention, the decoder's own last: docs/method.md, section 4.1."""
    return [side in attn_resolutions or (level > 0 and index == extra_attn) for index in range(num_blocks + 1)]


def _has_attention(block: nn.Module) -> TypeGuard[Block]:
    return getattr(block, "attn_qkv", None) is not None
