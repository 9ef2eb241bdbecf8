"""LPIPS v0.1 (Zhang et al. 2018): perceptual distance from the features of AlexNet or VGG16."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib import UserError
from dnnlib.util import file_sha256
from metrics.detectors import DetectorInfo
from torch_utils.cameras import pixels_to_float

_ASSETS = Path(__file__).resolve().parents[1] / "assets" / "lpips"
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Convolution:
    """One convolution and the ReLU behind it."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Backbone:
    """A network for images whose features are compared.

    Attributes:
        title: for tables. weights: the file that comes with the repository.
        pool: size of the max pooling between stages, of stride 2. min_side: in pixels; below, nothing is left.
        stages: convolutions; the features after the last of each stage are compared.
        pooled: the stages with a pooling in front.
    """

    title: str
    weights: Path
    pool: int
    min_side: int
    stages: Sequence[Sequence[Convolution]]
    pooled: Collection[int]


_ALEX = Backbone(
    "AlexNet",
    _ASSETS / "lpips_alex.safetensors",
    3,
    32,
    [
        [Convolution(64, 11, 4, 2)],
        [Convolution(192, 5, 1, 2)],
        [Convolution(384)],
        [Convolution(256)],
        [Convolution(256)],
    ],
    {1, 2},
)
_VGG = Backbone(
    "VGG16",
    _ASSETS / "lpips_vgg.safetensors",
    2,
    16,
    [[Convolution(width)] * depth for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))],
    {1, 2, 3, 4},
)
BACKBONES: Mapping[str, Backbone] = {"lpips": _ALEX, "lpips_vgg": _VGG}  # by the name of the metric


class LPIPS(nn.Module):
    """Distance of image pairs. State names are those of the weights file: ``conv{i}.*`` and ``lin{stage}.weight``."""

    def __init__(self, backbone: Backbone = _ALEX) -> None:
        super().__init__()
        self.backbone = backbone
        width, index = 3, 0
        for number, stage in enumerate(backbone.stages):
            for layer in stage:
                convolution = nn.Conv2d(width, layer.channels, layer.kernel, layer.stride, layer.padding)
                self.add_module(f"conv{index}", convolution)
                width, index = layer.channels, index + 1
            self.add_module(f"lin{number}", nn.Conv2d(width, 1, 1, bias=False))
        self.shift: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, H, W] both to distances, float32 [N]; 0 for equal images.

        At every layer, feature vectors of unit length are compared: equation 1 of the paper.
        Raises UserError where an image is smaller than the backbone's `min_side`.
        """
        return self.distance(pixels_to_float(images), pixels_to_float(target))

    def distance(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """As `forward`, of float32 in [-1, 1]; with gradients."""
        side = self.backbone.min_side
        if min(images.shape[-2:]) < side:
            raise UserError(f"LPIPS needs images of {side} pixels a side or more, not {list(images.shape[-2:])}")
        distance = images.new_zeros(images.shape[0])
        for number, (first, second) in enumerate(zip(self._features(images), self._features(target), strict=True)):
            heads = self.get_submodule(f"lin{number}")
            distance = distance + heads((first - second).square()).mean(dim=(1, 2, 3))
        return distance

    def _features(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Return the features of every stage, of unit length. A target that needs no gradient costs none."""
        x = (images - self.shift) / self.scale
        index = 0
        for number, stage in enumerate(self.backbone.stages):
            x = F.max_pool2d(x, self.backbone.pool, 2) if number in self.backbone.pooled else x
            for _ in stage:
                x = F.relu(self.get_submodule(f"conv{index}")(x))
                index += 1
            yield x / (x.norm(dim=1, keepdim=True) + 1e-10)


def load_lpips(
    device: torch.device | str = "cpu", name: str = "lpips", path: str | os.PathLike[str] | None = None
) -> LPIPS:
    """LPIPS in evaluation mode, computing in float32.

    Args: name: of the metric, see `BACKBONES`; path: a safetensors file in place of the one that comes with the
    repository. Raises UserError where the weights are missing or no such weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    backbone = BACKBONES[name]
    file = Path(path or backbone.weights)
    if not file.is_file():
        reason = "" if path else ": they come with this repository, check it out again"
        raise UserError(f"the LPIPS weights {file} are missing{reason}")
    model = LPIPS(backbone)
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} does not hold LPIPS v0.1 weights of {backbone.title}: {reason}") from None
    return model.to(device).eval().requires_grad_(False)


def lpips_info(name: str = "lpips", path: str | os.PathLike[str] | None = None) -> DetectorInfo:
    """Return what a table says of the network behind the distance."""
    backbone = BACKBONES[name]
    features = sum(stage[-1].channels for stage in backbone.stages)
    title = f"{name} (v0.1, {backbone.title})"
    return DetectorInfo(title, file_sha256(path or backbone.weights), "images at their own size", features)
