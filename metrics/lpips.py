"""LPIPS v0.1 (Zhang et al. 2018): perceptual distance from the features of AlexNet."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib import UserError
from dnnlib.util import file_sha256
from metrics.detectors import DetectorInfo
from torch_utils.cameras import pixels_to_float

LPIPS_WEIGHTS = Path(__file__).resolve().parents[1] / "assets" / "lpips" / "lpips_alex.safetensors"

_MIN_SIDE = 32  # below, the last pooling layer has nothing left
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# of AlexNet's convolutions: channels in, channels out, kernel, stride, padding; 3/2 max pooling before the 2nd and 3rd
_CONVOLUTIONS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
_POOLED = (1, 2)


class LPIPS(nn.Module):
    """Distance of image pairs. State names are those of the weights file: ``conv{i}.*`` and ``lin{i}.weight``."""

    def __init__(self) -> None:
        super().__init__()
        for index, (channels_in, channels_out, kernel, stride, padding) in enumerate(_CONVOLUTIONS):
            self.add_module(f"conv{index}", nn.Conv2d(channels_in, channels_out, kernel, stride, padding))
            self.add_module(f"lin{index}", nn.Conv2d(channels_out, 1, 1, bias=False))
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, H, W] both to distances, float32 [N]; 0 for equal images.

        At every layer, feature vectors of unit length are compared: equation 1 of the paper.
        Raises UserError where an image is smaller than 32 pixels.
        """
        if min(images.shape[-2:]) < _MIN_SIDE:
            raise UserError(f"LPIPS needs images of {_MIN_SIDE} pixels a side or more, not {list(images.shape[-2:])}")
        x = (pixels_to_float(torch.cat([images, target])) - self.shift) / self.scale
        distance = x.new_zeros(len(images))
        for index in range(len(_CONVOLUTIONS)):
            x = F.max_pool2d(x, 3, 2) if index in _POOLED else x
            x = F.relu(self.get_submodule(f"conv{index}")(x))
            first, second = (x / (x.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
            heads = self.get_submodule(f"lin{index}")
            distance = distance + heads((first - second).square()).mean(dim=(1, 2, 3))
        return distance


def load_lpips(device: torch.device | str = "cpu", path: Path = LPIPS_WEIGHTS) -> LPIPS:
    """LPIPS in evaluation mode. Raises UserError where the weights are missing or no such weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"the LPIPS weights {path} are missing: they come with this repository, check it out again")
    model = LPIPS()
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} does not hold LPIPS v0.1 weights: {str(error).splitlines()[0]}") from None
    return model.to(device).eval().requires_grad_(False)


def lpips_info(path: Path = LPIPS_WEIGHTS) -> DetectorInfo:
    """What a table says of it."""
    features = sum(channels_out for _, channels_out, *_ in _CONVOLUTIONS)
    return DetectorInfo("lpips (v0.1, AlexNet)", file_sha256(path), "images at their own size", features)
