"""Two runs over one list of pairs: paired differences, how sure they are, and which pairs differ most."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np

from datasets.pairs import FramePair
from dnnlib import UserError
from dnnlib.text_files import parse_json, read_text
from metrics.definitions import IMAGE_METRICS, TSED, consistent
from metrics.table import Table

Key = FramePair | int  # a seed, where clip and frames are not known
PerPair = Mapping[str, Mapping[Key, float]]  # numbers by metric, then by pair

_RESAMPLES = 9999


@dataclass(frozen=True)
class Difference:
    """One metric of two runs over the pairs that both have.

    Attributes:
        first, second: means over these pairs; difference: second - first, and its standard error.
        interval: of 95 %, from a bootstrap of the pairs (BCa); None for fewer than two pairs, or where all agree.
        pairs: how many. most: those that differ most, first those that the second run makes better.
    """

    name: str
    higher_is_better: bool
    first: float
    second: float
    difference: float
    standard_error: float
    interval: tuple[float, float] | None
    pairs: int
    most: Sequence[tuple[Key, float]]

    @property
    def verdict(self) -> str:
        """Return which run is better, if the interval is on one side of 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "no clear difference"
        return "B is better" if (self.difference > 0) == self.higher_is_better else "A is better"


def compare(first: PerPair, second: PerPair, most: int = 3) -> list[Difference]:
    """The metrics that both have, over the pairs that have a finite number in both. `most`: how many to name each way.

    TSED compares which pairs are consistent, 1 or 0. Raises UserError where the two have nothing in common.
    """
    names = [name for name in first if name in second and name in IMAGE_METRICS]
    if not names:
        raise UserError("the two have no metric of single pairs in common")
    return [_difference(name, first[name], second[name], most) for name in names]


def _difference(name: str, first: Mapping[Key, float], second: Mapping[Key, float], most: int) -> Difference:
    if name == TSED:
        first, second = ({key: float(consistent(value)) for key, value in of.items()} for of in (first, second))
    keys = [key for key, value in first.items() if math.isfinite(value) and math.isfinite(second.get(key, math.nan))]
    if not keys:
        raise UserError(f"{name}: the two have no pair in common; compare runs over one list of `pairs`")
    a, b = (np.array([of[key] for key in keys]) for of in (first, second))
    difference = b - a
    higher = IMAGE_METRICS[name].higher_is_better
    order = np.argsort(-difference if higher else difference, kind="stable")
    chosen = dict.fromkeys([*order[:most].tolist(), *order[-most:].tolist()])
    error = float(difference.std(ddof=1) / math.sqrt(len(keys))) if len(keys) > 1 else math.nan
    ends = [(keys[index], float(difference[index])) for index in chosen]
    means = float(a.mean()), float(b.mean()), float(difference.mean())
    return Difference(name, higher, *means, error, bootstrap_interval(difference), len(keys), ends)


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Ends of the 95 % BCa interval of a mean; None where there are fewer than two values, or all are equal."""
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0:
        return None
    resamples: dict[str, Any] = {"n_resamples": _RESAMPLES, "batch": 256, "rng": np.random.default_rng(0)}
    found = bootstrap((values,), np.mean, vectorized=True, **resamples).confidence_interval
    return float(found.low), float(found.high)


def per_pair(table: Table) -> dict[str, dict[Key, float]]:
    """The numbers of single pairs in a table."""
    return {
        score.name: {table.pairs.get(index, index): value for index, value in score.per_image.items()}
        for score in table.scores
        if score.per_image
    }


def read_per_pair(path: str | PathLike[str]) -> dict[str, dict[Key, float]]:
    """Numbers of single pairs from what `Table.write_pairs` wrote, or from a table as JSON.

    Raises UserError for anything else.
    """
    try:
        rows = _table_rows(read_text(path), path)
        found: dict[str, dict[Key, float]] = {}
        for row in rows:
            key = FramePair(row["clip"], int(row["source"]), int(row["target"])) if "clip" in row else int(row["seed"])
            for name in IMAGE_METRICS.keys() & row.keys():
                found.setdefault(name, {})[key] = math.inf if row[name] is None else float(row[name])
    except (KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise UserError(f"{path}: neither a list of pairs with their numbers nor a table as JSON ({error!r})") from None
    if not found:
        raise UserError(f"{path} holds pairs but no numbers of them: write it with calculate_metrics.py")
    return {name: found[name] for name in IMAGE_METRICS if name in found}


def _table_rows(text: str, path: str | PathLike[str]) -> list[Mapping[str, Any]]:
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if lines and all(line[0] == "{" and line[-1] == "}" for line in lines):
        rows = [parse_json(line, path) for line in lines]
        if len(rows) > 1 or "metrics" not in rows[0]:
            return rows
    content = parse_json(text, path)
    pairs = {row["seed"]: row for row in content["pairs"]}
    by_seed: dict[int, dict[str, Any]] = {}
    for name, metric in content["metrics"].items():
        for seed, value in metric["per_image"].items():
            by_seed.setdefault(int(seed), {"seed": int(seed), **pairs.get(int(seed), {})})[name] = value
    return list(by_seed.values())


def to_text(differences: Sequence[Difference]) -> str:
    """A table to read."""
    lines = [("", "A", "B", "B - A", "95 % interval", "pairs", "")]
    for found in differences:
        arrow = "↑" if found.higher_is_better else "↓"
        ends = "–" if found.interval is None else "{:+.4f} to {:+.4f}".format(*found.interval)
        means = f"{found.first:.4f}", f"{found.second:.4f}", f"{found.difference:+.4f} ± {found.standard_error:.4f}"
        lines.append((f"{found.name} {arrow}", *means, ends, str(found.pairs), found.verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    for found in differences:
        named = ", ".join(f"{_named(key)} {value:+.4g}" for key, value in found.most)
        table.append(f"{found.name}, pairs that differ most: {named}")
    return "\n".join(table)


def to_json(differences: Sequence[Difference]) -> str:
    """The same for programs."""
    rows = [{**asdict(found), "verdict": found.verdict, "most": list(map(_plain, found.most))} for found in differences]
    return json.dumps([{k: None if v != v else v for k, v in row.items()} for row in rows], indent=1, allow_nan=False)


def _plain(most: tuple[Key, float]) -> dict[str, Any]:
    key, value = most
    return {**({"seed": key} if isinstance(key, int) else key._asdict()), "difference": value}


def _named(key: Key) -> str:
    return f"seed {key}" if isinstance(key, int) else f"{key.clip} {key.source}→{key.target}"
