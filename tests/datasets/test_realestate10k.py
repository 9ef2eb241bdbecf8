"""Both layouts give the same pairs, whoever asks and in whatever order; what cannot be used is counted and said."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.pairs import FramePair
from datasets.realestate10k import RealEstate10K
from datasets.synthetic import SyntheticClips
from dnnlib.imaging import read_image
from dnnlib.util import UserError
from torch_utils.batches import Pair, collate
from torch_utils.cameras import Camera


@pytest.fixture
def own_tree(tree: Path, tmp_path: Path) -> Path:
    """A tree that a test may damage."""
    return shutil.copytree(tree, tmp_path / "tree")


def assert_same(one: Pair, other: Pair) -> None:
    assert (one.clip, one.source_index, one.target_index) == (other.clip, other.source_index, other.target_index)
    for a, b in ((one.source, other.source), (one.target, other.target)):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.camera.intrinsics, b.camera.intrinsics)
        assert torch.equal(a.camera.extrinsics, b.camera.extrinsics)


def test_pairs_are_the_frames_and_cameras_that_were_written(tree: Path, clips: SyntheticClips) -> None:
    data = RealEstate10K(tree, "test", "3-6", resolution=None)
    assert len(data) == 5
    assert data.names == clips.names
    assert data.summary() == "5 clips, gap 3-6"
    for pair in data:
        assert 3 <= pair.gap < 6
        clip = clips.open(clips.names.index(pair.clip))
        for view, position in ((pair.source, pair.source_index), (pair.target, pair.target_index)):
            written = clip.view(position)
            assert torch.equal(view.image, written.image)
            torch.testing.assert_close(view.camera.intrinsics, written.camera.intrinsics, rtol=0, atol=1e-7)
            torch.testing.assert_close(view.camera.extrinsics, written.camera.extrinsics, rtol=0, atol=1e-8)


def test_both_layouts_make_the_same_pairs(tree: Path, chunks: Path) -> None:
    one, other = (RealEstate10K(root, "test", "3-6", 16, seed=7) for root in (tree, chunks))
    assert [one.choose(k) for k in range(50)] == [other.choose(k) for k in range(50)]
    for k in range(5):
        a, b = one[k], other[k]
        assert torch.allclose(a.source.camera.intrinsics, b.source.camera.intrinsics, atol=1e-5)  # chunks: float32
        difference = (a.target.image.float() - b.target.image.float()).abs().mean()
        assert difference < 2  # JPEG, of 255


def test_views_are_square_and_cameras_follow(tree: Path) -> None:
    raw, small = (RealEstate10K(tree, "test", resolution=resolution)[3] for resolution in (None, 16))
    assert small.source.image.shape == (3, 16, 16)
    assert torch.equal(small.source.image, raw.source.square(16).image)
    fx, fy, cx, cy = small.source.camera.focal_and_center.tolist()
    assert fx == pytest.approx(fy) == pytest.approx(raw.source.camera.intrinsics[1, 1] * 16 / 32)
    assert (cx, cy) == (8, 8)


def test_any_k_is_an_item_and_seeds_differ(tree: Path) -> None:
    data = RealEstate10K(tree, "test")
    assert data[10**12].source.image.shape == (3, 64, 64)
    assert len(list(data)) == 5
    chosen = [[RealEstate10K(tree, "test", seed=seed).choose(k) for k in range(20)] for seed in (0, 1)]
    assert chosen[0] != chosen[1]
    assert {pair.source < pair.target for pair in chosen[0]} == {True, False}


@pytest.mark.parametrize("layout", ["tree", "chunks"])
@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_workers_and_batch_size_change_nothing(
    request: pytest.FixtureRequest, layout: str, workers: int, start: str | None
) -> None:
    data = RealEstate10K(request.getfixturevalue(layout), "test", "2-9", 16)
    loader = DataLoader(
        data, sampler=range(8), batch_size=3, num_workers=workers, multiprocessing_context=start, collate_fn=list
    )
    loaded = [pair for batch in loader for pair in batch]
    for k, pair in enumerate(loaded):
        assert_same(pair, data[k])


def test_two_processes_that_take_turns_see_the_pairs_of_one(chunks: Path) -> None:
    """Each rank has a data set of its own and asks for every second pair."""
    whole = RealEstate10K(chunks, "test", "2-9", 16)
    ranks = [RealEstate10K(chunks, "test", "2-9", 16) for _ in range(2)]
    for k in (0, 1, 6, 7, 2, 3):
        assert_same(whole[k], ranks[k % 2][k])


def test_pairs_collate(chunks: Path) -> None:
    batch = collate(list(RealEstate10K(chunks, "test", resolution=16)))
    assert batch.source.shape == batch.target.shape == (5, 3, 16, 16)
    assert batch.depth is None


def test_a_listed_pair_list_is_used_in_order(tree: Path) -> None:
    pairs = [FramePair("test-00002", 1, 7), FramePair("test-00000", 11, 0)]
    data = RealEstate10K(tree, "test", pairs=pairs)
    assert len(data) == 2
    assert [(p.clip, p.source_index, p.target_index) for p in data] == pairs
    assert data.choose(5) == pairs[1]
    assert data.summary() == "5 clips, 2 listed pairs"


@pytest.mark.parametrize(
    ("pairs", "range_selection", "message"),
    [
        ([("nowhere", 0, 1)], None, "clip nowhere"),
        ([("test-00000", 0, 12)], None, "12 frames from 0 to 11"),
        ([("test-00000", -1, 1)], None, "frames -1 and 1"),
        ([("test-00000", 0, 1)], "mid", "leave the range out"),
    ],
)
def test_bad_pair_lists(
    tree: Path, pairs: list[tuple[str, int, int]], range_selection: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        RealEstate10K(tree, "test", range_selection, pairs=[FramePair(*pair) for pair in pairs])


def test_listed_pairs_that_are_not_here_are_counted(tree: Path) -> None:
    here = FramePair("test-00002", 1, 7)
    data = RealEstate10K(tree, "test", pairs=[FramePair("nowhere", 0, 1), here, FramePair("test-00000", 0, 12)])
    assert list(map(data.choose, range(len(data)))) == [here]
    assert "5 clips, 1 listed pairs; skipped 2: 1 listed pairs of clips that are not here (such as" in data.summary()
    drawn = RealEstate10K(tree, "test")
    assert drawn.with_pairs([here]).choose(0) == here
    assert (len(drawn), drawn.summary()) == (5, "5 clips")  # as it was


def test_cameras_without_the_subfolder_and_other_image_formats(own_tree: Path, tree: Path) -> None:
    reference = RealEstate10K(tree, "test")
    for file in (own_tree / "RealEstate10K/test").iterdir():
        file.rename(own_tree / "test" / file.name)
    shutil.rmtree(own_tree / "RealEstate10K")
    for frame in (own_tree / "test").glob("*/*.png"):
        with Image.open(frame) as image:
            image.save(frame.with_suffix(".webp"), lossless=True)
        frame.unlink()
    data = RealEstate10K(own_tree, "test")
    for k in range(5):
        assert_same(data[k], reference[k])


def test_frames_of_another_size_scale_the_intrinsics(own_tree: Path, clips: SyntheticClips) -> None:
    for frame in (own_tree / "test/test-00000").iterdir():
        with Image.open(frame) as image:
            image.resize((96, 20)).save(frame)
    pair = RealEstate10K(own_tree, "test", resolution=None, pairs=[FramePair("test-00000", 0, 1)])[0]
    expected = Camera.from_normalized(clips.open(0).cameras[0], 96, 20)
    torch.testing.assert_close(pair.source.camera.intrinsics, expected.intrinsics, rtol=0, atol=1e-6)


def test_missing_frames_keep_the_positions_of_the_others(own_tree: Path) -> None:
    folder = own_tree / "test/test-00000"
    frames = sorted(folder.iterdir(), key=lambda path: int(path.stem))
    for position in (0, 4, 5, 6, 7, 8):
        frames[position].unlink()
    data = RealEstate10K(own_tree, "test", "6-9", resolution=None)
    seen = {frozenset(pair[1:]) for pair in map(data.choose, range(400)) if pair.clip == "test-00000"}
    assert seen == {frozenset(pair) for pair in ((1, 9), (2, 9), (2, 10), (3, 9), (3, 10), (3, 11))}
    pair = next(pair for pair in (data[k] for k in range(50)) if pair.clip == "test-00000")
    assert np.array_equal(pair.source.image.permute(1, 2, 0), read_image(frames[pair.source_index]))


def test_what_cannot_be_used_is_counted(own_tree: Path) -> None:
    cameras, frames = own_tree / "RealEstate10K/test", own_tree / "test"
    (cameras / "test-00000.txt").write_text("https://x\n1 2 3\n")
    shutil.rmtree(frames / "test-00001")
    for frame in sorted((frames / "test-00002").iterdir(), key=lambda path: int(path.stem))[3:]:
        frame.unlink()
    (cameras / "test-00003.txt").write_bytes(b"\xff\xfe\x00")
    data = RealEstate10K(own_tree, "test", "5-9")
    assert data.skipped == {"unreadable camera file": 2, "no frames": 1, "too short for gap 5-9": 1}
    assert data.names == ["test-00004"]
    summary = data.summary()
    assert "skipped 4: 2 unreadable camera file (such as test-00000.txt: line 2: 3 columns" in summary
    assert "\n" not in summary

    shutil.rmtree(frames / "test-00004")
    with pytest.raises(UserError, match="none of 5 clips can be used: 2 unreadable camera file"):
        RealEstate10K(own_tree, "test", "5-9")


def test_too_short_for_the_range_says_so(chunks: Path) -> None:
    with pytest.raises(UserError, match=r"test: none of 5 clips.* 5 too short for gap 30-60 .*another range"):
        RealEstate10K(chunks, "test", "mid")


def test_missing_data_names_what_there_is(tree: Path, chunks: Path, tmp_path: Path) -> None:
    for root in (tree, chunks):
        with pytest.raises(UserError, match=r"no split 'val'; it has test$"):
            RealEstate10K(root, "val")
    with pytest.raises(UserError, match=r"expected RealEstate10K/val/<clip>\.txt"):
        RealEstate10K(tmp_path, "val")
    with pytest.raises(UserError, match="no data folder"):
        RealEstate10K(tmp_path / "nothing", "val")


def test_a_truncated_frame_is_named(own_tree: Path) -> None:
    data = RealEstate10K(own_tree, "test", pairs=[FramePair("test-00001", 0, 1)])
    frame = own_tree / "test/test-00001/33367.png"
    os.truncate(frame, 200)
    with pytest.raises(UserError, match=r"test-00001/33367\.png"):
        data[0]


def test_a_bad_image_in_a_chunk_is_named(chunks: Path, tmp_path: Path) -> None:
    root = shutil.copytree(chunks, tmp_path / "chunks")
    content = torch.load(root / "test/000000.torch", weights_only=True)
    content[1]["images"][3] = content[1]["images"][3][:100].clone()
    torch.save(content, root / "test/000000.torch")
    data = RealEstate10K(root, "test", pairs=[FramePair("test-00001", 3, 1)])
    with pytest.raises(UserError, match="frame 3 of clip test-00001"):
        data[0]


def test_damaged_chunks_are_counted(chunks: Path, tmp_path: Path) -> None:
    root = shutil.copytree(chunks, tmp_path / "chunks")
    first, second, _ = sorted((root / "test").glob("*.torch"))
    os.truncate(first, 3000)
    content = torch.load(second, weights_only=True)
    content[0]["cameras"] = content[0]["cameras"][:-1]
    del content[1]["images"]
    torch.save(content, second)
    index = json.loads((root / "test/index.json").read_text())
    (root / "test/index.json").write_text(json.dumps(index | {"gone": "000009.torch", "unknown": "000002.torch"}))
    data = RealEstate10K(root, "test")
    assert data.skipped == {"unreadable chunk": 2, "damaged clip": 3, "missing chunk": 1}
    assert data.names == ["test-00004"]


def test_a_chunk_runs_no_code(chunks: Path, tmp_path: Path) -> None:
    root = shutil.copytree(chunks, tmp_path / "chunks")
    torch.save([{"key": "test-00000", "x": Exploit(tmp_path / "ran")}], root / "test/000000.torch")
    assert RealEstate10K(root, "test").skipped == {"unreadable chunk": 2}
    assert not (tmp_path / "ran").exists()


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_broken_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/index.json").write_text(text)
    with pytest.raises(UserError, match=r"not an index of chunks|no JSON"):
        RealEstate10K(tmp_path, "test")
