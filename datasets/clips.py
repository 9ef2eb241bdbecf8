"""Clips, whatever they are stored in, and the data set of pairs that is drawn from them.

A storage format is a `Clips`: names, and a way to open one clip. All that is common - which clips can be used, which
two frames are pair k, crop and resize - is `ClipPairs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Protocol

import numpy as np
import torch
from einops import rearrange

from datasets.pairs import FramePair, FrameRange, PairDataset, count_pairs, draw_pair, visit
from dnnlib.util import UserError, parse_range_selection
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View

Positions = Sequence[int] | np.ndarray


class Clip(Protocol):
    """One walk of a camera through a scene.

    Attributes:
        cameras: float64 [N, 18], the numbers of RealEstate10K, for every position of the clip.
        frames: the positions, ascending, whose image is there.
    """

    @property
    def cameras(self) -> torch.Tensor: ...

    @property
    def frames(self) -> Positions: ...

    def view(self, position: int) -> View:
        """The frame at a position, with its camera, as it is stored. Raises UserError where it cannot be read."""


class Clips(Protocol):
    """Clips in the order in which they are best opened.

    Attributes:
        names: one for each clip, all different.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def open(self, number: int) -> Clip:
        """Clip `names[number]`. Raises UnusableClip."""


class UnusableClip(UserError):
    """A clip that cannot be used.

    Attributes:
        reason: few words, the same for all clips that suffer from the same, to count them by.
        detail: which clip or file, and what is wrong with it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class ClipPairs(PairDataset):
    """Pairs of frames of clips. Every clip that can be used is visited once an epoch.

    Args:
        clips: where the frames come from.
        range_selection: distance of the two frames in the clip file: "mid", "long", "A-B" or (A, B) for
            A <= |i - j| < B; None for any two frames.
        resolution: side of the views in pixels; None leaves frames as they are stored.
        seed: not negative; another seed, other pairs.
        pairs: the pairs to use, in this order, instead of drawing them; those that are not there are skipped.

    Attributes:
        names: the clips that can be used, sorted.

    Raises UserError where nothing can be used, or none of the listed pairs exists.
    """

    def __init__(
        self,
        clips: Clips,
        range_selection: str | FrameRange = None,
        resolution: int | None = 64,
        *,
        seed: int = 0,
        pairs: Sequence[FramePair] | None = None,
    ) -> None:
        if pairs is not None and range_selection is not None:
            raise UserError("a pair list says which frames to use: leave the range out")
        super().__init__()
        self.frame_range = (
            parse_range_selection(range_selection) if isinstance(range_selection, str) else range_selection
        )
        self.resolution, self.seed, self._clips = resolution, seed, clips
        usable = dict(sorted(self._scan(), key=lambda item: item[0]))
        if not usable:
            raise UserError(
                f"none of {len(clips.names)} clips can be used: {self._skip_reasons()}; try another range or data"
            )
        self.names = list(usable)
        self._numbers, self._frames = zip(*usable.values(), strict=True)
        self._index = {name: index for index, name in enumerate(self.names)}
        self._pairs = None if pairs is None else self._present(pairs)

    def __len__(self) -> int:
        """Clips that can be used; with a pair list, pairs."""
        return len(self.names if self._pairs is None else self._pairs)

    def __getitem__(self, k: int) -> Pair:
        chosen = self.choose(k)
        clip = self._clips.open(self._numbers[self._index[chosen.clip]])
        pair = Pair(clip.view(chosen.source), clip.view(chosen.target), *chosen)
        return pair if self.resolution is None else pair.square(self.resolution)

    def frames(self, name: str) -> Sequence[int]:
        """The positions, ascending, of the frames of a clip that are there."""
        return self._frames[self._index[name]]

    def with_pairs(self, pairs: Sequence[FramePair]) -> ClipPairs:
        """The same clips, with these pairs instead of drawn ones. Raises UserError where none of them exists."""
        listed = copy(self)
        listed.skipped, listed._examples = self.skipped.copy(), dict(self._examples)
        listed.frame_range, listed._pairs = None, listed._present(pairs)
        return listed

    def choose(self, k: int) -> FramePair:
        """Which frames make pair k; nothing is read."""
        if self._pairs is not None:
            return self._pairs[k % len(self._pairs)]
        index = visit(len(self.names), self.seed, k)
        return FramePair(self.names[index], *draw_pair(self._frames[index], self.frame_range, self.seed, k))

    def summary(self) -> str:
        what = f"{len(self.names)} clips" + (", gap {}-{}".format(*self.frame_range) if self.frame_range else "")
        if self._pairs is not None:
            what += f", {len(self._pairs)} listed pairs"
        return self._with_skipped(what)

    def _scan(self) -> Iterator[tuple[str, tuple[int, Positions]]]:
        """(name, (number, frames)) of the clips that can be used; the others are counted."""
        for number, name in enumerate(self._clips.names):
            try:
                frames = self._clips.open(number).frames
                if not count_pairs(frames, self.frame_range):
                    raise UnusableClip(self._too_short(), f"{name}: {len(frames)} frames")
                yield name, (number, _compact(frames))
            except UnusableClip as error:
                self._skip(error.reason, error.detail)

    def _too_short(self) -> str:
        return "too short for gap {}-{}".format(*self.frame_range) if self.frame_range else "fewer than 2 frames"

    def _present(self, pairs: Sequence[FramePair]) -> list[FramePair]:
        """The pairs that are there; the others are counted."""
        present = []
        for clip, source, target in pairs:
            if clip not in self._index:
                self._skip("listed pairs of clips that are not here", f"clip {clip}")
            elif source not in (frames := self.frames(clip)) or target not in frames:
                there = f"it has {len(frames)} frames from {frames[0]} to {frames[-1]}"
                example = f"{clip}: frames {source} and {target}, {there}"
                self._skip("listed pairs of frames that are not here", example)
            else:
                present.append(FramePair(clip, source, target))
        if not present:
            raise UserError(
                f"none of the {len(pairs)} listed pairs is in the {len(self.names)} clips that can be used: "
                f"{self._skip_reasons()}; give the data that the list is of"
            )
        return present


def view_from_row(
    image: np.ndarray, row: torch.Tensor | np.ndarray, depth: torch.Tensor | None = None, frame_side: int = 0
) -> View:
    """The view of a uint8 image [H, W, 3], the 18 numbers of its camera, and its depth [H, W].

    Built directly, in numpy: that it is a proper camera was checked for the whole clip, when that was opened.
    """
    height, width = image.shape[:2]
    row = np.asarray(row)
    fx, fy, cx, cy = row[:4] * (width, height, width, height)
    intrinsics = torch.from_numpy(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    extrinsics = torch.from_numpy(row[6:].reshape(3, 4))
    return View(
        rearrange(torch.from_numpy(image), "h w c -> c h w"),
        Camera(intrinsics, extrinsics, width, height, frame_side),
        depth,
    )


def _compact(frames: Positions) -> Positions:
    """The same ascending positions; a gapless run, as nearly all clips have, takes no memory."""
    run = range(frames[0], frames[-1] + 1)
    return run if len(run) == len(frames) else np.asarray(frames)
