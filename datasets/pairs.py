"""Which two frames: pair k of a data set is a function of (data, range, seed, k) alone.

Nothing here draws from a stream that others draw from too: each decision has random bits of its own, named by what
is decided, the seed and k. So a pair does not depend on batch size, workers, processes or what was drawn before.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dnnlib.text_files import read_json
from dnnlib.util import UserError, atomic_path, one_line
from torch_utils.batches import Pair

FrameRange = tuple[int, int] | None  # (low, high): low <= |i - j| < high; None: any two frames


class FramePair(NamedTuple):
    """Two frames of a clip, by their positions in the clip file."""

    clip: str
    source: int
    target: int


class PairDataset(torch.utils.data.Dataset[Pair]):
    """What the data sets of this package have in common: an endless numbered supply of pairs.

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


def count_pairs(frames: Sequence[int], frame_range: FrameRange) -> int:
    """How many ordered pairs of frames at these ascending positions are in the range."""
    return 2 * int(_partners(frames, frame_range)[1].sum())


def draw_pair(frames: Sequence[int], frame_range: FrameRange, seed: int, k: int) -> tuple[int, int]:
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


def _partners(frames: Sequence[int], frame_range: FrameRange) -> tuple[np.ndarray, np.ndarray]:
    """For each frame, the later ones in range: the index of the first, and how many follow it without a break."""
    low, high = frame_range or (1, None)
    positions = np.asarray(frames, np.int64)
    first = np.searchsorted(positions, positions + max(low, 1))
    last = len(positions) if high is None else np.searchsorted(positions, positions + high)
    return first, np.maximum(last - first, 0)


def write_pairs(path: str | PathLike, pairs: Iterable[FramePair]) -> None:
    """A pair list as JSON, one pair a line: ``{"clip": .., "source": .., "target": ..}``."""
    lines = ",\n".join(json.dumps(pair._asdict(), ensure_ascii=False) for pair in pairs)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def read_pairs(path: str | PathLike) -> list[FramePair]:
    """A pair list as `write_pairs` writes it, or pixelSplat's evaluation index.

    The index is ``{clip: {"context": [a, b], "target": [c, ..]} | null}``; the first context frame is the source,
    and each target frame makes a pair with it. Raises UserError for anything else.
    """
    try:
        content = read_json(path)
        if isinstance(content, dict):
            pairs = [
                FramePair(clip, int(entry["context"][0]), int(target))
                for clip, entry in content.items()
                if entry is not None
                for target in entry["target"]
            ]
        else:
            pairs = [FramePair(str(row["clip"]), int(row["source"]), int(row["target"])) for row in content]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__} {one_line(error)}"
        raise UserError(
            f"{path}: not a pair list ({reason}); expected a JSON list of "
            '{"clip": name, "source": frame, "target": frame} or an evaluation_index of pixelSplat'
        ) from None
    if not pairs:
        raise UserError(f"{path}: the pair list is empty")
    return pairs
