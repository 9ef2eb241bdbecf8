"""What can be wrong with clips: every check that ``python -m datasets.doctor`` makes. Nothing is ever changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from datasets.clips import Positions, UnusableClip
from datasets.conventions import Fit, fit_of_poses
from datasets.layouts import Split, StoredClip, StoredClips
from datasets.pairs import count_pairs
from datasets.workers import in_processes
from dnnlib.util import UserError, parse_range_selection

_RANGES = ("mid", "long")
_FOCAL_RANGE = (0.2, 5.0)  # of the side of a frame; its field of view is then between 136 and 11 degrees
_CENTER_RANGE = (0.25, 0.75)  # of the side of a frame; the square around any other point is small
_PIXEL_ASPECT = 1.1  # pixels are square, up to this


class Finding(NamedTuple):
    """Something that is wrong: few words of which kind, and what exactly where."""

    kind: str
    where: str


@dataclass
class CheckedClip:
    """One clip: positions listed, frames present, the ranges it is long enough for."""

    name: str
    listed: int = 0
    frames: int = 0
    ranges: tuple[str, ...] = ()
    fingerprint: bytes = b""  # of cameras and timestamps; of a single frame, of its file
    off_center: float = 0.0  # how far principal points are from the middle, of the sides of the frame, at most
    findings: list[Finding] = field(default_factory=list)


@dataclass
class CheckedSplit:
    """One split. `off_center` is the largest of its clips.

    `fits` has a value for each clip whose poses were checked, None where its frames do not tell.
    """

    split: str
    layout: str
    clips: int
    usable: int = 0
    listed: int = 0
    frames: int = 0
    off_center: float = 0.0
    too_short: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_RANGES, 0))
    fits: dict[str, Fit | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def single(self) -> bool:
        """Whether these are photographs: no clip has a second frame."""
        return 0 < self.listed <= self.clips

    def kinds(self) -> Counter[str]:
        return Counter(finding.kind for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        fits = {name: fit and fit._asdict() for name, fit in self.fits.items()}
        return {**asdict(self), "fits": fits, "findings": [finding._asdict() for finding in self.findings]}


def check_splits(
    splits: Sequence[Split],
    frames: int | None = None,
    poses: int = 8,
    workers: int = 1,
    progress: Callable[..., Iterator] = lambda iterator, **_: iterator,
) -> list[CheckedSplit]:
    """Check splits, each and against each other.

    Args:
        frames: most frames of a clip to decode; None: all.
        poses: clips of a split whose poses are compared with their frames.
        workers: processes.
        progress: wraps an iterator, as tqdm does.
    """
    found: list[CheckedSplit] = []
    seen: dict[Any, Any] = {}
    for split in splits:
        clips = split.open()
        checked = CheckedSplit(split.name, split.layout.name, len(clips.names))
        checked.findings += [Finding(*finding) for finding in clips.audit()]
        numbers = range(len(clips.names))
        every = in_processes(partial(check_clip, clips, frames), numbers, workers)
        for clip in progress(every, total=len(numbers), desc=split.name):
            _add(checked, clip, seen)
        sample = np.linspace(0, len(numbers) - 1, min(poses, len(numbers))).round().astype(int).tolist()
        fits = in_processes(partial(_fit, clips, split.layout.poses), sample, workers)
        for number, fit in zip(sample, progress(fits, total=len(sample), desc=f"{split.name} poses"), strict=True):
            checked.fits[clips.names[number]] = fit
            checked.findings += _fit_findings(clips.names[number], fit, split.layout.poses)
        found.append(checked)
    return found


def check_clip(clips: StoredClips, max_frames: int | None, number: int) -> CheckedClip:
    """All about one clip that can be seen without the others; at most `max_frames` frames of it are decoded."""
    checked = CheckedClip(clips.names[number])
    try:
        clip = clips.open(number)
        checked.listed, checked.frames = len(clip.cameras), len(clip.frames)
    except UnusableClip as error:
        checked.findings.append(Finding(error.reason, error.detail))
        return checked
    checked.ranges = tuple(name for name in _RANGES if count_pairs(clip.frames, parse_range_selection(name)))
    if checked.listed > 1:
        table = clip.cameras.numpy().tobytes() + np.asarray(clip.timestamps, np.int64).tobytes()
    else:  # photographs all have the same camera
        table = b"".join(clip.read(position) for position in clip.frames)
    checked.off_center = float((clip.cameras[:, 2:4] - 0.5).abs().max())
    checked.fingerprint = table and hashlib.sha256(table).digest()
    found = (*_table_findings(clip), *_frame_findings(clip, max_frames))
    checked.findings = [Finding(kind, f"{checked.name}: {what}") for kind, what in found]
    return checked


def _table_findings(clip: StoredClip) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with cameras and timestamps: (kind, what)."""
    missing = sorted({*range(len(clip.cameras))}.difference(map(int, clip.frames)))
    if missing:
        yield "missing frames", f"{len(missing)} of {len(clip.cameras)}, the first at position {missing[0]}"
    steps = np.diff(np.asarray(clip.timestamps, np.int64))
    if len(repeated := np.flatnonzero(steps == 0)):
        yield "duplicate timestamps", f"{len(repeated)}, the first at position {repeated[0] + 1}"
    if len(backward := np.flatnonzero(steps < 0)):
        yield "frames out of order", f"time runs backwards {len(backward)} times, first at position {backward[0] + 1}"
    focal, center = clip.cameras[:, :2].numpy(), clip.cameras[:, 2:4].numpy()
    low, high = _FOCAL_RANGE
    if ((focal < low) | (focal > high)).any():
        yield "absurd intrinsics", f"focal length from {focal.min():.3g} to {focal.max():.3g} sides of the frame"
    if ((center < _CENTER_RANGE[0]) | (center > _CENTER_RANGE[1])).any():
        where = "outside the frame" if ((center < 0) | (center > 1)).any() else "far from the middle of the frame"
        yield "absurd intrinsics", f"the principal point is {where}"


def _frame_findings(clip: StoredClip, max_frames: int | None) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the images: (kind, what)."""
    broken, twins = [], []
    sizes: Counter[tuple[int, int]] = Counter()
    seen: dict[Any, Any] = {}
    for position in _spread(clip.frames, max_frames):
        try:
            data = clip.read(position)
            camera = clip.view(position).camera
        except (UserError, OSError) as error:
            broken.append(str(error))
            continue
        sizes[camera.width, camera.height] += 1
        first = seen.setdefault(hashlib.sha256(data).digest(), position)
        if first != position:
            twins.append((first, position))
    if broken:
        yield "unreadable frames", f"{len(broken)}, such as {broken[0]}"
    if twins:
        yield "duplicate frames", f"{len(twins)}, such as positions {twins[0][0]} and {twins[0][1]}"
    if len(sizes) > 1:
        yield "frames of several sizes", ", ".join(f"{n} of {w}x{h}" for (w, h), n in sizes.most_common())
    elif sizes:
        ((width, height),) = sizes
        aspect = float((clip.cameras[:, 0] * width / (clip.cameras[:, 1] * height)).median())
        if not 1 / _PIXEL_ASPECT < aspect < _PIXEL_ASPECT:
            yield (
                "intrinsics of another frame shape",
                f"pixels would be {1 / aspect:.2f} as wide as high in {width}x{height}",
            )


def _spread(frames: Positions, count: int | None) -> list[int]:
    """At most `count` of the frames, first and last among them."""
    if count is None or count >= len(frames):
        return [int(frame) for frame in frames]
    return [int(frames[i]) for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def _add(checked: CheckedSplit, clip: CheckedClip, seen: dict[bytes | str, str]) -> None:
    """Take a clip into its split; `seen` are names and fingerprints, and which clip had them first."""
    checked.findings += clip.findings
    checked.listed += clip.listed
    checked.frames += clip.frames
    checked.usable += clip.frames > 1
    checked.off_center = max(checked.off_center, clip.off_center)
    for name in set(_RANGES) - set(clip.ranges):
        checked.too_short[name] += clip.frames > 1
    place = f"{checked.split}/{clip.name}"
    twins = {seen.setdefault(key, place) for key in (clip.name, clip.fingerprint) if key} - {place}
    checked.findings += [Finding("duplicate clip", f"{place} is {twin}") for twin in sorted(twins)]


def _fit(clips: StoredClips, declared: str, number: int) -> Fit | None:
    try:
        return fit_of_poses(clips.open(number), declared)
    except UserError:  # told by check_clip
        return None


def _fit_findings(name: str, fit: Fit | None, declared: str) -> Iterator[Finding]:
    if fit is None:
        return
    numbers = f"{fit.best_px:.2g} px against {fit.declared_px:.2g} px"
    if fit.hopeless:
        yield Finding("poses do not fit the frames", f"{name}: matches are {fit.best_px:.2g} px off at best")
    elif fit.misread:
        yield Finding("wrong camera convention", f"{name}: not {declared}, but {fit.best} ({numbers})")
