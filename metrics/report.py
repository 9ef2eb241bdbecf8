"""What an evaluation says: a table to read, and the same as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from metrics.definitions import Result
from metrics.detectors import DetectorInfo

_COLUMNS = {"generated": "generated", "copy source": "copy_source", "warp": "warp", "true target": "target"}


@dataclass(frozen=True)
class Report:
    """All that is needed to read, and to repeat, a table of metrics.

    Attributes:
        results: one per metric. indices: the pairs, by number or seed, in order.
        size: width and height of the images in pixels.
        detectors: the networks that took part.
        range_selection: which frame gaps the pairs have, or "" where unknown.
        notes: other things to know.
    """

    results: Sequence[Result]
    indices: Sequence[int]
    size: tuple[int, int]
    detectors: Sequence[DetectorInfo]
    range_selection: str = ""
    notes: Sequence[str] = ()

    def to_text(self) -> str:
        """The table, and under it how it was made."""
        warped = any(result.warp is not None for result in self.results)
        shown = [title for title in _COLUMNS if warped or title != "warp"]
        lines = [("", *shown, "images")]
        for result in self.results:
            numbers = (getattr(result, _COLUMNS[title]) for title in shown)
            arrow = "↑" if result.higher_is_better else "↓"
            lines.append((f"{result.name} {arrow}", *map(_format_number, numbers), str(result.images)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        width, height = self.size
        facts = [
            f"images: {len(self.indices)} of {width}x{height} pixels",
            f"range: {self.range_selection or 'unknown'}",
            f"seeds: {format_indices(self.indices)}",
            *map(str, self.detectors),
            *(f"{result.name}: {result.note}" for result in self.results if result.note),
            *self.notes,
        ]
        return "\n".join([*table, "", *facts])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite, or not there, are None."""
        return {
            "metrics": {
                result.name: {
                    "generated": _finite(result.generated),
                    "copy_source": _finite(result.copy_source),
                    "warp": _finite(result.warp),
                    "true_target": _finite(result.target),
                    "images": result.images,
                    "higher_is_better": result.higher_is_better,
                    "note": result.note,
                    "per_image": {str(index): _finite(value) for index, value in result.per_image.items()},
                }
                for result in self.results
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


def _format_number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
