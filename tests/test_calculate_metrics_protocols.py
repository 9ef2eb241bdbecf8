"""Every protocol from the command line to the table, pair by pair against `tests.metrics.by_hand`, to 1e-4.

The clips are frames of two walks that the repository carries (tests/data/arena), at the networks' resolution, so that
the frames as they are stored are the truth; and real ones, where the checkout has them beside it, which are cropped
and resized.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calculate_metrics import main
from metrics.protocols import PROTOCOLS
from tests.golden import DATA
from tests.metrics import by_hand
from tests.scripts import succeed

ARENA = DATA / "arena"
REAL = Path(__file__).resolve().parents[2] / "shared" / "re10k-sample"
HOW = ("--preset=vivid-tiny", "--steps=1", "--dtype=float32", "--device=cpu", "--workers=0")

Expected = list[tuple[by_hand.Pair, str]]  # with the name of the group


@cache
def square(file: Path, side: int) -> np.ndarray:
    image = Image.open(file).convert("RGB")
    left, top = ((length - min(image.size)) // 2 for length in image.size)
    image = image.crop((left, top, left + min(image.size), top + min(image.size)))
    return np.array(image if image.width == side else image.resize((side, side), Image.Resampling.BILINEAR))


class Frames:
    """The files of a split: frames by clip and position, and lines of the camera files."""

    def __init__(self, root: Path) -> None:
        texts = {path.stem: path.read_text() for path in (root / "RealEstate10K" / "test").glob("*.txt")}
        lines = {clip: [line.split() for line in text.splitlines()[1:]] for clip, text in texts.items()}
        files = {clip: {path.stem: path for path in (root / "test" / clip).iterdir()} for clip in lines}
        self.files = {
            clip: {k: files[clip][row[0]] for k, row in enumerate(rows) if row[0] in files[clip]}
            for clip, rows in lines.items()
        }
        self.cameras = {clip: np.array(rows, float)[:, 1:] for clip, rows in lines.items()}
        self.clips = sorted(self.files)

    def image(self, clip: str, position: int, side: int) -> np.ndarray:
        """The central square at this size, by Pillow."""
        return square(self.files[clip][position], side)

    def camera(self, clip: str, position: int) -> np.ndarray:
        """Its line, for the central square."""
        row = self.cameras[clip][position].copy()
        with Image.open(self.files[clip][position]) as image:
            for axis, length in enumerate(image.size):
                row[axis] *= length / min(image.size)
                row[2 + axis] = ((row[2 + axis] - 0.5) * length + min(image.size) / 2) / min(image.size)
        return row


def rows_of_flash3d(frames: Frames, folder: Path, gaps: Sequence[int]) -> tuple[Path, Expected]:
    lines, expected = [], []
    for clip, source in ((frames.clips[1], 0), (frames.clips[0], 5)):
        targets = [source + gap for gap in gaps]
        lines.append(" ".join(map(str, (clip, source, *targets))))
        groups = ("5 frames", "10 frames", "random within 30")
        expected += [((clip, source, target), group) for target, group in zip(targets, groups, strict=True)]
    (folder / "rows.txt").write_text("\n".join(lines))
    return folder / "rows.txt", expected


def index_of_pixelsplat(frames: Frames, folder: Path, context: str, targets: Sequence[int]) -> tuple[Path, Expected]:
    first, second = frames.clips[:2]
    ends = sorted(frames.files[first])[:: len(frames.files[first]) - 1]
    index = {second: {"context": ends, "target": targets}, "elsewhere": None, first: {"context": ends, "target": [5]}}
    (folder / "index.json").write_text(json.dumps(index))
    expected = []
    for clip, target in (*((second, target) for target in targets), (first, 5)):
        closer = min(ends, key=lambda end: abs(target - end))
        expected.append(((clip, {"first": ends[0], "second": ends[1], "closer": closer}[context], target), ""))
    return folder / "index.json", expected


def judged(folder: Path, data: Path, name: str, pairs: Path | None, count: int) -> dict:
    """The table; of a list there is no need to say how many."""
    how = [f"--num={count}" if pairs is None else f"--pairs={pairs}"]
    metrics = "psnr,ssim,tsed" if name in ("tsed", "flash3d") else "psnr,ssim"
    where = (f"--data={data}", f"--json={folder / 'table.json'}", f"--outdir={folder / 'out'}")
    succeed(main, "gen", f"--protocol={name}", *HOW, *where, *how, f"--metrics={metrics}")
    return json.loads((folder / "table.json").read_text())


def check(table: Mapping, frames: Frames, folder: Path, expected: Expected, border: float) -> None:
    """Pairs, the numbers of each, means, groups, and what a copy of the source view gets."""
    assert [(row["clip"], row["source"], row["target"]) for row in table["pairs"]] == [pair for pair, _ in expected]
    numbers: dict[str, list[float]] = {name: [] for name in table["metrics"]}
    copies = []
    for seed, ((clip, source, target), _) in enumerate(expected):
        sample = np.array(Image.open(folder / "out" / f"sample_{seed:06d}.png"))
        truth, before = (true_image(frames, folder, clip, k, seed, sample) for k in (target, source))
        (cut_sample, cut_truth, cut_before) = (by_hand.cut(image, border) for image in (sample, truth, before))
        numbers["psnr"].append(by_hand.psnr(cut_sample, cut_truth))
        numbers["ssim"].append(by_hand.ssim(cut_sample, cut_truth))
        if "tsed" in numbers:
            cameras = frames.camera(clip, target), frames.camera(clip, source)
            numbers["tsed"].append(by_hand.epipolar(sample, before, *cameras, border))
        copies.append(by_hand.psnr(cut_before, cut_truth))
    for name, by_pair in numbers.items():
        found = [math.inf if value is None else value for value in table["metrics"][name]["per_image"].values()]
        np.testing.assert_allclose(found, by_pair, rtol=0, atol=1e-4, err_msg=name)
        of_pairs = [float(value < 2) for value in by_pair] if name == "tsed" else by_pair
        assert table["metrics"][name]["generated"] == pytest.approx(np.mean(of_pairs), abs=1e-4)
        for group in dict.fromkeys(group for _, group in expected if group):
            mean = np.mean([value for value, (_, its) in zip(of_pairs, expected, strict=True) if its == group])
            assert table["groups"][name][group] == pytest.approx(mean, abs=1e-4)
    assert table["metrics"]["psnr"]["copy_source"] == pytest.approx(np.mean(copies), abs=1e-4)


def true_image(frames: Frames, folder: Path, clip: str, position: int, seed: int, sample: np.ndarray) -> np.ndarray:
    """The frame as it is stored; where it is resized, as it was saved, if that shows this frame and no other."""
    side = sample.shape[0]
    with Image.open(frames.files[clip][position]) as stored:
        if stored.size == (side, side):
            return frames.image(clip, position, side)
    saved = [np.array(Image.open(folder / "out" / f"{role}_{seed:06d}.png"), float) for role in ("tgt", "src")]
    error = {k: [np.abs(image - frames.image(clip, k, side)).mean() for image in saved] for k in frames.files[clip]}
    role = int(np.argmin(error[position]))
    assert min(error, key=lambda k: error[k][role]) == position
    assert error[position][role] < 1.5
    return saved[role].astype(np.uint8)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol(name: str, tmp_path: Path) -> None:
    frames, pairs = Frames(ARENA), None
    positions = {clip: sorted(frames.files[clip]) for clip in frames.clips}
    if name == "flash3d":
        pairs, expected = rows_of_flash3d(frames, tmp_path, gaps=(5, 10, 25))
        expected = [row for row in expected if row[0][2] in positions[row[0][0]]]
    elif name.startswith("pixelsplat"):
        context = name.removeprefix("pixelsplat").removeprefix("-") or "first"
        pairs, expected = index_of_pixelsplat(frames, tmp_path, context, targets=[10, 50])
    elif name == "re10k-50-200":
        expected = [((clip, 0, 50), "frame 50") for clip in frames.clips]  # frame 200 is in neither
    else:
        ends = {"vivid-mid": ((30, 59), (30, 60)), "vivid-long": ((60, 119), (60, 120)), "tsed": ((10, 10), (10, 10))}
        expected = [(pair, "") for pair in by_hand.drawn(positions, *ends[name], count=4)]
    table = judged(tmp_path, ARENA, name, pairs, len(expected))
    if name == "flash3d":
        said = "pairs 0 to 4 of 2 clips, 5 listed pairs; skipped 1: 1 listed pairs of frames that are not here"
        assert any(said in note for note in table["notes"])
    check(table, frames, tmp_path, expected, border=0.05 if name == "flash3d" else 0)


@pytest.mark.skipif(not REAL.exists(), reason="the checkout has no real clips beside it")
@pytest.mark.parametrize("name", ["flash3d", "pixelsplat", "pixelsplat-second", "pixelsplat-closer", "tsed"])
def test_protocol_on_real_clips(name: str, tmp_path: Path) -> None:
    """Those that clips of 16 frames, 5 to 10 video frames apart, are long enough for."""
    frames, pairs = Frames(REAL), None
    if name == "flash3d":
        pairs, expected = rows_of_flash3d(frames, tmp_path, gaps=(5, 10, 7))
    elif name == "tsed":
        positions = {clip: sorted(frames.files[clip]) for clip in frames.clips}
        expected = [(pair, "") for pair in by_hand.drawn(positions, (10, 10), (10, 10), count=4)]
    else:
        context = name.removeprefix("pixelsplat").removeprefix("-") or "first"
        pairs, expected = index_of_pixelsplat(frames, tmp_path, context, targets=[3, 8, 12])
    table = judged(tmp_path, REAL, name, pairs, len(expected))
    check(table, frames, tmp_path, expected, border=0.05 if name == "flash3d" else 0)
