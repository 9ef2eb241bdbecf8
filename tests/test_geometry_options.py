"""Encodings of geometry by options alone: every sensible combination trains, samples and is judged; others are refused.

Data, with exact depth beside the frames, is synthetic.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import calculate_metrics
import generate_images
import train_nvs
from datasets.synthetic import SyntheticClips, write_chunks, write_tree
from tests.scripts import TINY_OPTIONS, error_of, succeed

LEARNING = ("--batch=8", "--duration=160", "--ramp-up=20", "--lr=0.02", "--decay=0")
REPORTS = ("--status=40", "--snapshot=1Gi", "--checkpoint=1Gi", "--workers=0", "--device=cpu", "--range-selection=3-8")
DEPTH = {"": (), "depth": ("--depth-input",), "warp": ("--warp-depth-coor",)}
COMBINATIONS = [
    pytest.param((*depth, *epipolar, *time), id="+".join(filter(None, (name, *epipolar, *time))) or "pose")
    for name, depth in (*DEPTH.items(), ("sweep", ("--plane-sweep=3",)))
    for epipolar in ((), ("--epipolar-attn-bias",))
    for time in ((), ("--no-time-enc",))
]
UNCOND = "--uncond"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        write_tree(root, split, SyntheticClips(split, 3, frames=10, width=16, height=16), depth=True)
    return root


def train(data: Path, outdir: Path, *options: str) -> Path:
    """The newest network of a run of 20 steps."""
    succeed(train_nvs.main, *TINY_OPTIONS, *LEARNING, *REPORTS, *options, f"--data={data}", f"--outdir={outdir}")
    return sorted(outdir.glob("network-snapshot-*.safetensors"))[0]


def sampling(data: Path, net: Path, outdir: Path) -> tuple[str, ...]:
    where = (f"--net={net}", f"--data={data}", f"--outdir={outdir}", "--range-selection=3-8")
    return (*where, "--seeds=0-3", "--steps=2", "--device=cpu")


@pytest.mark.parametrize("options", COMBINATIONS)
def test_every_sensible_combination_trains_and_samples(data: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    needs_depth = bool({"--depth-input", "--warp-depth-coor"}.intersection(options))
    from_file = ("--depth-model=file",) if needs_depth else ()
    net = train(data, tmp_path / "run", *options, *from_file)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]

    command = sampling(data, net, tmp_path / "images")
    if needs_depth:  # the checkpoint says so; its other options need no repeating
        assert "give --depth-model" in error_of(generate_images.main, *command)
    succeed(generate_images.main, *command, *from_file)
    assert (tmp_path / "images" / "sample_000003.png").exists()
    assert (tmp_path / "images" / "src_000003.depth.png").exists() == needs_depth


def test_an_estimating_model_trains_and_samples_too(data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
        head_hidden_size=8, depth_estimation_type="metric", max_depth=20,
    )  # fmt: skip
    folder = f"--depth-model={tmp_path / 'model'}"
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path / "model")
    net = train(data, tmp_path / "run", "--depth-input", folder, "--samples=160")
    assert list((tmp_path / "run").glob("samples-*.png"))
    succeed(generate_images.main, *sampling(data, net, tmp_path / "images"), folder)
    assert not list((tmp_path / "images").glob("*.depth.png"))  # of what is estimated there is nothing to keep
    judging = (f"--images={tmp_path / 'images'}", "--metrics=psnr,psnr_visible", "--baseline=warp", "--device=cpu")
    assert "warp" in succeed(calculate_metrics.main, "calc", *judging, folder).stdout


def test_the_warp_stands_beside_the_samples_in_the_table(data: Path, tmp_path: Path) -> None:
    net = train(data, tmp_path / "run", "--warp-depth-coor", "--depth-model=file")
    succeed(generate_images.main, *sampling(data, net, tmp_path / "images"), "--depth-model=file")
    judging = (f"--images={tmp_path / 'images'}", "--metrics=psnr,psnr_visible,psnr_disoccluded", "--device=cpu")
    table = tmp_path / "table.json"
    succeed(calculate_metrics.main, "calc", *judging, "--baseline=warp", "--depth-model=file", f"--json={table}")
    measured = json.loads(table.read_text())["metrics"]
    assert measured["psnr_visible"]["warp"] > measured["psnr_visible"]["copy_source"] + 3
    assert measured["psnr_visible"]["warp"] > measured["psnr_disoccluded"]["warp"] + 3
    assert "give --depth-model" in error_of(calculate_metrics.main, "calc", *judging)
    for file in (tmp_path / "images").glob("*.depth.png"):
        file.unlink()
    assert "no depth src_000000.depth.png" in error_of(calculate_metrics.main, "calc", *judging, "--depth-model=file")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--depth-input", "--warp-depth-coor", "--depth-model=file"), "choose one"),
        (("--depth-input",), "give --depth-model"),
        (("--warp-depth-coor",), "give --depth-model"),
        (("--depth-model=file",), "depth_input or warp_depth_coor"),
        ((UNCOND, "--epipolar-attn-bias"), "leave out epipolar_attention_bias"),
        ((UNCOND, "--no-time-enc"), "leave out no_time_enc"),
        ((UNCOND, "--depth-input", "--depth-model=file"), "leave out depth_input"),
        ((UNCOND, "--warp-depth-coor", "--depth-model=file"), "leave out warp_depth_coor"),
        (("--depth-input", "--depth-model=file", "--single-image-mix=0.1"), "photographs have no depth file"),
        (("--depth-input", "--depth-model=tiny"), "no depth model tiny"),
    ],
)
def test_senseless_options_are_refused_in_one_line(
    data: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    command = (*TINY_OPTIONS, *LEARNING, *REPORTS, *options, f"--data={data}", f"--outdir={tmp_path / 'run'}")
    assert message in error_of(train_nvs.main, *command)


def test_depth_that_is_not_there_is_missed_by_name(data: Path, tmp_path: Path) -> None:
    write_chunks(tmp_path / "chunks", "train", SyntheticClips("train", 2, frames=10, width=16, height=16))
    write_tree(tmp_path / "tree", "train", SyntheticClips("train", 2, frames=10, width=16, height=16))
    depth = (*TINY_OPTIONS, *LEARNING, *REPORTS, "--depth-input", "--depth-model=file", f"--outdir={tmp_path / 'run'}")
    assert "has no place for depth" in error_of(train_nvs.main, *depth, f"--data={tmp_path / 'chunks'}")
    assert "has no depth" in error_of(train_nvs.main, *depth, f"--data={tmp_path / 'tree'}")
