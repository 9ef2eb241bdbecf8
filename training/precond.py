"""The preconditioned network D(src, dst; sigma, geometry): docs/method.md, section 5; EDM, table 1."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dnnlib.util import UserError
from torch_utils.cameras import split_geometry
from torch_utils.epipolar import epipolar_distance
from torch_utils.warping import sweep_planes
from training.conditioning import low_resolution_image, pixel_grid, warp_grid
from training.layers import MPConv, MPFourier
from training.network_config import NetworkConfig
from training.unet import SourceFeature, UNet


@dataclass(frozen=True)
class GeometryTerms:
    """What a pair's geometry gives that no noise level changes: worked out once per sample.

    Attributes:
        distances: tokens a side -> epipolar distances [B, T, S], for `epipolar_attention_bias`.
        source_coordinates, target_coordinates: Fourier features of the pixel grid and of the grid moved by depth,
            [B, logvar_channels, R, R], for `warp_depth_coor`.
        planes: the source view at each depth of a sweep, [B, plane_sweep, 3, R, R]; outside: where it has no pixel,
            [B, plane_sweep, R, R].
    """

    distances: dict[int, torch.Tensor] | None = field(default=None)
    source_coordinates: torch.Tensor | None = None
    target_coordinates: torch.Tensor | None = None
    planes: torch.Tensor | None = None
    outside: torch.Tensor | None = None


class NVPrecond(nn.Module):
    """Novel-view network: source encoder, denoiser with cross-attention to it, EDM preconditioning, log-variance.

    Args: those of `NetworkConfig`.

    Attributes:
        arguments: what the network was built with: all that a file needs beside the weights.
        compute_dtype: dtype of the U-Nets' activations; None follows `use_fp16`.
        frozen: see `freeze`.
        typical_depth: median z-depth of the views it was trained on, in the unit of their poses; None: not known.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        config = NetworkConfig(*args, **kwargs)
        self.arguments = config
        self.compute_dtype: torch.dtype | None = None
        self.frozen = False
        self.typical_depth: float | None = None

        coordinates = config.logvar_channels if config.warp_depth_coor else 0
        if not config.uncond:
            self.encoder = UNet(
                config.img_resolution,
                config.img_channels + coordinates + config.depth_input,
                config.label_dim,
                source_encoder=True,
                channels_per_head=config.encoder_head_channels,
                **config.unet_arguments(),
            )
        self.unet = UNet(
            config.img_resolution,
            config.img_channels * (2 if config.super_res else 1)
            + coordinates
            + (config.img_channels + 1) * config.plane_sweep,
            config.label_dim,
            out_channels=config.img_channels + config.plane_sweep,
            epipolar_attention_bias=config.epipolar_attention_bias,
            channels_per_head=config.denoiser_head_channels,
            **config.unet_arguments(),
        )
        if config.plane_sweep:
            self.blend_gain = nn.Parameter(torch.tensor(config.plane_blend_gain))
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
        src: torch.Tensor,
        dst: torch.Tensor,
        sigma: torch.Tensor,
        geometry: torch.Tensor,
        conditioning_image: torch.Tensor | None = None,
        return_logvar: bool = False,
        *,
        source_features: Sequence[SourceFeature] | None = None,
        terms: GeometryTerms | None = None,
        randn_like: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """D = c_skip dst + c_out F(c_in dst; c_noise, geometry, source features).

        With a plane sweep the noise is taken off what the planes do not show. With weights w_k, a softmax over further
        outputs of F, D = b + c_skip (dst - b) + c_out F(c_in (dst - m); ...) where b = sum_k w_k plane_k, and m is
        the mean of the planes. Super-resolution blends the planes' details, over the low-resolution image.

        Args:
            src: source view [B, 3 or 4, R, R] in [-1, 1].
            dst: noisy target view [B, 3, R, R], unit of [-1, 1] plus noise.
            sigma: noise level [B] (or one number).
            geometry: normalised geometry vectors [B, 20].
            conditioning_image: low-resolution image, resized to R, [B, 3, R, R], for `super_res`.
            return_logvar: also return the log-variance u(sigma) [B, 1, 1, 1].
            source_features, terms: to reuse what `geometry_terms` and `encode_source` gave, or what
                `unet.keys_and_values` made of the latter.
            randn_like: where the noise on the conditioning image comes from.

        Returns: the denoised view, float32 [B, 3, R, R].
        """
        dst = dst.to(torch.float32)
        sigma = sigma.to(dst.device, torch.float32).expand(len(dst)).reshape(-1, 1, 1, 1)
        geometry = self._geometry(geometry)
        if terms is None:
            terms = self.geometry_terms(src, geometry)
        if source_features is None:
            source_features = self.encode_source(src, sigma.flatten(), geometry, terms)

        variance = sigma**2 + self.arguments.sigma_data**2
        c_skip = self.arguments.sigma_data**2 / variance
        c_out = sigma * self.arguments.sigma_data / variance.sqrt()
        c_in = 1 / variance.sqrt()
        c_noise = sigma.flatten().log() / 4

        extra = []
        if self.super_res:
            if conditioning_image is None:
                raise ValueError("a super-resolution network needs conditioning_image, the low-resolution view")
            conditioning_image = conditioning_image.to(torch.float32)
            noise = self.arguments.noisy_sr * randn_like(conditioning_image) if self.arguments.noisy_sr else 0
            extra.append(conditioning_image + noise)
        if self.arguments.warp_depth_coor:
            extra.append(terms.target_coordinates)
        expected = 0
        if self.arguments.plane_sweep:
            planes = terms.planes
            extra += [planes.flatten(1, 2), terms.outside]
            if self.super_res:
                planes = extra[0][:, None] + planes - low_resolution_image(planes.flatten(0, 1)).view_as(planes)
            expected = planes.mean(dim=1)

        x = torch.cat([c_in * (dst - expected), *extra], dim=1).to(self._dtype(dst.device))
        output = self.unet(x, c_noise, geometry, source_features, terms.distances).to(torch.float32)
        if self.arguments.plane_sweep:
            output, choice = output.split([self.arguments.img_channels, self.arguments.plane_sweep], dim=1)
            weights = (self.blend_gain * choice).softmax(dim=1)
            expected = (weights[:, :, None] * planes).sum(dim=1)
        denoised = expected + c_skip * (dst - expected) + c_out * output
        if not return_logvar:
            return denoised
        return denoised, self.logvar(sigma)

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

    def compile_parts(self) -> NVPrecond:
        """Have `torch.compile` fuse the U-Nets when they are first used, on CUDA into graphs; returns the network.

        The arithmetic around them stays as it is: it is float32, and small. Raises UserError without a compiler.
        """
        on_cuda = next(self.parameters()).is_cuda
        if not on_cuda and shutil.which(os.environ.get("CXX", "g++")) is None:
            raise UserError("--compile needs a C++ compiler on this device: install g++, or leave it out")
        for part in self.children():
            if isinstance(part, UNet):
                part.compile(mode="reduce-overhead" if on_cuda else "default")
        return self

    def encode_source(
        self,
        src: torch.Tensor,
        sigma: torch.Tensor,
        geometry: torch.Tensor,
        terms: GeometryTerms | None = None,
    ) -> list[torch.Tensor]:
        """Features of the source view for `source_features`: the outputs of all attention blocks of the encoder.

        They depend on sigma unless the network has `no_time_enc`. An unconditional network gives zeros.
        """
        dtype = self._dtype(src.device)
        if self.arguments.uncond:
            return [
                torch.zeros(len(src), channels, side, side, dtype=dtype, device=src.device)
                for channels, side in self.unet.feature_shapes
            ]
        geometry = self._geometry(geometry)
        inputs = [src[:, : self.arguments.img_channels + self.arguments.depth_input].to(torch.float32)]
        if self.arguments.warp_depth_coor:
            terms = terms or self.geometry_terms(src, geometry)
            inputs.append(terms.source_coordinates)
        c_noise = sigma.to(torch.float32).expand(len(src)).log() / 4
        if self.arguments.no_time_enc:
            c_noise = torch.zeros_like(c_noise)
        return self.encoder(torch.cat(inputs, dim=1).to(dtype), c_noise, geometry)

    def geometry_terms(self, src: torch.Tensor, geometry: torch.Tensor) -> GeometryTerms:
        """Epipolar distances, warped coordinates and swept planes, in float32; see `GeometryTerms`."""
        distances = source_coordinates = target_coordinates = planes = outside = None
        geometry = self._geometry(geometry)
        cameras = split_geometry(geometry, self.img_resolution)
        if self.arguments.epipolar_attention_bias:
            sides = {side for _, side in self.unet.feature_shapes}
            distances = {side: epipolar_distance(*cameras, self.img_resolution, side) for side in sides}
        if self.arguments.warp_depth_coor:
            visible = (src[:, : self.arguments.img_channels] != 0).any(dim=(1, 2, 3), keepdim=True) & (
                not self.arguments.uncond
            )
            depth = src[:, self.arguments.img_channels :].to(torch.float32)
            grid = pixel_grid(self.img_resolution, depth).expand(len(src), -1, -1, -1)
            source_coordinates = self._coordinate_features(grid) * visible
            target_coordinates = self._coordinate_features(warp_grid(depth, geometry)) * visible
        if self.arguments.plane_sweep:
            image = src[:, : self.arguments.img_channels].to(torch.float32)
            inverse_depths = self._inverse_depths(src.device)
            planes, inside = sweep_planes(image, *cameras, inverse_depths)
            outside = (~inside).squeeze(2).to(planes)
        return GeometryTerms(distances, source_coordinates, target_coordinates, planes, outside)

    def _inverse_depths(self, device: torch.device) -> torch.Tensor:
        even = torch.linspace(0, 1, self.arguments.plane_sweep, device=device)
        return self.arguments.plane_nearest * even**self.arguments.plane_spacing

    def _coordinate_features(self, grid: torch.Tensor) -> torch.Tensor:
        """The first half of the log-variance features of each coordinate: [B, R, R, 2] to [B, channels, R, R]."""
        half = len(self.logvar_fourier.freqs) // 2
        features = self.logvar_fourier(grid.reshape(-1))[:, :half].reshape(*grid.shape[:3], -1)
        return features.permute(0, 3, 1, 2)

    def _geometry(self, geometry: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(geometry, dtype=torch.float32) if self.arguments.uncond else geometry.to(torch.float32)

    def _dtype(self, device: torch.device) -> torch.dtype:
        if self.compute_dtype is not None:
            return self.compute_dtype
        return torch.float16 if self.arguments.use_fp16 and device.type == "cuda" else torch.float32
