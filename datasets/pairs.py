"""Which two frames: pair k of a data set is a function of (data, range, seed, k) alone.

Nothing here draws from a stream that others draw from too: each decision has random bits of its own, named by what
is decided, the seed and k. So a pair does not depend on batch size, workers, processes or what was drawn before.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dnnlib.text_files import parse_json, read_text
from dnnlib.util import UserError, atomic_path, one_line
from torch_utils.batches import Pair

CONTEXTS = ("first", "second", "closer")  # of two context frames, which is the source
FrameRange = tuple[int, int] | None  # (low, high): low <= |i - j| < high; None: any two frames


class FramePair(NamedTuple):
    """Two frames of a clip, by their positions in the clip file."""

    clip: str
    source: int
    target: int


class PairDataset(torch.utils.data.Dataset[Pair]):
    """Base class of the data sets of this package: an endless numbered supply of pairs.

    `len` is the number of clips or photographs, `iter` goes through that many pairs, but every k >= 0 is an item:
    a training run counts on for ever. Item k is a function of k, so any process may ask for any k.

    Attributes:
        skipped: how many clips or photographs cannot be used, by reason.
    """

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, k: int) -> Pair:
        raise NotImplementedError

    def summary(self) -> str:
        """One line: what there is, how much was skipped and why."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Pair]:
        return (self[k] for k in range(len(self)))

    def _skip(self, reason: str, example: str) -> None:
        """Count what cannot be used; the first example of each reason is kept for messages."""
        self.skipped[reason] += 1
        self._examples.setdefault(reason, example)

    def _skip_reasons(self) -> str:
        """``2 too short (such as ..), 1 broken (such as ..)``"""
        return ", ".join(f"{n} {reason} (such as {self._examples[reason]})" for reason, n in self.skipped.items())

    def _with_skipped(self, text: str) -> str:
        """The text, and behind it what was skipped, if anything."""
        return f"{text}; skipped {self.skipped.total()}: {self._skip_reasons()}" if self.skipped else text


class OwnPairs(PairDataset):
    """Pairs from anywhere, such as a list or a map-style data set of torch, as an endless supply.

    Each is visited once an epoch, every epoch in a new order; a `PairDataset`, which is endless, is taken as it is.

    Args:
        pairs: anything with a length whose items are `Pair`s. resolution: side of the views, None leaves them as they
            are. seed: another seed, another order.

    Raises UserError where there are none; asking for one, where an item is something else.
    """

    def __init__(self, pairs: Sequence[Pair], resolution: int | None = None, seed: int = 0) -> None:
        super().__init__()
        if not len(pairs):
            raise UserError("`pairs` is empty: give at least one pair of views")
        self.pairs, self.resolution, self.seed = pairs, resolution, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, k: int) -> Pair:
        number = k if isinstance(self.pairs, PairDataset) else visit(len(self.pairs), self.seed, k)
        pair = self.pairs[number]
        if not isinstance(pair, Pair):
            raise UserError(f"item {number} of `pairs` is of type {type(pair).__name__}: give torch_utils.batches.Pair")
        return pair if self.resolution is None else pair.square(self.resolution)

    def summary(self) -> str:
        return f"{type(self.pairs).__name__} of {len(self)} pairs"


def random_bits(purpose: str, *key: int, count: int = 1) -> np.ndarray:
    """uint64 [count] that depend on the arguments alone, key >= 0.

    numpy keeps the bits of PCG64 the same for ever, but not what Generator's methods make of them; so only bits are
    taken from it.
    """
    return np.random.PCG64(np.random.SeedSequence((zlib.crc32(purpose.encode()), *key))).random_raw(count)


def random_uniform(purpose: str, *key: int, count: int = 1) -> np.ndarray:
    """float64 [count] in [0, 1) that depend on the arguments alone."""
    return (random_bits(purpose, *key, count=count) >> np.uint64(11)) * 2.0**-53


def visit(n: int, seed: int, k: int) -> int:
    """The thing, 0 <= thing < n, at step k >= 0 of an endless walk: each once an epoch, every epoch in a new order."""
    if k < 0:
        raise IndexError(f"pairs are counted from 0, not {k}")
    epoch, place = divmod(k, n)
    return int(_epoch_order(n, seed, epoch)[place])


@lru_cache(maxsize=4)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(random_bits("epoch order", seed, epoch, count=n), kind="stable")


def count_pairs(frames: Sequence[int] | np.ndarray, frame_range: FrameRange) -> int:
    """Return how many ordered pairs of frames at these ascending positions are in the range."""
    return 2 * int(_partners(frames, frame_range)[1].sum())


def draw_pair(frames: Sequence[int] | np.ndarray, frame_range: FrameRange, seed: int, k: int) -> tuple[int, int]:
    """Positions (source, target) of the frames of pair k: uniform over the ordered pairs in the range.

    The modulo's bias, at most count_pairs/2^64, is nothing.
    """
    first, count = _partners(frames, frame_range)
    ends = np.cumsum(count)
    choice, swap = divmod(int(random_bits("frames", seed, k)[0]) % (2 * int(ends[-1])), 2)
    early = int(np.searchsorted(ends, choice, side="right"))
    late = int(first[early] + count[early] - (ends[early] - choice))
    pair = int(frames[early]), int(frames[late])
    return pair[::-1] if swap else pair


def _partners(frames: Sequence[int] | np.ndarray, frame_range: FrameRange) -> tuple[np.ndarray, np.ndarray]:
    """Return for each frame the later ones in range: the index of the first, and how many follow it without a break."""
    low, high = frame_range or (1, None)
    positions = np.asarray(frames, np.int64)
    first = np.searchsorted(positions, positions + max(low, 1))
    last = len(positions) if high is None else np.searchsorted(positions, positions + high)
    return first, np.maximum(last - first, 0)


def draw_lopsided_pair(
    frames: Sequence[int], forward: tuple[int, int], backward: tuple[int, int], seed: int, k: int
) -> tuple[int, int] | None:
    """Positions (source, target) of pair k: uniform over those with low <= target - source < high of `forward`, or
    low <= source - target < high of `backward`, in the order of (source, target). None where there are none.
    """
    positions = np.asarray(frames, np.int64)
    (low, high), (back_low, back_high) = forward, backward
    spans = ((positions - back_high + 1, positions - back_low + 1), (positions + low, positions + high))
    first, last = (np.stack([np.searchsorted(positions, span[end]) for span in spans], axis=1) for end in (0, 1))
    ends = np.cumsum(last - first)
    if not len(ends) or not ends[-1]:
        return None
    choice = int(random_bits("frames", seed, k)[0]) % int(ends[-1])
    row, span = divmod(int(np.searchsorted(ends, choice, side="right")), 2)
    place = int(last[row, span] - (ends[2 * row + span] - choice))
    return int(positions[row]), int(positions[place])


def write_pairs(path: str | PathLike, pairs: Iterable[FramePair]) -> None:
    """A pair list as JSON, one pair a line: ``{"clip": .., "source": .., "target": ..}``."""
    lines = ",\n".join(json.dumps(pair._asdict(), ensure_ascii=False) for pair in pairs)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_pair_lines(
    path: str | PathLike, pairs: Mapping[int, FramePair], numbers: Mapping[str, Mapping[int, float]] | None = None
) -> None:
    """A pair list as JSON lines, such as pandas and Parquet tools read: what `read_pairs` needs, and numbers.

    Args: pairs by seed; numbers by name, then by seed. Those that are not finite are null.
    """
    rows = []
    for seed, pair in sorted(pairs.items()):
        found = {name: of.get(seed) for name, of in (numbers or {}).items()}
        finite = {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}
        rows.append(json.dumps({"seed": seed, **pair._asdict(), **finite}, ensure_ascii=False, allow_nan=False))
    with atomic_path(path) as temporary:
        Path(temporary).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def read_pairs(path: str | PathLike, context: str = "first") -> list[FramePair]:
    """A pair list in one of these forms.

    * A JSON list of ``{"clip": .., "source": .., "target": ..}``, as `write_pairs` writes it.
    * JSON lines of the same, as `write_pair_lines` writes them.
    * ``run.json`` of a run of generate_images, or the folder it is in.
    * pixelSplat's evaluation index, ``{clip: {"context": [a, b], "target": [c, ..]} | null}``. Each target makes a pair
      with the context frame that `context` names: "first", "second", or "closer" to the target, the first at a tie.
    * Lines ``clip source target target ..`` of text, as the splits of MINE and Flash3D have them.

    Raises UserError for anything else.
    """
    return [pair for pair, _ in read_pair_rows(path, context)]


def pair_file(path: str | PathLike) -> Path:
    """The file that holds a pair list: the path, or ``run.json`` of a folder."""
    return Path(path, "run.json") if Path(path).is_dir() else Path(path)


def read_pair_rows(path: str | PathLike, context: str = "first") -> list[tuple[FramePair, int]]:
    """The same; each pair with the place of its target in its row, which says what kind of target it is."""
    if context not in CONTEXTS:
        raise UserError(f"context is one of {', '.join(CONTEXTS)}, not {context}")
    file = pair_file(path)
    try:
        rows = list(_rows(read_text(file), file, context))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__} {one_line(error)}"
        raise UserError(
            f"{path}: not a pair list ({reason}); expected a JSON list or JSON lines of "
            '{"clip": name, "source": frame, "target": frame}, a run.json, an evaluation_index of pixelSplat, '
            "or lines of text: clip source target target .."
        ) from None
    if not rows:
        raise UserError(f"{path}: the pair list is empty")
    return rows


def _rows(text: str, file: Path, context: str) -> Iterator[tuple[FramePair, int]]:
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if text.lstrip()[:1] not in ("[", "{"):
        for line in lines:
            clip, source, *targets = line.split()
            once = targets[:1] if len(set(targets)) == 1 else targets  # Flash3D repeats a target that stands alone
            if not targets:
                raise ValueError(f"no target in the line {line!r}")
            yield from ((FramePair(clip, int(source), int(target)), place) for place, target in enumerate(once))
        return
    if len(lines) > 1 and all(line[0] == "{" and line[-1] == "}" for line in lines):
        content = [parse_json(line, file) for line in lines]
    else:
        content = parse_json(text, file)
    if isinstance(content, dict) and {"clip", "source", "target"} <= content.keys():
        content = [content]  # JSON lines, of which there is one
    if isinstance(content, list):
        yield from ((FramePair(str(row["clip"]), int(row["source"]), int(row["target"])), 0) for row in content)
    elif "images" in content and "options" in content:
        for row in content["images"]:
            yield FramePair(str(row["clip"]), int(row["source_index"]), int(row["target_index"])), 0
    else:
        for clip, entry in content.items():
            for target in () if entry is None else entry["target"]:
                yield FramePair(clip, _context_frame(entry["context"], int(target), context), int(target)), 0


def _context_frame(frames: Sequence[int], target: int, context: str) -> int:
    first, second = int(frames[0]), int(frames[-1])
    if context == "closer":
        return first if abs(target - first) <= abs(target - second) else second
    return first if context == "first" else second
