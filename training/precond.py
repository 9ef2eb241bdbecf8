"""The preconditioned network D(src, dst; sigma, geometry): docs/method.md, section 5; EDM, table 1."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from dnnlib.util import UserError, present
from training.conditioning import Conditioning, Prepared, Tensors
from training.encodings import Encodings
from training.layers import MPConv, MPFourier
from training.network_config import NetworkConfig
from training.unet import SourceFeature, UNet

_MOST_COMPILED = 64  # parts of networks, each for so many sizes of a batch


class InnerNetwork(Protocol):
    """The network F of the equation, or the source encoder: a module that `ARCHITECTURES` can build."""

    @property
    def feature_shapes(self) -> list[tuple[int, int]]:
        """(channels, side) of each feature of the source view that it gives or attends to."""

    def keys_and_values(self, source_features: Sequence[torch.Tensor]) -> list[Tensors]:
        """Return what a denoiser makes of source features [B, channels, side, side], to be given instead of them."""

    def __call__(
        self,
        x: torch.Tensor,
        c_noise: torch.Tensor,
        geometry: torch.Tensor,
        source_features: Sequence[SourceFeature] = (),
        distances: dict[int, torch.Tensor] | None = None,
    ) -> Any:
        """Denoiser: [B, out_channels, R, R]; source encoder: a list of its features. Arguments: see `UNet.forward`."""


def _unet(config: NetworkConfig, in_channels: int, out_channels: int | None) -> UNet:
    options: dict[str, Any]
    if out_channels is None:
        options = {"source_encoder": True, "channels_per_head": config.encoder_head_channels}
    else:
        options = {
            "out_channels": out_channels,
            "channels_per_head": config.denoiser_head_channels,
            "epipolar_attention_bias": config.epipolar_attention_bias,
        }
    return UNet(config.img_resolution, in_channels, config.label_dim, **options, **config.unet_arguments())


# By `NetworkConfig.architecture`: from the config, channels of the input, and those of the output, None for a source
# encoder.
ARCHITECTURES: dict[str, Callable[[NetworkConfig, int, int | None], InnerNetwork]] = {"unet": _unet}


class NVPrecond(nn.Module):
    """Novel-view network: source encoder, denoiser with cross-attention to it, EDM preconditioning, log-variance.

    Args: those of `NetworkConfig`.

    Attributes:
        arguments: what the network was built with: all that a file needs beside the weights.
        encodings: what it is given beside the noisy view.
        compute_dtype: dtype of the inner networks' activations; None follows `use_fp16`.
        frozen: see `freeze`. graphs: whether the inner networks run as CUDA graphs, see `compile_parts`.
        typical_depth: median z-depth of the views it was trained on, in the unit of their poses; None: not known.
    """

    unet: InnerNetwork
    encoder: InnerNetwork

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        config = NetworkConfig(*args, **kwargs)
        if config.architecture not in ARCHITECTURES:
            raise UserError(
                f"no network can be built: there is no architecture {config.architecture!r}; "
                f"known are {', '.join(ARCHITECTURES)}"
            )
        self.arguments = config
        self.encodings = Encodings(config, config.img_channels, config.logvar_channels)
        self.compute_dtype: torch.dtype | None = None
        self.frozen = False
        self.graphs = False
        self.typical_depth: float | None = None

        build, channels = ARCHITECTURES[config.architecture], config.img_channels
        if not config.uncond:
            self.encoder = build(config, channels + self.encodings.encoder_channels, None)
        self.unet = build(config, channels + self.encodings.input_channels, channels + sum(self.encodings.choices))
        for name, value in self.encodings.learned.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))
        self.logvar_fourier = MPFourier(config.logvar_channels)
        self.logvar_linear = MPConv(config.logvar_channels, 1, None)

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """`arguments` as JSON has them."""
        return self.arguments.to_dict()

    @property
    def img_resolution(self) -> int:
        """Side of the views."""
        return self.arguments.img_resolution

    @property
    def super_res(self) -> bool:
        """Whether the network enlarges a low-resolution image."""
        return self.arguments.super_res

    @property
    def needs_depth(self) -> bool:
        """Whether `src` has a fourth channel."""
        return self.arguments.needs_depth

    @property
    def depth_form(self) -> tuple[bool, bool]:
        """Which depth the fourth channel is: (`depth_input`, `warp_depth_coor`)."""
        return self.arguments.depth_input, self.arguments.warp_depth_coor

    @property
    def source_channels(self) -> int:
        """Channels of `src`: colour, and depth where an option needs it."""
        return self.arguments.img_channels + self.needs_depth

    def forward(
        self,
        src: torch.Tensor | Prepared,
        dst: torch.Tensor,
        sigma: torch.Tensor,
        geometry: torch.Tensor | None = None,
        conditioning_image: torch.Tensor | None = None,
        return_logvar: bool = False,
        *,
        source_features: Sequence[torch.Tensor] | None = None,
        randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """D = b + c_skip (dst - b) + c_out F(c_in (dst - m); c_noise, geometry, source features).

        m and b are what the encodings let one expect of the view, before and after F has been evaluated; further
        outputs of F go into b. Both are 0 but with a plane sweep, whose planes they are means of.

        Args:
            src: source view [B, 3 or 4, R, R] in [-1, 1], or what `prepare` made of it.
            dst: noisy target view [B, 3, R, R], unit of [-1, 1] plus noise.
            sigma: noise level [B] (or one number).
            geometry: normalised geometry vectors [B, 20]; not with a prepared `src`.
            conditioning_image: low-resolution image, resized to R, [B, 3, R, R], for `super_res`; likewise.
            return_logvar: also return the log-variance u(sigma) [B, 1, 1, 1].
            source_features: to reuse what `encode_source` gave; likewise.
            randn_like: where the noise on the conditioning image comes from.

        Returns: the denoised view, float32 [B, 3, R, R].
        """
        if self.graphs:  # the outputs of one graph, features, are the inputs of the next: they last for one evaluation
            torch.compiler.cudagraph_mark_step_begin()
        dst = dst.to(torch.float32)
        sigma = sigma.to(dst.device, torch.float32).expand(len(dst)).reshape(-1, 1, 1, 1)
        prepared = src
        if not isinstance(prepared, Prepared):
            prepared = self.prepare(prepared, present(geometry), conditioning_image, source_features)
        features: Sequence[SourceFeature] = prepared.features
        for encoder_input in prepared.encoder_input:
            features = self._encode(encoder_input, sigma, prepared.geometry)
        told = self.encodings.draw(prepared.told, randn_like)

        sigma_data = self.arguments.sigma_data
        variance = sigma**2 + sigma_data**2
        c_skip = sigma_data**2 / variance
        c_out = sigma * sigma_data / variance.sqrt()
        c_in = 1 / variance.sqrt()
        c_noise = sigma.flatten().log() / 4

        m = self.encodings.mean(told)
        parts = (c_in * (dst - m), *self.encodings.input(told))
        x = torch.cat([part.to(self._dtype(dst.device)) for part in parts], dim=1)
        distances = self.encodings.distances(told) or None
        output = self.unet(x, c_noise, prepared.geometry, features, distances).to(torch.float32)
        f, *choices = output.split([self.arguments.img_channels, *self.encodings.choices], dim=1)
        b = self.encodings.blend(told, choices, self)
        denoised = b + c_skip * (dst - b) + c_out * f
        return (denoised, self.logvar(sigma)) if return_logvar else denoised

    def prepare(
        self,
        src: torch.Tensor,
        geometry: torch.Tensor,
        conditioning_image: torch.Tensor | None = None,
        source_features: Sequence[torch.Tensor] | None = None,
    ) -> Prepared:
        """Compute what no noise level changes, to give `forward` instead of its arguments of these names.

        The source view is encoded too, where its features do not depend on the noise level.
        """
        given = self._given(src, geometry, conditioning_image)
        told = self.encodings.prepare(given, self)
        encoder_input = self.encodings.encoder_input(given, self)
        if source_features is None and (self.arguments.no_time_enc or self.arguments.uncond):
            any_level = torch.ones(len(src), device=src.device)
            source_features = self._encode(encoder_input, any_level, given.geometry)
        if source_features is None:
            return Prepared(given.geometry, (encoder_input,), (), told)
        return Prepared(given.geometry, (), tuple(self.unet.keys_and_values(source_features)), told)

    def logvar(self, sigma: torch.Tensor) -> torch.Tensor:
        """u(sigma), the learned log-variance of the loss at a noise level: [B, 1, 1, 1]."""
        return self.logvar_linear(self.logvar_fourier(sigma.flatten().log() / 4)).reshape(-1, 1, 1, 1)

    def freeze(self, dtype: torch.dtype | None = None) -> NVPrecond:
        """Make the network ready for sampling: every weight is normalised, scaled and cast once instead of at each use.

        Afterwards it can be neither trained nor saved. `dtype` is that of the computation, by default what it was.
        Returns the network itself.
        """
        self.compute_dtype = dtype or self._dtype(next(self.parameters()).device)
        for layer in self.modules():
            if isinstance(layer, MPConv):
                layer.freeze(self.compute_dtype)
        self.frozen = True
        return self.eval()

    def compile_parts(self, graphs: bool = True) -> NVPrecond:
        """Have `torch.compile` fuse the inner networks at their first use, on CUDA into `graphs`; returns the network.

        The arithmetic around them stays as it is: it is float32, and small. Raises UserError without a compiler.
        """
        on_cuda = next(self.parameters()).is_cuda
        self.graphs = on_cuda and graphs
        # All parts of all networks are instances of one module, and share the limit; beyond it nothing is compiled.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_COMPILED)
        if not on_cuda and shutil.which(os.environ.get("CXX", "g++")) is None:
            raise UserError("`compile` needs a C++ compiler on this device: install g++, or leave it out")
        for part in ("encoder", "unet"):
            if hasattr(self, part):
                self.get_submodule(part).compile(mode="reduce-overhead" if self.graphs else "default")
        return self

    def encode_source(self, src: torch.Tensor, sigma: torch.Tensor, geometry: torch.Tensor) -> list[torch.Tensor]:
        """Features of the source view for `source_features`: the outputs of all attention blocks of the encoder.

        They depend on sigma unless the network has `no_time_enc`. An unconditional network gives zeros.
        """
        given = self._given(src, geometry)
        return self._encode(self.encodings.encoder_input(given, self), sigma, given.geometry)

    def _encode(self, encoder_input: torch.Tensor, sigma: torch.Tensor, geometry: torch.Tensor) -> list[torch.Tensor]:
        batch, device = len(encoder_input), encoder_input.device
        dtype = self._dtype(device)
        if self.arguments.uncond:
            shapes = self.unet.feature_shapes
            return [torch.zeros(batch, channels, side, side, dtype=dtype, device=device) for channels, side in shapes]
        c_noise = sigma.to(torch.float32).flatten().expand(batch).log() / 4
        if self.arguments.no_time_enc:
            c_noise = torch.zeros_like(c_noise)
        return self.encoder(encoder_input.to(dtype), c_noise, geometry)

    def _given(
        self, src: torch.Tensor, geometry: torch.Tensor, conditioning_image: torch.Tensor | None = None
    ) -> Conditioning:
        """In float32; an unconditional network is given a black source view and zero geometry."""
        image, *depth = src.to(torch.float32).split(self.arguments.img_channels, dim=1)
        geometry = geometry.to(torch.float32)
        if self.arguments.uncond:
            image, geometry = torch.zeros_like(image), torch.zeros_like(geometry)
        if conditioning_image is not None:
            conditioning_image = conditioning_image.to(torch.float32)
        return Conditioning(image, depth[0] if depth else None, geometry, conditioning_image)

    def _dtype(self, device: torch.device) -> torch.dtype:
        if self.compute_dtype is not None:
            return self.compute_dtype
        return torch.float16 if self.arguments.use_fp16 and device.type == "cuda" else torch.float32
