from __future__ import annotations

import json
import pickle
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dnnlib import UserError
from tests.golden import DATA, TINY, recipe
from training.model_io import load_network, read_metadata, save_network
from training.precond import NVPrecond


@pytest.fixture
def net() -> NVPrecond:
    torch.manual_seed(0)
    return NVPrecond(**TINY, no_time_enc=True).eval()


@pytest.fixture
def saved(net: NVPrecond, tmp_path: Path) -> Path:
    save_network(tmp_path / "net.safetensors", net, {"images": 7})
    return tmp_path / "net.safetensors"


def test_our_own_format_round_trips(net: NVPrecond, saved: Path) -> None:
    again = load_network(saved)
    assert again.init_kwargs == net.init_kwargs
    assert not again.training
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in net.state_dict().items())
    assert read_metadata(saved) == (net.init_kwargs, {"images": 7})
    assert [path.name for path in saved.parent.iterdir()] == ["net.safetensors"]


def test_a_file_carries_the_typical_depth_of_its_training_data(net: NVPrecond, tmp_path: Path) -> None:
    net.typical_depth = 6.5
    save_network(tmp_path / "net.safetensors", net, {"images": 7})
    assert load_network(tmp_path / "net.safetensors").typical_depth == 6.5
    net.typical_depth = "far"
    save_network(tmp_path / "net.safetensors", net)
    with pytest.raises(UserError, match="typical_depth is 'far'"):
        load_network(tmp_path / "net.safetensors")


def test_half_precision_files_load_as_float32(net: NVPrecond, tmp_path: Path) -> None:
    save_network(tmp_path / "half.safetensors", net, dtype=torch.float16)
    with safe_open(tmp_path / "half.safetensors", "pt") as file:
        assert file.get_tensor("logvar_linear.weight").dtype == torch.float16
    weight = load_network(tmp_path / "half.safetensors").logvar_linear.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, net.logvar_linear.weight.half().float())


@pytest.mark.parametrize("name", ["base", "uncond"])
def test_released_layout_is_rebuilt_from_our_own_classes(name: str) -> None:
    net = load_network(DATA / f"released-layout-{name}.pkl")
    assert type(net) is NVPrecond
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, recipe(key, tensor.shape).half().float()), key
    src, dst = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    assert bool(torch.isfinite(net(src, dst, torch.ones(1), torch.zeros(1, 20))).all())


def hostile_files(folder: Path, saved: Path) -> dict[str, tuple[Path, str]]:
    """name -> (file, what its message must say)."""
    tensors = load_file(saved)
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()

    def write(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    def variant(name: str, state: dict[str, torch.Tensor], **changes: str) -> Path:
        path = folder / name
        save_file(state, path, {**metadata, **changes})
        return path

    shorter = {**tensors, "logvar_linear.weight": torch.zeros(1, 5)}
    without = {name: tensor for name, tensor in tensors.items() if name != "logvar_linear.weight"}
    unknown = json.dumps({**json.loads(metadata["init_kwargs"]), "frobnicate": 1})
    return {
        "page": (write("page.safetensors", b"\n<!DOCTYPE html><html>404</html>"), "web page"),
        "empty": (write("empty.safetensors", b""), "damaged"),
        "cut": (write("cut.safetensors", saved.read_bytes()[:1000]), "damaged"),
        "cut tail": (write("tail.safetensors", saved.read_bytes()[:-10]), "damaged"),
        "noise": (write("noise.safetensors", bytes(range(256)) * 9), "damaged"),
        "shapes": (
            variant("shapes.safetensors", shorter),
            r"1 tensors differ, first logvar_linear.weight: file \(1, 5\)",
        ),
        "missing": (variant("missing.safetensors", without), "file has none"),
        "extra": (variant("extra.safetensors", {**tensors, "more": torch.zeros(1)}), "network has none"),
        "arguments": (variant("arguments.safetensors", tensors, init_kwargs=unknown), "frobnicate"),
        "metadata": (variant("metadata.safetensors", tensors, init_kwargs="{"), "metadata is damaged"),
        "foreign": (variant("foreign.safetensors", tensors, format="other"), "format is 'other'"),
        "pickle": (write("evil.pkl", pickle.dumps({"ema": print})), "builtins.print"),
        "no network": (write("none.pkl", pickle.dumps({"ema": None})), "no novel-view network"),
    }


KINDS = [
    *("page", "empty", "cut", "cut tail", "noise", "shapes", "missing", "extra"),
    *("arguments", "metadata", "foreign", "pickle", "no network"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused_in_one_line(kind: str, saved: Path, tmp_path: Path) -> None:
    files = hostile_files(tmp_path, saved)
    assert set(files) == set(KINDS)
    path, message = files[kind]
    with pytest.raises(UserError, match=message) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_head_widths_of_the_file_must_be_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    content = (DATA / "released-layout-base.pkl").read_bytes()
    from training import model_io

    read = model_io.read_legacy_pickle

    def with_other_heads(path: Path) -> dict:
        found = read(path)
        found["ema"].modules["unet"].state["_init_kwargs"]["channels_per_head"] = 4
        return found

    assert content
    monkeypatch.setattr(model_io, "read_legacy_pickle", with_other_heads)
    with pytest.raises(UserError, match="unet has heads of 4 channels, its constructor arguments give 8"):
        load_network(DATA / "released-layout-base.pkl")


def test_a_name_that_is_nothing_lists_what_there_is() -> None:
    with pytest.raises(UserError, match=r"does not exist.*vivid-base"):
        load_network("vivid-bass")


def test_networks_are_fetched_from_an_address(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = saved.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("VIVID_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        net = load_network(f"http://127.0.0.1:{server.server_port}/net.safetensors")
    finally:
        server.shutdown()
        server.server_close()
    assert net.init_kwargs["no_time_enc"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_channels", 10**6),
        ("model_channels", 8192),
        ("num_blocks", 10**5),
        ("num_blocks", 60),
        ("channel_mult", [1] * 1000),
        ("attn_resolutions", [10**30]),
        ("img_resolution", 2**40),
        ("plane_sweep", 10**9),
        ("logvar_channels", 10**12),
        ("sigma_data", float("nan")),
        ("sigma_data", 0),
        ("sigma_data", 10**400),
        ("model_channels", int("9" * 4000)),
        ("num_blocks", {}),
    ],
)
def test_arguments_are_not_believed_before_they_are_compared(
    name: str, value: object, saved: Path, tmp_path: Path
) -> None:
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    arguments = json.dumps({**json.loads(metadata["init_kwargs"]), name: value})
    path = tmp_path / "absurd.safetensors"
    save_file(load_file(saved), path, {**metadata, "init_kwargs": arguments})
    start = time.process_time()
    with pytest.raises(UserError, match=r"absurd\.safetensors") as caught:
        load_network(path)
    assert time.process_time() - start < 10
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, saved: Path, tmp_path: Path) -> None:
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    tensors["logvar_linear.weight"][0, 1] = value
    save_file(tensors, tmp_path / "nan.safetensors", metadata)
    with pytest.raises(UserError, match=r"not finite, in 1 tensors, first logvar_linear\.weight"):
        load_network(tmp_path / "nan.safetensors")
