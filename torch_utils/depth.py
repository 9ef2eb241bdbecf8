"""Depth of views: networks that estimate it, files that hold it.

Depth is z-depth, the third coordinate in the axes of the camera, float32, in the unit of the extrinsics, or in metres
where a network estimates it. Where it is not positive or not finite, it is unknown.
"""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from dnnlib.arrays import read_array
from dnnlib.imaging import open_image
from dnnlib.util import STORED, UserError, atomic_path, one_line

# Depth Anything V2 (arXiv:2406.09414), tuned to metric depth of rooms: repository on the Hugging Face hub, licence.
DEPTH_MODELS = {
    "small": ("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf", "Apache-2.0"),
    "base": ("depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf", "CC BY-NC 4.0, not for commercial use"),
    "large": ("depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf", "CC BY-NC 4.0, not for commercial use"),
}
DEPTH_CHOICES = f"{', '.join(DEPTH_MODELS)}, a folder with such a model, or {STORED} (depth beside the frames)"

_SUFFIXES = (".depth.png", ".depth.npy")  # behind the stem of the picture's name
_PNG_STEPS = 1000  # of a 16-bit PNG to the unit of the extrinsics, as in most depth data sets
_PNG_MAX = 65535
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_CHUNK = 16  # views at a time: a training batch would not fit at the size that the network works at

_log = logging.getLogger(__name__)


class DepthModel(Protocol):
    """Anything that tells depth from pictures, such as a torch.nn.Module."""

    def __call__(self, views: torch.Tensor, /) -> torch.Tensor:
        """Views, uint8 [B, 3, H, W], to z-depth, float32 [B, 1, H, W], on the same device."""


class DepthAnything(nn.Module):
    """A Depth Anything network of transformers as a `DepthModel`: resizes, normalises, and resizes back."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: Any = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._estimate(chunk) for chunk in views.split(_CHUNK)])

    def preprocess(self, views: torch.Tensor) -> torch.Tensor:
        """Shorter side to what the network was trained at, sides a multiple of its patch; ImageNet statistics."""
        backbone = self.network.config.backbone_config
        height, width = views.shape[-2:]
        scale = backbone.image_size / min(height, width) / backbone.patch_size
        size = tuple(round(side * scale) * backbone.patch_size for side in (height, width))
        pixels = F.interpolate(views.to(torch.float32), size=size, mode="bicubic", antialias=True).clip(0, 255) / 255
        mean, std = (torch.tensor(values, device=views.device)[:, None, None] for values in (_MEAN, _STD))
        return (pixels - mean) / std

    def _estimate(self, views: torch.Tensor) -> torch.Tensor:
        depth = self.network(self.preprocess(views)).predicted_depth[:, None]
        return F.interpolate(depth.to(torch.float32), size=views.shape[-2:], mode="bilinear")


def load_depth_model(name: str, device: torch.device | str = "cpu") -> DepthModel:
    """A network from `DEPTH_MODELS`, downloaded once, or from a folder in the same format.

    Raises UserError where transformers is missing, the download fails, or the folder holds something else.
    """
    location, licence = DEPTH_MODELS.get(name, (name, ""))
    if not licence and not Path(name, "config.json").is_file():
        raise UserError(f"there is no depth model {name}: give {DEPTH_CHOICES}")
    try:
        from safetensors import SafetensorError
        from transformers import DepthAnythingForDepthEstimation
    except ImportError:
        raise UserError("depth models need a package: pip install transformers") from None
    if licence:
        _log.info("depth model %s (%s)", location, licence)
    try:
        loaded: Any = DepthAnythingForDepthEstimation.from_pretrained(
            location, use_safetensors=True, output_loading_info=True
        )
        network, loading = loaded
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = f"download {location} elsewhere and name its folder" if licence else f"give {DEPTH_CHOICES}"
        raise UserError(f"depth model {name} cannot be loaded ({reason}): {remedy}") from None
    wrong = [*loading["missing_keys"], *loading["unexpected_keys"]]
    if wrong:
        raise UserError(f"depth model {name}: weights of another architecture, {len(wrong)} differ, first {wrong[0]}")
    if network.config.depth_estimation_type != "metric":
        raise UserError(f"depth model {name} gives relative depth: take a metric one")
    return DepthAnything(network).to(device)


def choose_depth_model(name: str | None, needed: bool, device: torch.device | str = "cpu") -> DepthModel | None:
    """What the name of a depth model stands for: a model, or None where the views carry depth or nobody needs it.

    Raises UserError where depth is needed and no option says where it comes from.
    """
    if not needed:
        return None
    if name is None:
        raise UserError(f"this needs the depth of the source views: give `depth_model`, one of {DEPTH_CHOICES}")
    return None if name == STORED else load_depth_model(name, device)


def fill_unknown(depth: torch.Tensor) -> torch.Tensor:
    """Unknown depth [..., H, W] as the largest of its image, since it is mostly sky; 1 where all is unknown."""
    known = _is_known(depth)
    farthest = torch.where(known, depth, 0).amax(dim=(-2, -1), keepdim=True)
    return torch.where(known, depth, torch.where(farthest > 0, farthest, 1))


def read_stored_depth(picture: str | PathLike, height: int, width: int) -> torch.Tensor:
    """The depth beside a picture of this size, float32 [H, W]: `a.depth.png` or `a.depth.npy` beside `a.png`.

    A PNG file holds 16-bit thousandths of the unit, 0 where unknown; an npy file floating-point depth [H, W].
    Raises UserError where there is neither or it is no such thing.
    """
    stem = Path(picture).with_suffix("")
    paths = [stem.with_name(stem.name + suffix) for suffix in _SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        names = " or ".join(path.name for path in paths)
        raise UserError(f"{stem.parent} has no depth {names}: add it, or let a `depth_model` estimate it")
    try:
        if path.suffix == ".npy":
            stored = read_array(path)
            if stored.shape != (height, width) or stored.dtype.kind != "f":
                raise ValueError(
                    f"{stored.dtype} of shape {list(stored.shape)} where floats of the picture's are expected"
                )
            depth = stored.astype(np.float32)
        else:
            with open_image(path, ["PNG"]) as image:
                if not image.mode.startswith("I"):
                    raise ValueError(f"mode {image.mode} where 16-bit grey is expected")
                depth = np.asarray(image).astype(np.float32) / np.float32(_PNG_STEPS)
        if depth.shape != (height, width):
            raise ValueError(f"shape {list(depth.shape)} where the picture's [{height}, {width}] is expected")
        return torch.from_numpy(depth)
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is no depth ({one_line(error)}): replace it") from None


def save_stored_depth(picture: str | PathLike, depth: torch.Tensor) -> None:
    """Write depth [H, W] beside a picture, as a 16-bit PNG. What lies beyond 65.535 is stored as 65.535."""
    stem = Path(picture).with_suffix("")
    steps = torch.where(_is_known(depth), depth * _PNG_STEPS, 0).round().clip(0, _PNG_MAX)
    with atomic_path(stem.with_name(stem.name + _SUFFIXES[0])) as temporary:
        Image.fromarray(steps.cpu().numpy().astype(np.uint16)).save(temporary, format="PNG")


def _is_known(depth: torch.Tensor) -> torch.Tensor:
    return (depth > 0) & depth.isfinite()
