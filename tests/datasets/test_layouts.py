"""Every layout gives the same clips; each is recognised; what cannot be used says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from datasets.clip_path import clip_path, open_clip
from datasets.layouts import find_splits, open_clips
from datasets.pack_writer import write_pack
from datasets.packed import Recipe
from datasets.realestate10k import RealEstate10K, open_split
from datasets.synthetic import SyntheticClips
from dnnlib.util import UserError
from tests.datasets.layout_writers import write_lvsm, write_nerfstudio

WRITERS = {"LVSM": write_lvsm, "nerfstudio scenes": write_nerfstudio}


@pytest.fixture(scope="module", params=["published tree", "pixelSplat chunks", "LVSM", "nerfstudio scenes", "pack"])
def layout(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clips: SyntheticClips, tree: Path,
    chunks: Path,
) -> tuple[str, Path]:  # fmt: skip
    root = tmp_path_factory.mktemp("layout")
    if request.param == "pack":
        write_pack(open_clips(tree, "test"), root / "test", Recipe((32,), "png"))
    elif request.param in WRITERS:
        WRITERS[request.param](root, "test", clips)
    else:
        root = {"published tree": tree, "pixelSplat chunks": chunks}[request.param]
    return request.param, root


def test_each_layout_is_recognised_and_gives_the_same_pairs(layout: tuple[str, Path], tree: Path) -> None:
    name, root = layout
    for folder in (root, root / "test"):  # a split is found by its own path too
        (split,) = find_splits(folder)
        assert (split.name, split.layout.name) == ("test", name)
    data, reference = (RealEstate10K(folder, "test", "3-9", resolution=32) for folder in (root, tree))
    assert data.names == reference.names
    for k in range(10):
        ours, theirs = data[k], reference[k]
        assert (ours.clip, ours.source_index, ours.target_index) == (
            theirs.clip, theirs.source_index, theirs.target_index
        )  # fmt: skip
        for one, other in ((ours.source, theirs.source), (ours.target, theirs.target)):
            tolerance = 4 if name == "pixelSplat chunks" else 0  # JPEG, of 255
            assert float((one.image.float() - other.image.float()).abs().mean()) <= tolerance
            # The text files have 9 digits, chunks are float32.
            torch.testing.assert_close(one.camera.intrinsics, other.camera.intrinsics, rtol=0, atol=1e-5)
            torch.testing.assert_close(one.camera.extrinsics, other.camera.extrinsics, rtol=0, atol=1e-6)
            assert one.camera.frame_side == other.camera.frame_side == 32


def test_each_layout_gives_the_same_path_of_a_clip(layout: tuple[str, Path], tree: Path) -> None:
    name, root = layout
    ours, theirs = (
        clip_path(*open_clip(open_split(folder, "test"), clip), 4, 16)
        for folder, clip in ((root, "3"), (tree, "test-00003"))
    )
    assert ours.source.name == theirs.source.name
    assert ours.positions == theirs.positions == [0, 4, 7, 11]
    for one, other in zip(ours.truth, theirs.truth, strict=True):
        tolerance = 6 if name == "pixelSplat chunks" else 0 if name != "pack" else 1  # a pack shrank its frames before
        assert float((one.image.float() - other.image.float()).abs().mean()) <= tolerance
        torch.testing.assert_close(one.camera.intrinsics, other.camera.intrinsics, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.camera.extrinsics, other.camera.extrinsics, rtol=0, atol=1e-6)


def test_a_folder_in_no_layout_lists_those_known(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match=r"none of the known layouts: pack .* nerfstudio scenes"):
        find_splits(tmp_path)
    with pytest.raises(UserError, match="no data folder"):
        find_splits(tmp_path / "nothing")


def test_a_bare_split_folder_gets_a_hint(tree: Path) -> None:
    for folder in (tree / "RealEstate10K/test", tree / "test"):
        with pytest.raises(UserError, match=f"is the split 'test' itself: name the folder {tree}$"):
            RealEstate10K(folder, "test")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"k1": 0.2}, "lens distortion"),
        ({"camera_model": "OPENCV_FISHEYE"}, "lens distortion"),
        ({"frames": [{"file_path": "a.png"}]}, "unreadable camera file"),
        ({"frames": 3}, "unreadable camera file"),
    ],
)
def test_scenes_that_cannot_be_used(tmp_path: Path, clips: SyntheticClips, change: dict, reason: str) -> None:
    write_nerfstudio(tmp_path, "test", clips)
    file = tmp_path / "test" / clips.names[0] / "transforms.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert RealEstate10K(tmp_path, "test").skipped == {reason: 1}


def test_a_damaged_json_clip_is_counted(tmp_path: Path, clips: SyntheticClips) -> None:
    write_lvsm(tmp_path, "test", clips)
    metadata = tmp_path / "test/metadata"
    (metadata / f"{clips.names[0]}.json").write_text("{")
    content = json.loads((metadata / f"{clips.names[1]}.json").read_text())
    content["frames"][2]["w2c"][0][0] = 7.0
    (metadata / f"{clips.names[1]}.json").write_text(json.dumps(content))
    shutil.rmtree(tmp_path / "test/images" / clips.names[2])
    data = RealEstate10K(tmp_path, "test")
    assert data.skipped == {"unreadable camera file": 2, "no frames": 1}
    assert data.names == clips.names[3:]
