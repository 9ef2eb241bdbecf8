"""Packs: exact where the codec is, the same bytes whoever packs, resumed, verified, and read in any order."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from datasets.clips import UnusableClip
from datasets.doctor import main as doctor
from datasets.layouts import open_clips
from datasets.pack import main
from datasets.pack_writer import open_sources, write_pack
from datasets.packed import PackedClips, Recipe, verify_pack
from datasets.realestate10k import RealEstate10K
from datasets.synthetic import SyntheticClips
from dnnlib.imaging import read_image
from dnnlib.util import UserError
from tests.scripts import invoke, run_python
from torch_utils.cameras import View
from torch_utils.geometry_vector import geometry_vector

ROOT = Path(__file__).parents[2]
RECIPE = Recipe((32, 16), "png", clips_per_shard=2)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    root = tmp_path_factory.mktemp("pack")
    assert write_pack(open_clips(tree, "test"), root / "test", RECIPE) == {}
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.mark.parametrize("resolution", [32, 16, 8, 64])
def test_pairs_are_those_of_the_tree(tree: Path, pack: Path, resolution: int) -> None:
    """To the bit at the sizes that are stored; from a larger size otherwise, which resizes twice."""
    packed, published = (RealEstate10K(root, "test", "3-9", resolution, seed=3) for root in (pack, tree))
    for k in range(8):
        one, other = packed[k], published[k]
        for a, b in ((one.source, other.source), (one.target, other.target)):
            difference = (a.image.float() - b.image.float()).abs()
            assert float(difference.max() if resolution >= 16 else difference.mean()) <= (0 if resolution >= 16 else 4)
            torch.testing.assert_close(a.camera.intrinsics, b.camera.intrinsics, rtol=0, atol=1e-12)
            assert torch.equal(a.camera.extrinsics, b.camera.extrinsics)
        for published_intrinsics in (False, True):  # these need the size of the frame before the crop
            vectors = [
                geometry_vector(pair.source.camera, pair.target.camera, resolution, published_intrinsics)
                for pair in (one, other)
            ]
            torch.testing.assert_close(*vectors, rtol=0, atol=1e-6)


def test_the_bytes_do_not_depend_on_workers_or_interruptions(tree: Path, pack: Path, tmp_path: Path) -> None:
    clips = open_clips(tree, "test")
    write_pack(clips, tmp_path / "two", RECIPE, workers=2)
    assert files_of(tmp_path / "two") == files_of(pack / "test")

    shutil.copytree(pack / "test", tmp_path / "cut")
    (tmp_path / "cut/pack.json").unlink()
    (tmp_path / "cut/000001.safetensors").unlink()
    (tmp_path / "cut/.000001.0a1b2c3d.tmp.safetensors").write_bytes(b"half")  # of a run that was killed
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("0*")}
    write_pack(clips, tmp_path / "cut", RECIPE)
    assert files_of(tmp_path / "cut") == files_of(pack / "test")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())  # not made a second time


def test_another_pack_is_not_overwritten(tree: Path, pack: Path) -> None:
    before = files_of(pack / "test")
    with pytest.raises(UserError, match="another recipe"):
        write_pack(open_clips(tree, "test"), pack / "test", Recipe((32,), "png", clips_per_shard=2))
    with pytest.raises(UserError, match="other clips"):
        write_pack(SyntheticClips("other", 5, frames=3, width=8, height=8), pack / "test", RECIPE)
    assert files_of(pack / "test") == before


def test_verify_finds_every_damage(pack: Path, tmp_path: Path) -> None:
    assert list(verify_pack(pack / "test")) == []
    root = shutil.copytree(pack / "test", tmp_path / "test")
    shard = root / "000000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-40] ^= 1
    shard.write_bytes(content)
    (root / "000002.safetensors").unlink()
    (root / "000009.safetensors").write_bytes(b"")
    problems = list(verify_pack(root))
    assert problems[:3] == [
        "wrong checksum: 000000.safetensors: remove it and pack again, which makes it anew",
        "missing shard: 000002.safetensors",
        "shard that the index lacks: 000009.safetensors",
    ]
    assert RealEstate10K(tmp_path, "test").skipped == {"unreadable shard": 1}
    os.truncate(root / "000001.safetensors", 2000)
    assert RealEstate10K(tmp_path, "test").skipped == {"unreadable shard": 3}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"recipe": {"version": 9}}', '{"recipe": {"version": 1}, "shards": [1]}']
)
def test_a_bad_index_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/pack.json").write_text(text)
    with pytest.raises(UserError, match="pack anew") as caught:
        RealEstate10K(tmp_path, "test")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_left_out_and_positions_stay(tree: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tree, tmp_path / "tree")
    frames = sorted((source / "test/test-00000").iterdir(), key=lambda path: int(path.stem))
    frames[2].unlink()
    os.truncate(frames[5], 100)
    (source / "RealEstate10K/test/test-00001.txt").write_text("https://x\n1 2 3\n")
    skipped = write_pack(open_clips(source, "test"), tmp_path / "pack/test", RECIPE)
    assert set(skipped) == {"test-00000, 1 frames", "test-00001"}
    assert "is not a whole image" in skipped["test-00000, 1 frames"]
    clip = PackedClips(tmp_path / "pack/test").open(0)
    assert list(clip.frames) == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
    original = open_clips(source, "test").open(0)
    assert clip.timestamps == original.timestamps
    assert torch.equal(clip.cameras[:, 6:], original.cameras[:, 6:])
    assert len(set(map(tuple, clip.cameras[:, :4].tolist()))) == 1  # all are those of the square
    for position in clip.frames:
        assert torch.equal(clip.view(position).image, original.view(position).square(32).image)


@pytest.mark.parametrize(("codec", "worst"), [("jpeg", 3.0), ("webp", 0.0), ("png", 0.0)])
def test_codecs(tree: Path, tmp_path: Path, codec: str, worst: float) -> None:
    write_pack(open_clips(tree, "test"), tmp_path / "test", Recipe((32,), codec))
    packed, exact = PackedClips(tmp_path / "test").open(0).view(3), open_clips(tree, "test").open(0).view(3).square(32)
    assert float((packed.image.float() - exact.image.float()).abs().mean()) <= worst  # of 255


def test_a_file_that_fits_is_taken_as_it_is(tmp_path: Path) -> None:
    """JPEG frames of chunks that are square and small enough are not encoded a second time."""
    from datasets.synthetic import write_chunks

    write_chunks(tmp_path / "chunks", "test", SyntheticClips("test", 1, frames=3, width=24, height=24))
    source = open_clips(tmp_path / "chunks", "test")
    write_pack(source, tmp_path / "pack/test", Recipe((32, 24, 12)))
    for size, same in ((32, True), (24, True), (12, False)):
        clip = PackedClips(tmp_path / "pack/test", size).open(0)
        assert (clip.read(1) == source.open(0).read(1)) == same
        assert clip.view(1).image.shape == (3, min(size, 24), min(size, 24))  # never enlarged


def test_workers_read_what_one_process_reads(pack: Path) -> None:
    """Forked after shards were mapped here, and sent to another process, which finds them by their paths."""
    data = RealEstate10K(pack, "test", "2-9", 16)
    own = [data[k].source.image for k in range(6)]
    loader = DataLoader(
        data, sampler=range(6), batch_size=2, num_workers=2, multiprocessing_context="fork", collate_fn=list
    )
    copy = pickle.loads(pickle.dumps(data))
    for k, pair in enumerate(pair for batch in loader for pair in batch):
        assert torch.equal(pair.source.image, own[k])
        assert torch.equal(copy[k].source.image, own[k])


def test_reading_keeps_no_file_open_and_memory_flat(pack: Path) -> None:
    data, process = RealEstate10K(pack, "test", "2-9", 16), psutil.Process()
    for k in range(100):
        data[k]
    files, memory = process.num_fds(), process.memory_info().rss
    for k in range(1000):
        data[k]
    assert process.num_fds() == files
    assert process.memory_info().rss - memory < 4 << 20


def test_photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos/more").mkdir(parents=True)
    for name, size in (("a.png", (40, 30)), ("more/b.jpg", (30, 50))):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/c.png").write_bytes(b"nothing")
    (clips,) = open_sources(tmp_path / "photos", photographs=True).values()
    skipped = write_pack(clips, tmp_path / "pack", Recipe((16,), "png"))
    assert list(skipped) == ["c.png"]
    packed = PackedClips(tmp_path / "pack")
    assert packed.names == ["a.png", "more/b.jpg"]
    view = packed.open(0).view(0)
    image = torch.from_numpy(read_image(tmp_path / "photos/a.png")).permute(2, 0, 1)
    assert torch.equal(view.image, View(image, clips.open(0).view(0).camera).square(16).image)
    assert view.camera.focal_and_center.tolist() == pytest.approx([0.6 * 16, 0.6 * 16, 8, 8])
    assert invoke(doctor, tmp_path / "pack", "--workers=1").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tree}", "{tree}"], "one folder"),
        (["{tree}", "{out}", "--split=val"], "no split 'val'; it has test"),
        (["{tree}", "{out}", "--size=0"], "cannot be packed"),
        (["{tree}", "{out}", "--codec=gif"], "gif"),
        (["{tree}", "{out}", "--photographs", "--split=test"], "no splits"),
        (["{tree}", "{out}", "--from-videos={out}"], "no folder of videos"),
        (["{out}", "{tree}"], "no data folder"),
    ],
)
def test_bad_requests_are_one_line(tree: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    places = {"tree": tree, "out": tmp_path / "out"}
    result = invoke(main, *(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_line_packs_and_verifies(tree: Path, tmp_path: Path) -> None:
    run = run_python("-m", "datasets.pack", tree, tmp_path / "out", "--size=16", "--verify", "--workers=1")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].endswith("every frame was read back")
    assert json.loads((tmp_path / "out/test/pack.json").read_text())["recipe"]["sizes"] == [16]
    assert len(list(RealEstate10K(tmp_path / "out", "test", "3-9", 16))) == 5


def test_a_shard_appears_whole_or_not_at_all(tree: Path, tmp_path: Path) -> None:
    class Failing:
        names = ("a", "b")

        def open(self, number: int) -> Iterator:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pack(Failing(), tmp_path / "pack", RECIPE)
    assert files_of(tmp_path / "pack") == {}


def _damaged_tables(tables: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """A shard's tables, each time with one that is wrong."""
    rows = len(tables["timestamps"])
    offsets = tables["offsets_16"]
    wrong: dict[str, dict[str, np.ndarray | None]] = {f"no {name}": {name: None} for name in tables}
    wrong |= {f"{name} of another type": {name: np.zeros(table.shape, np.float16)} for name, table in tables.items()}
    wrong |= {f"{name} flat": {name: np.zeros((), table.dtype)} for name, table in tables.items()}
    wrong |= {f"{name} short": {name: table[: rows // 2]} for name, table in tables.items() if "images" not in name}
    wrong |= {
        "offsets beyond": {"offsets_16": offsets + 1},
        "offsets huge": {"offsets_16": np.where(offsets > 0, 1 << 62, 0)},
        "offsets backwards": {"offsets_16": offsets[::-1].copy()},
        "offsets negative": {"offsets_16": offsets - 5},
        "images none": {"images_16": np.zeros(0, np.uint8)},
        "cameras nan": {"cameras": tables["cameras"] * np.nan},
        "cameras zero": {"cameras": tables["cameras"] * 0},
        "sides zero": {"frame_sides": tables["frame_sides"] * 0},
    }
    return {
        name: {key: table for key, table in {**tables, **change}.items() if table is not None}
        for name, change in wrong.items()
    }


def test_every_table_is_checked_before_it_is_used(pack: Path, tmp_path: Path) -> None:
    shutil.copytree(pack / "test", tmp_path / "pack")
    shard = tmp_path / "pack/000000.safetensors"
    with safe_open(shard, "numpy") as file:
        names = [name for name in file.keys() if not name.endswith("_32")]  # noqa: SIM118
        tables, metadata = {name: file.get_tensor(name) for name in names}, file.metadata()
    cases = _damaged_tables(tables)
    assert len(cases) > 25
    for name, damaged in cases.items():
        save_file(damaged, shard, metadata)
        with pytest.raises(UnusableClip) as caught:
            PackedClips(tmp_path / "pack", 16).open(0)
        assert "\n" not in str(caught.value), name


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": 5},
        {"recipe": {"version": 1}},
        {"recipe": {"version": 1, "sizes": []}},
        {"recipe": {"version": 1, "sizes": ["16"]}},
        {"recipe": {"version": 1, "sizes": [10**30]}},
        {"shards": 7},
        {"shards": [{"file": "../outside.safetensors", "sha256": "0", "clips": {}}]},
        {"shards": [{"file": "/etc/passwd", "sha256": "0", "clips": {"a": 1}}]},
        {"shards": [{"file": "a.safetensors", "sha256": "0", "clips": {"a": -1}}]},
        {"shards": [{"file": "a.safetensors", "sha256": "0", "clips": {"a": "many"}}]},
        {"shards": [{"file": "a.safetensors", "sha256": "0", "clips": {"a": 10**4000}}]},
    ],
)
def test_an_index_that_is_wrong_inside(tmp_path: Path, change: dict) -> None:
    index = {"recipe": Recipe((16,)).to_json(), "shards": [], **change}
    (tmp_path / "pack.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="pack anew") as caught:
        PackedClips(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_shard_without_clips_gives_none(pack: Path, tmp_path: Path) -> None:
    copy = tmp_path / "test"
    shutil.copytree(pack / "test", copy)
    index = json.loads((copy / "pack.json").read_text())
    names = PackedClips(copy).names
    index["shards"].insert(0, {"file": "none.safetensors", "sha256": "0", "clips": {}})
    (copy / "pack.json").write_text(json.dumps(index))
    clips = PackedClips(copy)
    assert clips.names == names
    assert [clips.open(number).name for number in range(len(names))] == names
