"""Ten kinds of damage, each named where it is; poses in another convention are found out by the frames."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image

from datasets.camera_files.realestate10k import format_realestate10k, parse_realestate10k
from datasets.doctor import main
from datasets.synthetic import SyntheticClips, write_tree
from tests.datasets.layout_writers import Misread, write_lvsm, write_nerfstudio
from tests.scripts import invoke


def run(*arguments: str | Path) -> Result:
    return invoke(main, *arguments, "--workers=1")


def findings(root: Path, *arguments: str) -> set[tuple[str, str]]:
    """(kind, where) of all that is found, poses apart."""
    result = run(root, "--json", "--poses=0", *arguments)
    report = json.loads(result.stdout)
    found = {(finding["kind"], finding["where"]) for split in report["splits"] for finding in split["findings"]}
    assert report["ok"] == (not found)
    assert result.exit_code == (1 if found else 0)
    return found


def edit_cameras(file: Path, change: Callable[[list[int], torch.Tensor], None]) -> None:
    url, timestamps, cameras = parse_realestate10k(file.read_text())
    change(timestamps, cameras)
    file.write_text(format_realestate10k(url, timestamps, cameras))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 16 clips of 6 frames."""
    root = tmp_path_factory.mktemp("rooms")
    write_tree(root, "train", SyntheticClips("train", 16, frames=6, width=24, height=16))
    return root


def test_a_healthy_tree_is_healthy_and_stays_as_it_was(rooms: Path) -> None:
    def snapshot() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in rooms.rglob("*")}

    before = snapshot()
    assert findings(rooms) == set()
    result = run(rooms, "--poses=0")
    assert result.stdout == (
        "train: published tree, 16 of 16 clips usable (16 too short for mid, 16 too short for long), "
        "96 of 96 frames, poses not compared\nnothing is wrong\n"
    )
    assert snapshot() == before


def test_each_of_many_kinds_of_damage_is_named(rooms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(rooms, tmp_path / "rooms")
    cameras, frames = root / "RealEstate10K/train", root / "train"

    def camera_file(number: int) -> Path:
        return cameras / f"train-{number:05d}.txt"

    def frame(number: int, position: int) -> Path:
        return frames / f"train-{number:05d}" / f"{33367 * position}.png"

    frame(0, 3).unlink()
    os.truncate(frame(1, 2), 300)
    shutil.copy(frame(2, 1), frame(2, 4))
    edit_cameras(camera_file(3), lambda times, rows: (times.insert(1, times.pop(4)), None)[1])
    edit_cameras(camera_file(4), lambda times, rows: rows[2, 6:9].mul_(-1))
    edit_cameras(camera_file(5), lambda times, rows: rows[:, :2].mul_(40))
    edit_cameras(camera_file(6), lambda times, rows: rows[:, 2].add_(1))
    with Image.open(frame(7, 5)) as image:
        image.resize((12, 8)).save(frame(7, 5))
    for position in range(6):  # cropped to squares, and the intrinsics forgotten
        with Image.open(frame(8, position)) as image:
            image.crop((4, 0, 20, 16)).save(frame(8, position))
    camera_file(9).unlink()
    shutil.rmtree(frames / "train-00010")
    shutil.copy(frame(11, 0), frame(11, 0).with_stem("5"))
    shutil.copy(camera_file(12), camera_file(99))
    shutil.copytree(frames / "train-00012", frames / "train-00099")
    edit_cameras(camera_file(13), lambda times, rows: times.__setitem__(3, times[2]))
    camera_file(14).write_text("")

    expected = {
        ("missing frames", "train-00000: 1 of 6, the first at position 3"),
        ("unreadable frames", "train-00001: 1, such as"),
        ("duplicate frames", "train-00002: 1, such as positions 1 and 4"),
        ("frames out of order", "train-00003: time runs backwards 1 times, first at position 2"),
        ("unreadable camera file", "train-00004.txt: line 4: not a rotation"),
        ("absurd intrinsics", "train-00005: focal length from"),
        ("absurd intrinsics", "train-00006: the principal point is outside the frame"),
        ("frames of several sizes", "train-00007: 5 of 24x16, 1 of 12x8"),
        ("intrinsics of another frame shape", "train-00008: pixels would be"),
        ("frames without a camera file", "train-00009"),
        ("no frames", f"{frames / 'train-00010'} has none of 6"),
        ("frames that the camera file lacks", "train-00011: 1, such as 5"),
        ("duplicate clip", "train/train-00099 is train/train-00012"),
        ("duplicate timestamps", "train-00013: 1, the first at position 3"),
        ("frames that the camera file lacks", "train-00013: 1, such as 100101"),
        ("duplicate frames", "train-00013: 1, such as positions 2 and 3"),
        ("unreadable camera file", "train-00014.txt: it has no line of a camera"),
    }
    found = findings(root)
    named = {(kind, where) for kind, where in expected if any(k == kind and w.startswith(where) for k, w in found)}
    assert named == expected
    assert len(found) == len(expected)

    result = run(root, "--poses=0")
    assert result.exit_code == 1
    assert "  absurd intrinsics: 2\n" in result.stdout
    fewer = findings(root, "--frames=2")  # the first and the last of each clip
    assert {kind for kind, _ in found} - {kind for kind, _ in fewer} == {"unreadable frames", "duplicate frames"}


def test_damaged_chunks_and_a_clip_in_two_splits(chunks: Path, tmp_path: Path) -> None:
    root = shutil.copytree(chunks, tmp_path / "chunks")
    assert findings(root) == set()
    (root / "val").mkdir()
    shutil.copy(root / "test/000002.torch", root / "val/000000.torch")
    (root / "val/index.json").write_text(json.dumps({"test-00004": "000000.torch"}))
    os.truncate(root / "test/000000.torch", 3000)
    content = torch.load(root / "test/000001.torch", weights_only=True)
    content[0]["images"][3] = content[0]["images"][3][:100].clone()
    torch.save(content, root / "test/000001.torch")
    torch.save([], root / "test/000007.torch")
    index = json.loads((root / "test/index.json").read_text())
    del index["test-00003"]
    (root / "test/index.json").write_text(json.dumps(index | {"gone": "000009.torch"}))
    kinds = sorted(kind for kind, _ in findings(root))
    assert kinds == [
        "chunk that the index lacks", "clips that the index lacks", "duplicate clip", "missing chunk",
        "unreadable chunk", "unreadable frames",
    ]  # fmt: skip


def test_no_data_folder_is_code_2(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "none of the known layouts" in result.stderr


def test_photographs(rooms: Path, tmp_path: Path) -> None:
    frames = sorted((rooms / "train/train-00000").iterdir())
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number, frame in enumerate(frames[:3]):
        shutil.copy(frame, folder / "below" / f"{number}.png")
    result = run(folder, "--photographs")
    assert (result.exit_code, result.stdout) == (0, "photos: photographs, 3 of 3 photographs\nnothing is wrong\n")
    os.truncate(folder / "below/1.png", 300)
    shutil.copy(frames[2], folder / "again.png")
    (wrong,) = (where for kind, where in findings(folder, "--photographs") if kind == "unreadable photograph")
    assert "below/1.png" in wrong
    assert ("duplicate clip", "photos/below/2.png is photos/again.png") in findings(folder, "--photographs")
    assert run(tmp_path / "nothing", "--photographs").exit_code == 2


def test_the_doctor_names_the_clip_and_its_convention(walks: SyntheticClips, tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", "test", walks)
    file = tmp_path / "tree/RealEstate10K/test/walks-00001.txt"
    edit_cameras(file, lambda _, rows: rows.copy_(Misread(walks, 1, "camera-to-world, OpenCV axes").cameras))
    result = run(tmp_path / "tree")
    assert result.exit_code == 1
    assert "wrong camera convention: 1\n    walks-00001: not world-to-camera, OpenCV axes, but camera-to-world, " in (
        result.stdout
    )

    for write in (write_lvsm, write_nerfstudio):  # each has conventions of its own, and is not blamed for them
        write(tmp_path / write.__name__, "test", walks)
        assert run(tmp_path / write.__name__).exit_code == 0
