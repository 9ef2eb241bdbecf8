"""Pairs a second from a pack and from the published tree, and how fast packing is; on one core.

    python -m benchmarks.data --data DIR

Frames of the train split of DIR (a data set in any layout; without it, synthetic rooms, with grain, so that their PNG
files are about as large as real ones) are written as RealEstate10K is published, 640 x 360, packed, and read back.
Rounds alternate, the best counts, and time is that of the processor, in one process and thread: a busy machine changes
little, and workers share nothing that could slow them. A pair is what `RealEstate10K` gives: both frames read, decoded,
cropped, resized, with their cameras. Decoding alone is reading the files to arrays by the function that packing, too,
reads them with.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import torch

from datasets.clips import Clips
from datasets.config import DataConfig, open_pairs
from datasets.layouts import open_clips
from datasets.pack_writer import write_pack
from datasets.packed import Recipe
from datasets.pairs import PairDataset
from datasets.synthetic import SyntheticClips, write_tree
from dnnlib.imaging import read_image
from torch_utils.cameras import View

_WIDTH, _HEIGHT = 640, 360  # of the published data
_GRAIN = 0.7  # of 255
_TARGETS = {256: 6.0, 64: 25.0}


class Enlarged:
    """Clips whose frames have the size of the published data, and noise of a standard deviation; `frames` of each."""

    def __init__(self, clips: Clips, count: int, frames: int, grain: float) -> None:
        self.names, self._clips, self._frames, self._grain = list(clips.names[:count]), clips, frames, grain

    def open(self, number: int) -> EnlargedClip:
        return EnlargedClip(self._clips.open(number), self._frames, self._grain)


class EnlargedClip:
    def __init__(self, clip, frames: int, grain: float) -> None:  # noqa: ANN001
        self._clip, self.frames, self._grain = clip, list(clip.frames)[:frames], grain
        self.cameras = clip.cameras[:frames]

    def view(self, position: int) -> View:
        view = self._clip.view(position).resize(_WIDTH, _HEIGHT)
        noise = self._grain * torch.randn(view.image.shape, generator=torch.Generator().manual_seed(position))
        return replace(view, image=(view.image + noise).round().clip(0, 255).to(torch.uint8), depth=None)


def best_rates(rounds: int, functions: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Things a second of each function, which returns how many it did; the best of alternating rounds."""
    rates = dict.fromkeys(functions, 0.0)
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            count = function()
            rates[name] = max(rates[name], count / (time.process_time() - start))
    return rates


def read_pairs(data: PairDataset, count: int) -> int:
    for k in range(count):
        data[k]
    return count


def compare_reading(tree: Path, pack: Path, resolution: int, pairs: int, rounds: int) -> None:
    sets = {
        name: open_pairs(DataConfig(str(root), "train"), resolution) for name, root in (("tree", tree), ("pack", pack))
    }
    counts = {"tree": pairs, "pack": 8 * pairs}
    rates = best_rates(rounds, {name: partial(read_pairs, data, counts[name]) for name, data in sets.items()})
    ratio = rates["pack"] / rates["tree"]
    print(
        f"{resolution:>4} px: tree {rates['tree']:7.1f}, pack {rates['pack']:7.1f} pairs/s, "
        f"{ratio:5.1f}x (to reach: {_TARGETS[resolution]:g}x)"
    )


def compare_packing(tree: Path, scratch: Path, recipe: Recipe, rounds: int) -> None:
    files = sorted((tree / "train").glob("*/*.png"))

    def decode() -> int:
        for file in files:
            read_image(file)
        return len(files)

    def pack() -> int:
        write_pack(open_clips(tree, "train"), Path(tempfile.mkdtemp(dir=scratch)), recipe)
        return len(files)

    rates = best_rates(rounds, {"decode": decode, "pack": pack})
    print(
        f"packing at {' and '.join(map(str, recipe.sizes))} px: {rates['pack']:.1f} frames/s, decoding alone "
        f"{rates['decode']:.1f}: {rates['pack'] / rates['decode']:.0%} (to reach: 90%)"
    )


@contextmanager
def published_and_packed(source: Clips) -> Iterator[dict[str, Path]]:
    """Folders with a train split of the clips, as published and packed, that are there within the block."""
    with tempfile.TemporaryDirectory() as folder:
        roots = {name: Path(folder, name) for name in ("tree", "pack")}
        write_tree(roots["tree"], "train", source)
        write_pack(open_clips(roots["tree"], "train"), roots["pack"] / "train", Recipe())
        yield roots


def rooms(clips: int, frames: int) -> Enlarged:
    """Synthetic clips whose files are about as large as real ones."""
    small = SyntheticClips("train", clips, frames=frames, width=_WIDTH // 2, height=_HEIGHT // 2)
    return Enlarged(small, clips, frames, _GRAIN)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Frames to use.  [default: synthetic rooms]")
@click.option("--clips", default=8, show_default=True, help="At most so many.")
@click.option("--frames", default=16, show_default=True, help="Of each clip, at most so many.")
@click.option("--pairs", default=40, show_default=True, help="To read from the tree in a round; 8 times from the pack.")
@click.option("--rounds", default=3, show_default=True)
def main(data: Path | None, clips: int, frames: int, pairs: int, rounds: int) -> None:
    """Reading pairs from a pack against the published tree, and packing against decoding alone."""
    torch.set_num_threads(1)
    source = Enlarged(open_clips(data, "train"), clips, frames, 0.0) if data else rooms(clips, frames)
    with published_and_packed(source) as roots, tempfile.TemporaryDirectory() as scratch:
        tree, pack = roots["tree"], roots["pack"]
        sizes = [file.stat().st_size for file in (tree / "train").glob("*/*.png")]
        print(f"{len(sizes)} frames of {_WIDTH} x {_HEIGHT}, {sum(sizes) / len(sizes) / 1000:.0f} kB a PNG file")
        for resolution in _TARGETS:
            compare_reading(tree, pack, resolution, pairs, rounds)
        for recipe in (Recipe((256,)), Recipe((256, 64))):
            compare_packing(tree, Path(scratch), recipe, rounds)


if __name__ == "__main__":
    main()
