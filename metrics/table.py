"""What an evaluation says: a table to read, and the same as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from metrics.definitions import Number, Score
from metrics.detectors import DetectorInfo
from metrics.views import COPY_SOURCE, GENERATED, TARGET, WARP

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
    """

    scores: Sequence[Score]
    indices: Sequence[int]
    size: tuple[int, int]
    detectors: Sequence[DetectorInfo]
    range_selection: str = ""
    notes: Sequence[str] = ()

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
            *self.notes,
        ]
        return "\n".join([*table, "", *facts])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite, or not there, are None."""
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
        }


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
