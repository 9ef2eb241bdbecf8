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
from torch_utils.cameras import GEOMETRY_DIM, split_geometry
from torch_utils.epipolar import epipolar_distance
from torch_utils.warping import sweep_planes
from training.conditioning import low_resolution_image, pixel_grid, warp_grid
from training.layers import MPConv, MPFourier
from training.unet import SourceFeature, UNet

# A super-resolution denoiser has heads of 32 channels, its source encoder of 64. Shapes do not show it.
_HEAD_CHANNELS = 64
_SUPER_RES_HEAD_CHANNELS = 32
# Inverse depth of the nearest plane of a sweep, in one over the unit of the poses; the others lie denser farther away.
_NEAREST_PLANE = 0.5
# First value of the gain on what a network says of each plane: outputs of unit variance make soft choices.
_BLEND_GAIN = 3.0


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

    Args:
        img_resolution: side R of the views; img_channels: 3; label_dim: 20, the geometry vector.
        no_time_enc: the source encoder gets c_noise = 0, so its features serve a whole sample.
        uncond: no source encoder, zero features and zero geometry (the guidance network).
        super_res: the denoiser also gets a low-resolution image, with `noisy_sr` N(0, 1) added.
        depth_input: src has a fourth channel, `conditioning.normalize_inverse_depth`.
        warp_depth_coor: src has a fourth channel, z-depth; Fourier features of coordinates moved by it are input.
        epipolar_attention_bias: attention to source tokens is biased by their distance from epipolar lines.
        plane_sweep: the denoiser also gets the source view as the target camera sees it if all is at one depth, for
            so many depths (Collins 1996), and says how to blend these planes: see `forward`. 0 is none.
        use_fp16: compute in float16 on CUDA, unless `compute_dtype` says otherwise.
        sigma_data: standard deviation of the views, or of what is left of them after the blend of planes.
        channels_per_head: for denoiser and source encoder; None: 64, or 32 in a super-resolution denoiser.
        unet_kwargs: see `UNet`.

    Attributes:
        init_kwargs: the arguments the network was built with: all that a file needs beside the weights.
        compute_dtype: dtype of the U-Nets' activations; None follows `use_fp16`.
        frozen: see `freeze`.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int = 3,
        label_dim: int = GEOMETRY_DIM,
        *,
        no_time_enc: bool = False,
        uncond: bool = False,
        super_res: bool = False,
        noisy_sr: float = 0.25,
        depth_input: bool = False,
        warp_depth_coor: bool = False,
        epipolar_attention_bias: bool = False,
        plane_sweep: int = 0,
        use_fp16: bool = True,
        sigma_data: float = 0.5,
        logvar_channels: int = 128,
        channels_per_head: int | None = None,
        **unet_kwargs: Any,
    ) -> None:
        arguments = {
            name: value for name, value in locals().items() if not name.startswith(("self", "_", "unet_kwargs"))
        }
        super().__init__()
        self.init_kwargs: dict[str, Any] = {**arguments, **unet_kwargs}
        if depth_input and warp_depth_coor:
            raise ValueError("depth_input and warp_depth_coor both want the fourth channel of src: choose one")
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.no_time_enc = no_time_enc
        self.uncond = uncond
        self.super_res = super_res
        self.noisy_sr = noisy_sr
        self.depth_input = depth_input
        self.warp_depth_coor = warp_depth_coor
        self.epipolar_attention_bias = epipolar_attention_bias
        self.plane_sweep = plane_sweep
        self.use_fp16 = use_fp16
        self.sigma_data = sigma_data
        self.compute_dtype: torch.dtype | None = None
        self.frozen = False

        coordinates = logvar_channels if warp_depth_coor else 0
        denoiser_heads = _SUPER_RES_HEAD_CHANNELS if super_res else _HEAD_CHANNELS
        if not uncond:
            self.encoder = UNet(
                img_resolution,
                img_channels + coordinates + depth_input,
                label_dim,
                source_encoder=True,
                channels_per_head=channels_per_head or _HEAD_CHANNELS,
                **unet_kwargs,
            )
        self.unet = UNet(
            img_resolution,
            img_channels * (2 if super_res else 1) + coordinates + (img_channels + 1) * plane_sweep,
            label_dim,
            out_channels=img_channels + plane_sweep,
            epipolar_attention_bias=epipolar_attention_bias,
            channels_per_head=channels_per_head or denoiser_heads,
            **unet_kwargs,
        )
        if plane_sweep:
            self.blend_gain = nn.Parameter(torch.tensor(_BLEND_GAIN))
        self.logvar_fourier = MPFourier(logvar_channels)
        self.logvar_linear = MPConv(logvar_channels, 1, None)

    @property
    def needs_depth(self) -> bool:
        """Whether `src` has a fourth channel."""
        return self.depth_input or self.warp_depth_coor

    @property
    def source_channels(self) -> int:
        """Channels of `src`: colour, and depth where an option needs it."""
        return self.img_channels + self.needs_depth

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

        variance = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / variance
        c_out = sigma * self.sigma_data / variance.sqrt()
        c_in = 1 / variance.sqrt()
        c_noise = sigma.flatten().log() / 4

        extra = []
        if self.super_res:
            if conditioning_image is None:
                raise ValueError("a super-resolution network needs conditioning_image, the low-resolution view")
            conditioning_image = conditioning_image.to(torch.float32)
            noise = self.noisy_sr * randn_like(conditioning_image) if self.noisy_sr else 0
            extra.append(conditioning_image + noise)
        if self.warp_depth_coor:
            extra.append(terms.target_coordinates)
        expected = 0
        if self.plane_sweep:
            planes = terms.planes
            extra += [planes.flatten(1, 2), terms.outside]
            if self.super_res:
                planes = extra[0][:, None] + planes - low_resolution_image(planes.flatten(0, 1)).view_as(planes)
            expected = planes.mean(dim=1)

        x = torch.cat([c_in * (dst - expected), *extra], dim=1).to(self._dtype(dst.device))
        output = self.unet(x, c_noise, geometry, source_features, terms.distances).to(torch.float32)
        if self.plane_sweep:
            output, choice = output.split([self.img_channels, self.plane_sweep], dim=1)
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
        if self.uncond:
            return [
                torch.zeros(len(src), channels, side, side, dtype=dtype, device=src.device)
                for channels, side in self.unet.feature_shapes
            ]
        geometry = self._geometry(geometry)
        inputs = [src[:, : self.img_channels + self.depth_input].to(torch.float32)]
        if self.warp_depth_coor:
            terms = terms or self.geometry_terms(src, geometry)
            inputs.append(terms.source_coordinates)
        c_noise = sigma.to(torch.float32).expand(len(src)).log() / 4
        if self.no_time_enc:
            c_noise = torch.zeros_like(c_noise)
        return self.encoder(torch.cat(inputs, dim=1).to(dtype), c_noise, geometry)

    def geometry_terms(self, src: torch.Tensor, geometry: torch.Tensor) -> GeometryTerms:
        """Epipolar distances, warped coordinates and swept planes, in float32; see `GeometryTerms`."""
        distances = source_coordinates = target_coordinates = planes = outside = None
        geometry = self._geometry(geometry)
        cameras = split_geometry(geometry, self.img_resolution)
        if self.epipolar_attention_bias:
            sides = {side for _, side in self.unet.feature_shapes}
            distances = {side: epipolar_distance(*cameras, self.img_resolution, side) for side in sides}
        if self.warp_depth_coor:
            visible = (src[:, : self.img_channels] != 0).any(dim=(1, 2, 3), keepdim=True) & (not self.uncond)
            depth = src[:, self.img_channels :].to(torch.float32)
            grid = pixel_grid(self.img_resolution, depth).expand(len(src), -1, -1, -1)
            source_coordinates = self._coordinate_features(grid) * visible
            target_coordinates = self._coordinate_features(warp_grid(depth, geometry)) * visible
        if self.plane_sweep:
            image = src[:, : self.img_channels].to(torch.float32)
            inverse_depths = _NEAREST_PLANE * torch.linspace(0, 1, self.plane_sweep, device=src.device) ** 2
            planes, inside = sweep_planes(image, *cameras, inverse_depths)
            outside = (~inside).squeeze(2).to(planes)
        return GeometryTerms(distances, source_coordinates, target_coordinates, planes, outside)

    def _coordinate_features(self, grid: torch.Tensor) -> torch.Tensor:
        """The first half of the log-variance features of each coordinate: [B, R, R, 2] to [B, channels, R, R]."""
        half = len(self.logvar_fourier.freqs) // 2
        features = self.logvar_fourier(grid.reshape(-1))[:, :half].reshape(*grid.shape[:3], -1)
        return features.permute(0, 3, 1, 2)

    def _geometry(self, geometry: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(geometry, dtype=torch.float32) if self.uncond else geometry.to(torch.float32)

    def _dtype(self, device: torch.device) -> torch.dtype:
        if self.compute_dtype is not None:
            return self.compute_dtype
        return torch.float16 if self.use_fp16 and device.type == "cuda" else torch.float32
