"""Depth that networks estimate and files hold: the real architecture at random weights, round trips, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnlib.util import UserError
from tests.scripts import run_python
from torch_utils.cameras import resize_image
from torch_utils.depth import (
    DEPTH_MODELS,
    DepthAnything,
    choose_depth_model,
    fill_unknown,
    load_depth_model,
    read_stored_depth,
    save_stored_depth,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth Anything V2, metric, as transformers writes it: small, and with random weights."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type="metric",
        max_depth=20,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("depth-model")
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(path)
    return path


def views(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_depth_is_computed_where_the_views_are(folder: Path) -> None:
    """On the meta device, which refuses arithmetic with tensors of another and needs no GPU."""
    depth = load_depth_model(str(folder), "meta")(views(2, 24, 32).to("meta"))
    assert (depth.device.type, depth.dtype, depth.shape) == ("meta", torch.float32, (2, 1, 24, 32))


def test_a_model_from_a_folder_gives_metric_depth_of_each_view(folder: Path) -> None:
    model = load_depth_model(str(folder))
    depth = model(views(3, 24, 32))
    assert (depth.shape, depth.dtype) == ((3, 1, 24, 32), torch.float32)
    assert model.preprocess(views(1, 24, 32)).shape == (1, 3, 56, 70)
    assert bool(((depth > 0) & (depth <= 20)).all())  # the sigmoid of the metric head, times max_depth
    torch.testing.assert_close(depth[1:2], model(views(3, 24, 32)[1:2]), rtol=1e-5, atol=1e-5)


def test_pixels_are_prepared_as_the_models_own_processor_does(folder: Path) -> None:
    import transformers  # what the published preprocessor_config.json describes; before 5 its name said no Pillow

    processor_class = getattr(transformers, "DPTImageProcessorPil", None) or transformers.DPTImageProcessor
    processor = processor_class(
        size={"height": 56, "width": 56},
        ensure_multiple_of=14,
        keep_aspect_ratio=True,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    # Smooth, since Pillow clips between rows and columns; square, since for other shapes transformers goes by the
    # longer side and the network's authors by the shorter.
    pixels = resize_image(views(1, 8, 8), 40, 40)
    expected = processor(Image.fromarray(pixels[0].permute(1, 2, 0).numpy()), return_tensors="pt")["pixel_values"]
    ours = load_depth_model(str(folder)).preprocess(pixels)
    assert ours.shape == expected.shape == (1, 3, 56, 56)
    assert float((ours - expected).abs().max()) < 1.5 / 255 / 0.224  # Pillow rounds to whole levels, twice


def test_what_no_model_can_be_loaded_from(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no depth model tiny: give small, base, large, a folder"):
        load_depth_model("tiny")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((folder / name).read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{broken} cannot be loaded"):
        load_depth_model(str(broken))
    (broken / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError, match="cannot be loaded"):
        load_depth_model(str(broken))


def test_a_model_of_relative_depth_or_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth_estimation_type": "relative"}))
    with pytest.raises(UserError, match="relative depth"):
        load_depth_model(str(tmp_path))
    config["backbone_config"]["num_hidden_layers"] = 5
    config["backbone_config"].pop("stage_names", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"another architecture|cannot be loaded"):
        load_depth_model(str(tmp_path))


def test_a_failed_download_says_what_to_fetch(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    code = "from torch_utils.depth import load_depth_model; load_depth_model('small')"
    result = run_python("-c", code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    last = result.stderr.strip().splitlines()[-1]
    assert "UserError: depth model small cannot be loaded" in last
    assert f"download {DEPTH_MODELS['small'][0]} elsewhere and name its folder" in last


def test_what_the_option_means(folder: Path) -> None:
    assert choose_depth_model(None, needed=False) is None
    assert choose_depth_model("file", needed=True) is None
    assert choose_depth_model("no such model", needed=False) is None
    assert isinstance(choose_depth_model(str(folder), needed=True), DepthAnything)
    with pytest.raises(UserError, match="give `depth_model`, one of small, base, large"):
        choose_depth_model(None, needed=True)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.001, 65), min_size=6, max_size=6), st.sets(st.integers(0, 5)))
def test_stored_depth_comes_back_to_half_a_thousandth(tmp_path_factory, numbers: list[float], holes: set[int]) -> None:  # noqa: ANN001
    depth = torch.tensor(numbers).reshape(2, 3)
    depth.view(-1)[list(holes)] = float("nan")
    picture = tmp_path_factory.mktemp("stored") / "12.png"
    save_stored_depth(picture, depth)
    again = read_stored_depth(picture, 2, 3)
    assert again.dtype == torch.float32
    known = depth.isfinite()
    assert not again[~known].any()
    torch.testing.assert_close(again[known], depth[known], rtol=0, atol=0.00051)


def test_depth_as_npy_is_exact(tmp_path: Path) -> None:
    depth = np.array([[0.1, 300.0], [0.0, 2.0]], np.float64)
    np.save(tmp_path / "7.depth.npy", depth)
    assert torch.equal(read_stored_depth(tmp_path / "7.jpg", 2, 2), torch.from_numpy(depth).float())


def test_what_is_beyond_the_range_of_a_png_is_at_its_end(tmp_path: Path) -> None:
    save_stored_depth(tmp_path / "a.png", torch.tensor([[100.0, 1.0]]))
    torch.testing.assert_close(read_stored_depth(tmp_path / "a.png", 1, 2), torch.tensor([[65.535, 1.0]]))


def test_bad_depth_files_are_refused_by_name(tmp_path: Path) -> None:
    picture = tmp_path / "5.png"
    with pytest.raises(UserError, match=r"no depth 5\.depth\.png or 5\.depth\.npy"):
        read_stored_depth(picture, 2, 2)
    (tmp_path / "5.depth.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"5\.depth\.npy is no depth"):
        read_stored_depth(picture, 2, 2)
    np.save(tmp_path / "5.depth.npy", np.ones((3, 2)))
    with pytest.raises(UserError, match=r"shape \[3, 2\]"):
        read_stored_depth(picture, 2, 2)
    Image.new("RGB", (2, 2)).save(tmp_path / "5.depth.png")
    with pytest.raises(UserError, match=r"5\.depth\.png is no depth .*16-bit"):
        read_stored_depth(picture, 2, 2)


def test_unknown_depth_is_far_away_and_the_rest_stays() -> None:
    depth = torch.tensor([[[[1.0, 0.0], [4.0, float("inf")]]], [[[-1.0, 0.0], [0.0, float("nan")]]]])
    expected = torch.tensor([[[[1.0, 4.0], [4.0, 4.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    before = depth.clone()
    assert torch.equal(fill_unknown(depth), expected)
    assert torch.equal(depth.nan_to_num(), before.nan_to_num())
