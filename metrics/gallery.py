"""Pictures of an evaluation: worst, median and best samples of each metric, and each metric against the frame gap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dnnlib import UserError
from dnnlib.imaging import contact_sheet
from dnnlib.util import atomic_path
from metrics.compare import Comparison, Key, named_key
from metrics.definitions import TSED, Score
from metrics.saved import SavedViews

if TYPE_CHECKING:
    from PIL import Image

_PLACES = ("worst", "median", "best")
_SHOWN = {"src": "source", "sample": "sample", "tgt": "target"}
_GROUP_SIZE, _MOST_GROUPS = 8, 12  # images in a group for the mean at a gap, as long as there are not too many groups


def extremes(score: Score, count: int = 1) -> dict[str, list[int]]:
    """Indices of the `count` worst, most ordinary and best images, each from worse to better. An image comes once."""
    ranked = sorted(score.per_image, key=lambda index: (score.per_image[index], index))
    if not score.per_image_higher_is_better:
        ranked.reverse()
    count = min(count, max(len(ranked) // len(_PLACES), 1))
    middle = (len(ranked) - count) // 2
    chosen = ranked[:count], ranked[middle : middle + count], ranked[len(ranked) - count :]
    return dict(zip(_PLACES, chosen, strict=True))


def samples_sheet(saved: SavedViews, measured: Sequence[Score], count: int = 1) -> Image.Image:
    """Source, sample and target, as far as they are there, of the extremes of every metric.

    They are labelled with metric, number, seed or name, and gap.
    """
    there = next(iter(saved.files.values()))
    shown = {role: title for role, title in _SHOWN.items() if role in there}
    rows, labels = [], []
    for score in measured:
        for place, indices in extremes(score, count).items():
            for index in indices:
                rows.append([saved.archive.image(saved.files[index][role]) for role in shown])
                name = saved.names.get(index, f"seed {index}")
                gap = f" · gap {saved.records[index].gap}" if index in saved.records else ""
                labels.append(
                    f"{place} {score.name}\n{score.per_image_name}: {score.per_image[index]:.4g}\n{name}{gap}"
                )
    return contact_sheet(rows, list(shown.values()), labels)


def save_gap_plot(path: Path, measured: Sequence[Score], gaps: Mapping[int, int]) -> None:
    """A PNG file: for every metric, each image's number over the distance of its frames, and means of groups of gaps.

    Numbers that are not finite are left out. Raises UserError where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("the plot against the gap needs a package: pip install matplotlib") from None
    figure = Figure(figsize=(4.5 * len(measured), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, score in zip(np.atleast_1d(figure.subplots(1, len(measured))), measured, strict=True):
        indices = [index for index, value in score.per_image.items() if index in gaps and np.isfinite(value)]
        left_out = len(score.per_image) - len(indices)
        x = np.array([gaps[index] for index in indices], dtype=float)
        y = np.array([score.per_image[index] for index in indices])
        axes.plot(x, y, ".", color="0.75", label="an image")
        axes.plot(*group_means(x, y), "o-", color="tab:blue", label="mean")
        axes.set_title(
            f"{score.per_image_name} ({'higher' if score.per_image_higher_is_better else 'lower'} is better)"
        )
        axes.set_xlabel("frame gap" + (f" ({left_out} images have no finite number)" if left_out else ""))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def group_means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of x and of y, float64 [G] each, over groups of neighbouring x: images of one x are in one group."""
    groups = max(min(len(x) // _GROUP_SIZE, _MOST_GROUPS), 1)
    edges = np.quantile(x, np.linspace(0, 1, groups + 1)[1:-1]) if len(x) else []
    group = np.searchsorted(edges, x, side="right")
    mean_x, mean_y = (np.array([values[group == g].mean() for g in np.unique(group)]) for values in (x, y))
    return mean_x, mean_y


def compared_sheet(first: SavedViews, second: SavedViews, comparison: Comparison) -> Image.Image:
    """Source, both samples and target of the pairs that differ most, each once, from the best of B to the best of A.

    Beside each stand its numbers in A and in B; ordered by the first metric.
    """
    by_key = [{saved.key(seed): seed for seed in saved.files} for saved in (first, second)]
    columns = {"source": (0, "src"), "A": (0, "sample"), "B": (1, "sample"), "target": (0, "tgt")}
    there = next(iter(first.files.values()))
    shown = {title: column for title, column in columns.items() if column[1] in there}
    most = {row.key: None for found in comparison.differences for row in (*found.second_better, *found.first_better)}
    runs = comparison.first.numbers, comparison.second.numbers

    def gain(key: Key) -> float:
        found = comparison.differences[0]
        before, after = (numbers[found.name].get(key, math.nan) for numbers in runs)
        difference = after - before if found.higher_is_better else before - after
        return 0.0 if math.isnan(difference) else difference

    rows, labels = [], []
    for key in sorted(most, key=gain, reverse=True):
        files = [saved.files[of[key]] for saved, of in zip((first, second), by_key, strict=True)]
        rows.append([(first, second)[run].archive.image(files[run][role]) for run, role in shown.values()])
        names = [found.name for found in comparison.differences if all(key in of[found.name] for of in runs)]
        numbers = [
            f"{name}: A {_brief(name, runs[0][name][key])}, B {_brief(name, runs[1][name][key])}" for name in names
        ]
        labels.append("\n".join([named_key(key).replace("→", " to "), *numbers]))  # the font has no arrow
    return contact_sheet(rows, list(shown), labels)


def _brief(name: str, value: float) -> str:
    if name == TSED:
        return f"{value:.2f} px" if math.isfinite(value) else "too few matches"
    return f"{value:.4g}"
