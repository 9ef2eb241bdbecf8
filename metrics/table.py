"""What an evaluation says: a table to read, and the same as plain data."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from datasets.pairs import FramePair, write_pair_lines
from dnnlib import UserError
from metrics.definitions import IMAGE_METRICS, Number, Score
from metrics.detectors import DetectorInfo
from metrics.views import COPY_SOURCE, GENERATED, TARGET, WARP

_REPORTED_PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "kornia", "Pillow")
_COLUMNS = {"generated": GENERATED, "copy source": COPY_SOURCE, "warp": WARP, "true target": TARGET}


@dataclass(frozen=True)
class Table:
    """All that is needed to read, and to repeat, a table of metrics.

    Attributes:
        scores: one per metric. indices: the pairs, by number or seed, in order.
        size: width and height of the images in pixels.
        detectors: the networks that took part.
        range_selection: which frame gaps the pairs have, or "" where unknown.
        notes: other things to know.
        pairs: clip and frames of each pair, by index, where known. names: of the images otherwise, where they have any.
        groups: of pairs that have a mean of their own, by index.
        run: all else that it takes to repeat the numbers: networks with their hashes, guidance, solver, data, versions.
    """

    scores: Sequence[Score]
    indices: Sequence[int]
    size: tuple[int, int]
    detectors: Sequence[DetectorInfo]
    range_selection: str = ""
    notes: Sequence[str] = ()
    pairs: Mapping[int, FramePair] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    def group_means(self) -> dict[str, dict[str, Number]]:
        """The summaries of each group's pairs: by metric, then by group."""
        found: dict[str, dict[str, Number]] = {}
        for score in self.scores:
            for group in dict.fromkeys(self.groups.values()):
                values = [value for index, value in score.per_image.items() if self.groups.get(index) == group]
                if values:
                    summary = IMAGE_METRICS[score.name].summary(np.array(values))
                    found.setdefault(score.name, {})[group] = summary.number
        return found

    def to_text(self) -> str:
        """The table, and under it how it was made. Behind ± stands the standard error."""
        warped = any(WARP in score.numbers for score in self.scores)
        shown = [title for title in _COLUMNS if warped or title != "warp"]
        lines = [("", *shown, "images")]
        for score in self.scores:
            numbers = (score.numbers.get(_COLUMNS[title]) for title in shown)
            arrow = "↑" if score.higher_is_better else "↓"
            lines.append((f"{score.name} {arrow}", *map(_format_number, numbers), str(score.images)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        width, height = self.size
        facts = [
            f"images: {len(self.indices)} of {width}x{height} pixels",
            f"range: {self.range_selection or 'unknown'}",
            f"seeds: {format_indices(self.indices)}",
            *map(str, self.detectors),
            *(f"{score.name}: {score.note}" for score in self.scores if score.note),
            *(_intervals(score) for score in self.scores if any(n.interval for n in score.numbers.values())),
            *(
                f"{name}: " + ", ".join(f"{group} {_format_number(number)}" for group, number in groups.items())
                for name, groups in self.group_means().items()
            ),
            *self.notes,
        ]
        return "\n".join([*table, "", *facts])

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: numbers that are not finite, or not there, are None."""
        return {
            "metrics": {
                score.name: {
                    **{title.replace(" ", "_"): _finite(score.value(role)) for title, role in _COLUMNS.items()},
                    "standard_error": {role: _finite(n.standard_error) for role, n in score.numbers.items()},
                    "interval_95": {role: n.interval for role, n in score.numbers.items() if n.interval},
                    "images": score.images,
                    "higher_is_better": score.higher_is_better,
                    "note": score.note,
                    "per_image": {str(index): _finite(value) for index, value in score.per_image.items()},
                }
                for score in self.scores
            },
            "images": len(self.indices),
            "size": list(self.size),
            "seeds": format_indices(self.indices),
            "range_selection": self.range_selection,
            "detectors": [detector.to_dict() for detector in self.detectors],
            "notes": list(self.notes),
            "groups": {
                name: {group: _finite(number.value) for group, number in groups.items()}
                for name, groups in self.group_means().items()
            },
            "pairs": [
                *({"seed": index, **pair._asdict()} for index, pair in sorted(self.pairs.items())),
                *({"seed": index, "name": name} for index, name in sorted(self.names.items())),
            ],
            "run": {"versions": versions(), **self.run},
        }

    def write_pairs(self, path: str | os.PathLike[str]) -> None:
        """The pairs and their numbers as JSON lines: a pair list, and a table for pandas. UserError where unknown."""
        if not self.pairs:
            raise UserError("which pairs these images show is not known: there is no run.json to tell it")
        shown = {index: self.pairs[index] for index in self.indices if index in self.pairs}
        write_pair_lines(path, shown, {score.name: score.per_image for score in self.scores if score.per_image})


def versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    found = {"python": platform.python_version()}
    for name in _REPORTED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # optional
            continue
    return found


def format_indices(indices: Iterable[int]) -> str:
    """``[0, 1, 2, 7]`` to ``"0-2,7"``."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _format_number(number: Number | None) -> str:
    """``23.41 ± 0.12``, the second being the standard error; – where there is none."""
    if number is None or math.isnan(number.value):
        return "–"
    digits = 2 if abs(number.value) >= 10 else 4
    error = "" if number.standard_error is None else f" ± {number.standard_error:.{digits}f}"
    return f"{number.value:.{digits}f}{error}"


def _intervals(score: Score) -> str:
    """``fid: 95 % bootstrap interval 10.2 to 11.9 (generated)``"""
    found = [
        f"{number.interval[0]:.4g} to {number.interval[1]:.4g} ({role.replace('_', ' ')})"
        for role, number in score.numbers.items()
        if number.interval
    ]
    return f"{score.name}: 95 % bootstrap interval {', '.join(found)}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
