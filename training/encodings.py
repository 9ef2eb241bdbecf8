"""What the networks are given beside the noisy view: each encoding one class (docs/method.md, sections 5.1 to 5.5).

To add one, write its class, name it in `Encodings`, and add its settings to `network_config.EncodingConfig`: the
options of train_nvs.py follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from einops import rearrange

from dnnlib.util import UserError, present
from torch_utils.batches import Batch
from torch_utils.cameras import View, pixels_to_float
from torch_utils.depth import DEPTH_CHOICES, DepthModel, fill_unknown
from torch_utils.epipolar import epipolar_distance
from torch_utils.warping import sweep_planes
from training.conditioning import (
    Conditioning,
    Tensors,
    normalize_inverse_depth,
    pixel_grid,
    shrink_and_enlarge,
    warp_grid,
)
from training.network_config import EncodingConfig

if TYPE_CHECKING:
    from training.precond import NVPrecond

RandnLike = Callable[[torch.Tensor], torch.Tensor]


class Encoding:
    """One thing that the networks are given. This base class gives nothing.

    Attributes:
        input_channels, encoder_channels: what it adds to the input of the denoiser and of the source encoder.
        choices: further outputs of the denoiser that it takes.
        learned: its parameters, numbers with these first values; attributes of the network under these names.
    """

    input_channels: int = 0
    encoder_channels: int = 0
    choices: int = 0
    learned: Mapping[str, float] = MappingProxyType({})

    def depth_channel(self, depth: torch.Tensor) -> torch.Tensor | None:
        """The fourth channel of src, [B, 1, R, R], from z-depth without gaps; None: it needs none."""
        return None

    def encoder_input(self, given: Conditioning, net: NVPrecond) -> Tensors:
        """Channels for the source encoder."""
        return ()

    def prepare(self, given: Conditioning, net: NVPrecond) -> Tensors:
        """Return what it needs at every noise level, tensors of B rows: computed once per pair."""
        return ()

    def draw(self, told: Tensors, randn_like: RandnLike) -> Tensors:
        """Return what is prepared, with what is random in it drawn anew in each evaluation."""
        return told

    def input(self, told: Tensors) -> Tensors:
        """Channels for the denoiser."""
        return ()

    def mean(self, told: Tensors) -> torch.Tensor | float:
        """Return its share of m, what to expect of the view before the denoiser has seen it: [B, 3, R, R]."""
        return 0.0

    def blend(self, told: Tensors, choice: torch.Tensor, net: NVPrecond) -> torch.Tensor | float:
        """Return its share of b, what to expect of the view given its `choices` outputs of the denoiser."""
        return self.mean(told)

    def distances(self, told: Tensors) -> dict[int, torch.Tensor]:
        """Tokens a side -> distances in pixels [B, target token, source token], for the bias of attention."""
        return {}


class ConditioningImage(Encoding):
    """The low-resolution image, with noise drawn anew in each evaluation.

    Args: noise: its standard deviation; expected: it is what to expect of the view, beside the details of planes.
    """

    def __init__(self, channels: int, noise: float, expected: bool) -> None:
        self.input_channels, self.noise, self.expected = channels, noise, expected

    def prepare(self, given: Conditioning, net: NVPrecond) -> Tensors:
        if given.conditioning_image is None:
            raise ValueError("a super-resolution network needs conditioning_image, the low-resolution image")
        return (given.conditioning_image,)

    def draw(self, told: Tensors, randn_like: RandnLike) -> Tensors:
        (image,) = told
        return (image + self.noise * randn_like(image),) if self.noise else told

    def input(self, told: Tensors) -> Tensors:
        return told

    def mean(self, told: Tensors) -> torch.Tensor | float:
        return told[0] if self.expected else 0.0


class DepthInput(Encoding):
    """The relative inverse depth of the source view, for the source encoder."""

    encoder_channels = 1

    def depth_channel(self, depth: torch.Tensor) -> torch.Tensor:
        return normalize_inverse_depth(depth)

    def encoder_input(self, given: Conditioning, net: NVPrecond) -> Tensors:
        return (present(given.depth),)


class WarpedCoordinates(Encoding):
    """Fourier features of pixel coordinates, for the source encoder, and of where depth moves them, for the denoiser.

    The features are those of the log-variance, half of them for each coordinate; zero for a black source view.
    """

    def __init__(self, features: int) -> None:
        self.input_channels = self.encoder_channels = features

    def depth_channel(self, depth: torch.Tensor) -> torch.Tensor:
        return depth

    def encoder_input(self, given: Conditioning, net: NVPrecond) -> Tensors:
        grid = pixel_grid(net.img_resolution, given.image).expand(len(given.image), -1, -1, -1)
        return (self._features(grid, given, net),)

    def prepare(self, given: Conditioning, net: NVPrecond) -> Tensors:
        return (self._features(warp_grid(present(given.depth), given.geometry), given, net),)

    def input(self, told: Tensors) -> Tensors:
        return told

    def _features(self, grid_BRR2: torch.Tensor, given: Conditioning, net: NVPrecond) -> torch.Tensor:
        batch, side = grid_BRR2.shape[:2]
        features = net.logvar_fourier(grid_BRR2.flatten())[:, : self.input_channels // 2]
        visible = (given.image != 0).any(dim=(1, 2, 3), keepdim=True)
        return rearrange(features, "(b y x n) c -> b (n c) y x", b=batch, y=side, x=side) * visible


class PlaneSweep(Encoding):
    """The source view as the target camera sees it if all is at one depth, for several depths (Collins 1996).

    Besides their pictures the denoiser gets, for each plane, where it shows nothing of the source view. A softmax over
    its `choices`, one per plane, weighs the planes; with super-resolution it weighs their details alone.
    """

    def __init__(self, config: EncodingConfig, channels: int) -> None:
        self.choices, self.colours = config.plane_sweep, channels
        self.input_channels = len(self.plane_of_channel())
        self.nearest, self.spacing, self.details = config.plane_nearest, config.plane_spacing, config.super_res
        self.learned = {"blend_gain": config.plane_blend_gain}

    def inverse_depths(self) -> torch.Tensor:
        """Return those of the planes, from infinitely far to the nearest: [P]."""
        return self.nearest * torch.linspace(0, 1, self.choices) ** self.spacing

    def prepare(self, given: Conditioning, net: NVPrecond) -> Tensors:
        """Planes [B, 3, P, R, R], where each lies outside the source view [B, P, R, R], and what of them is blended."""
        planes, inside = sweep_planes(given.image, *given.cameras, self.inverse_depths().to(given.image.device))
        outside = (~inside).to(planes)
        blended = planes - shrink_and_enlarge(planes.flatten(1, 2)).view_as(planes) if self.details else planes
        return planes, outside, blended

    def input(self, told: Tensors) -> Tensors:
        planes, outside, _ = told
        return rearrange(planes, "b c p y x -> b (p c) y x"), outside

    def plane_of_channel(self) -> list[int]:
        """Which plane each channel of `input` tells of."""
        planes = range(self.choices)
        return [plane for plane in planes for _ in range(self.colours)] + [*planes]

    def mean(self, told: Tensors) -> torch.Tensor:
        return told[2].mean(dim=2)

    def blend(self, told: Tensors, choice: torch.Tensor, net: NVPrecond) -> torch.Tensor:
        weights_BP = (net.get_parameter("blend_gain") * choice).softmax(dim=1)
        return (weights_BP[:, None] * told[2]).sum(dim=2)


class MatchedPlaneSweep(PlaneSweep):
    """With how far each plane, made small, is from the low-resolution image: near 0 where its depth is true.

    The mean over colours of absolute differences, a matching cost. The low-resolution image has noise here, too, or the
    network would see past that of `ConditioningImage`.
    """

    def __init__(self, config: EncodingConfig, channels: int) -> None:
        super().__init__(config, channels)
        self.noise = config.noisy_sr

    def prepare(self, given: Conditioning, net: NVPrecond) -> Tensors:
        planes, outside, details = super().prepare(given, net)
        return planes, outside, details, planes - details, present(given.conditioning_image)

    def draw(self, told: Tensors, randn_like: RandnLike) -> Tensors:
        *prepared, image = told
        return *prepared, image + self.noise * randn_like(image)

    def input(self, told: Tensors) -> Tensors:
        *swept, small_planes, image = told
        return *super().input(tuple(swept)), (small_planes - image[:, :, None]).abs().mean(dim=1)

    def plane_of_channel(self) -> list[int]:
        return [*super().plane_of_channel(), *range(self.choices)]


class EpipolarBias(Encoding):
    """Distances of source tokens from the epipolar lines of target tokens: attention is biased by them."""

    def prepare(self, given: Conditioning, net: NVPrecond) -> Tensors:
        sides = sorted({side for _, side in net.unet.feature_shapes})
        return tuple(epipolar_distance(*given.cameras, net.img_resolution, side) for side in sides)

    def distances(self, told: Tensors) -> dict[int, torch.Tensor]:
        return {round(distance.shape[-1] ** 0.5): distance for distance in told}


class Encodings:
    """All encodings of a network, in the order of their channels.

    Args:
        config: which; image_channels: of a view; coordinate_features: for `warp_depth_coor`.
    """

    def __init__(self, config: EncodingConfig, image_channels: int = 3, coordinate_features: int = 128) -> None:
        self.config = config
        self.parts: list[Encoding] = []
        if config.super_res:
            self.parts.append(ConditioningImage(image_channels, config.noisy_sr, expected=config.plane_sweep > 0))
        if config.depth_input:
            self.parts.append(DepthInput())
        if config.warp_depth_coor:
            self.parts.append(WarpedCoordinates(coordinate_features))
        if config.plane_sweep:
            self.parts.append((MatchedPlaneSweep if config.plane_matching else PlaneSweep)(config, image_channels))
        if config.epipolar_attention_bias:
            self.parts.append(EpipolarBias())

    @property
    def input_channels(self) -> int:
        """What they add to the input of the denoiser."""
        return sum(part.input_channels for part in self.parts)

    @property
    def encoder_channels(self) -> int:
        """What they add to the input of the source encoder."""
        return sum(part.encoder_channels for part in self.parts)

    @property
    def choices(self) -> list[int]:
        """Further outputs of the denoiser that each takes."""
        return [part.choices for part in self.parts]

    @property
    def learned(self) -> dict[str, float]:
        """Their parameters, with first values."""
        return {name: value for part in self.parts for name, value in part.learned.items()}

    def conditioning_image(self, target: torch.Tensor) -> torch.Tensor | None:
        """Return what super-resolution is trained on, from the true view [B, 3, R, R] in [-1, 1]; None: nothing is."""
        return shrink_and_enlarge(target) if self.config.super_res else None

    def batch_input(self, batch: Batch) -> torch.Tensor:
        """`src` of the network, float32 [B, 3 or 4, R, R], from a batch of training pairs."""
        return self._source_input(batch.source, batch.depth)

    def views_input(
        self, views: Sequence[View], depth_model: DepthModel | None = None, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """`src` from square views of one size; their depth is what `depth_model` tells, else what they carry."""
        images = torch.stack([view.image for view in views]).to(device)
        depth = None
        if depth_model is not None and self.config.needs_depth:
            depth = depth_model(images)
        elif all(view.depth is not None for view in views):
            depth = torch.stack([present(view.depth) for view in views])[:, None].to(device)
        return self._source_input(images, depth)

    def _source_input(self, source: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
        """Make `src` from uint8 [B, 3, R, R] and z-depth [B, 1, R, R]; unknown depth counts as far away.

        Raises UserError where the network needs depth and there is none.
        """
        image = pixels_to_float(source)
        if not self.config.needs_depth:
            return image
        if depth is None:
            raise UserError(
                "this network needs the depth of the source views, which carry none: "
                f"name a `depth_model`, {DEPTH_CHOICES}"
            )
        depth = fill_unknown(depth.to(torch.float32))
        channels = (part.depth_channel(depth) for part in self.parts)
        return torch.cat([image, *(channel for channel in channels if channel is not None)], dim=1)

    def encoder_input(self, given: Conditioning, net: NVPrecond) -> torch.Tensor:
        """Return the input of the source encoder: colour and what the encodings add, [B, C, R, R]."""
        return torch.cat([given.image, *(t for part in self.parts for t in part.encoder_input(given, net))], dim=1)

    def prepare(self, given: Conditioning, net: NVPrecond) -> tuple[Tensors, ...]:
        """Return what each prepares."""
        return tuple(part.prepare(given, net) for part in self.parts)

    def draw(self, told: tuple[Tensors, ...], randn_like: RandnLike) -> tuple[Tensors, ...]:
        """Return what each is told in one evaluation."""
        return tuple(part.draw(tensors, randn_like) for part, tensors in zip(self.parts, told, strict=True))

    def input(self, told: tuple[Tensors, ...]) -> list[torch.Tensor]:
        """Channels for the denoiser."""
        return [t for part, tensors in zip(self.parts, told, strict=True) for t in part.input(tensors)]

    def mean(self, told: tuple[Tensors, ...]) -> torch.Tensor | float:
        """m, what to expect of the view before the denoiser has seen it."""
        return sum((part.mean(tensors) for part, tensors in zip(self.parts, told, strict=True)), start=0.0)

    def blend(self, told: tuple[Tensors, ...], choices: Sequence[torch.Tensor], net: NVPrecond) -> torch.Tensor | float:
        """b, what to expect of the view given the denoiser's further outputs."""
        parts = zip(self.parts, told, choices, strict=True)
        return sum((part.blend(tensors, choice, net) for part, tensors, choice in parts), start=0.0)

    def distances(self, told: tuple[Tensors, ...]) -> dict[int, torch.Tensor]:
        """Tokens a side -> distances for the bias of attention; empty without one."""
        return {
            side: distance
            for part, tensors in zip(self.parts, told, strict=True)
            for side, distance in part.distances(tensors).items()
        }
