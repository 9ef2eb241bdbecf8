"""Two runs over one list of pairs: paired differences, how sure they are, and which pairs differ most."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from datasets.pairs import FramePair
from dnnlib import UserError
from dnnlib.text_files import parse_json, read_text
from metrics.definitions import IMAGE_METRICS, TSED, consistent
from metrics.table import Table

Key = FramePair | str | int  # the name of an image, or a seed, where clip and frames are not known
PerPair = Mapping[str, Mapping[Key, float]]  # numbers by metric, then by pair

_RESAMPLES = 9999
_OF_PAIRS = ("pairs", "range_selection", "protocol")  # settings that choose pairs, which are compared one by one anyway


@dataclass(frozen=True)
class Judged:
    """One of the two.

    Attributes:
        name: its folder or file. numbers: of its pairs. settings: how its images were made, as far as that is known.
    """

    name: str
    numbers: PerPair
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> set[Key]:
        return {key for of_pairs in self.numbers.values() for key in of_pairs}


class PairDifference(NamedTuple):
    """The numbers of one pair in both runs."""

    key: Key
    first: float
    second: float


@dataclass(frozen=True)
class Difference:
    """One metric of two runs over the pairs that both have.

    Attributes:
        first, second: means over these pairs; difference: second - first, and its standard error, NaN of one pair.
        interval: of 95 %, from a bootstrap of the pairs (BCa); None for fewer than two pairs, or where all agree.
        pairs: how many.
        second_better, first_better: the pairs that speak most for either run, the most telling first.
        note: what to know when reading it, or "".
    """

    name: str
    higher_is_better: bool
    first: float
    second: float
    difference: float
    standard_error: float
    interval: tuple[float, float] | None
    pairs: int
    second_better: Sequence[PairDifference]
    first_better: Sequence[PairDifference]
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return which run is better, if the interval is on one side of 0."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "no clear difference"
        return "B is better" if (self.difference > 0) == self.higher_is_better else "A is better"


@dataclass(frozen=True)
class Comparison:
    """What two runs, A and B, have in common and where they differ.

    Attributes:
        changed: settings that differ, of A and of B. common: pairs that both have; alone: those in A and in B alone.
    """

    first: Judged
    second: Judged
    differences: Sequence[Difference]
    changed: Mapping[str, tuple[Any, Any]]
    common: int
    alone: tuple[int, int]


def compare(first: Judged, second: Judged, most: int = 3) -> Comparison:
    """The metrics that both have, over the pairs that have a finite number in both. `most`: how many to name each way.

    TSED compares which pairs are consistent, 1 or 0. Raises UserError where the two have nothing in common.
    """
    names = [name for name in first.numbers if name in second.numbers and name in IMAGE_METRICS]
    if not names:
        raise UserError("the two have no metric of single pairs in common")
    both = first.pairs & second.pairs
    return Comparison(
        first,
        second,
        [_difference(name, first.numbers[name], second.numbers[name], most) for name in names],
        dict(_changed(first.settings, second.settings)),
        len(both),
        (len(first.pairs - both), len(second.pairs - both)),
    )


def _difference(name: str, first: Mapping[Key, float], second: Mapping[Key, float], most: int) -> Difference:
    both = [key for key in first if key in second]
    if not both:
        raise UserError(f"{name}: the two have no pair in common; compare runs over one list of `pairs`")
    note = ""
    if name == TSED:
        untold = [sum(math.isinf(of[key]) for key in both) for of in (first, second)]
        note = "too few matches to tell: {} in A, {} in B".format(*untold) if any(untold) else ""
        first, second = ({key: float(consistent(value)) for key, value in of.items()} for of in (first, second))
    rows = [PairDifference(key, first[key], second[key]) for key in both]
    finite = [row for row in rows if math.isfinite(row.first) and math.isfinite(row.second)]
    if not finite:
        raise UserError(f"{name}: no pair has a finite number in both")
    if len(finite) < len(rows):
        note = f"{len(rows) - len(finite)} of {len(rows)} pairs equal their target in one of them, and are left out"
    a, b = (np.array(column) for column in zip(*(row[1:] for row in finite), strict=True))
    difference = b - a
    higher = IMAGE_METRICS[name].higher_is_better
    gain = difference if higher else -difference
    order = np.argsort(-gain, kind="stable").tolist()
    error = float(difference.std(ddof=1) / math.sqrt(len(finite))) if len(finite) > 1 else math.nan
    means = float(a.mean()), float(b.mean()), float(difference.mean())
    ends = (
        [finite[index] for index in order[:most] if gain[index] > 0],
        [finite[index] for index in order[::-1][:most] if gain[index] < 0],
    )
    return Difference(name, higher, *means, error, bootstrap_interval(difference), len(finite), *ends, note)


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Settings that both tell, and that differ."""
    for name in first:
        if name in second and first[name] != second[name] and name not in _OF_PAIRS:
            yield name, (first[name], second[name])


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Ends of the 95 % BCa interval of a mean; None where there are fewer than two values, or all are equal."""
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0:
        return None
    resamples: dict[str, Any] = {"n_resamples": _RESAMPLES, "batch": 256, "rng": np.random.default_rng(0)}
    found = bootstrap((values,), np.mean, vectorized=True, **resamples).confidence_interval
    return float(found.low), float(found.high)


def judged_table(name: str, table: Table) -> Judged:
    """A table as one of the two."""
    keys: Mapping[int, Key] = {**table.names, **table.pairs}
    numbers = {
        score.name: {keys.get(index, index): value for index, value in score.per_image.items()}
        for score in table.scores
        if score.per_image
    }
    return Judged(name, numbers, _settings(table.run))


def read_judged(path: str | PathLike[str]) -> Judged:
    """One of the two from what `Table.write_pairs` wrote, or from a table as JSON.

    Raises UserError for anything else.
    """
    try:
        rows, run = _table_rows(read_text(path), path)
        found: dict[str, dict[Key, float]] = {}
        for row in rows:
            key = _key(row)
            for name in IMAGE_METRICS.keys() & row.keys():
                found.setdefault(name, {})[key] = math.inf if row[name] is None else float(row[name])
        settings = _settings(run)
    except FileNotFoundError:
        raise UserError(f"there is no folder or file {path}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: neither a list of pairs with their numbers nor a table as JSON ({error!r})") from None
    if not found:
        raise UserError(f"{path} holds pairs but no numbers of them: write it with calculate_metrics.py")
    return Judged(str(path), {name: found[name] for name in IMAGE_METRICS if name in found}, settings)


def _key(row: Mapping[str, Any]) -> Key:
    if "clip" in row:
        return FramePair(row["clip"], int(row["source"]), int(row["target"]))
    return str(row["name"]) if "name" in row else int(row["seed"])


def _table_rows(text: str, path: str | PathLike[str]) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Rows of pairs, and what is known of the run."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if lines and all(line[0] == "{" and line[-1] == "}" for line in lines):
        rows = [parse_json(line, path) for line in lines]
        if len(rows) > 1 or "metrics" not in rows[0]:
            return rows, {}
    content = parse_json(text, path)
    pairs = {row["seed"]: row for row in content["pairs"]}
    by_seed: dict[int, dict[str, Any]] = {}
    for name, metric in content["metrics"].items():
        for seed, value in metric["per_image"].items():
            by_seed.setdefault(int(seed), {"seed": int(seed), **pairs.get(int(seed), {})})[name] = value
    return list(by_seed.values()), content.get("run", {})


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """How images were made, by plain names: ``sigma_min``, ``networks.net``, ``versions.torch``."""
    parts = {"": run.get("options", {}), **{f"{part}.": run.get(part, {}) for part in ("networks", "versions")}}
    flat = {f"{part}{name}": value for part, values in parts.items() for name, value in values.items()}
    return {**flat, **({"device": run["device"]} if "device" in run else {})}


def to_text(comparison: Comparison) -> str:
    """A table to read, and under it what it is of."""
    lines = [("", "A", "B", "B - A", "95 % interval", "pairs", "")]
    for found in comparison.differences:
        arrow = "↑" if found.higher_is_better else "↓"
        ends = "–" if found.interval is None else "{:+.4f} to {:+.4f}".format(*found.interval)
        error = "" if math.isnan(found.standard_error) else f" ± {found.standard_error:.4f}"
        means = f"{found.first:.4f}", f"{found.second:.4f}", f"{found.difference:+.4f}{error}"
        lines.append((f"{found.name} {arrow}", *means, ends, str(found.pairs), found.verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    changed = "; ".join(f"{name} {_brief(a)}, {_brief(b)}" for name, (a, b) in comparison.changed.items())
    known = comparison.first.settings and comparison.second.settings
    table += [
        "",
        f"A: {comparison.first.name}",
        f"B: {comparison.second.name}",
        f"settings that differ: {changed or ('none' if known else 'not known')}",
        f"pairs: {comparison.common} in both, {comparison.alone[0]} in A alone, {comparison.alone[1]} in B alone",
        f"behind ± the standard error; interval of the mean difference, from {_RESAMPLES} resamples of the pairs",
    ]
    for found in comparison.differences:
        table += [f"{found.name}: {found.note}"] if found.note else []
        for which, rows in (("B", found.second_better), ("A", found.first_better)):
            named = ", ".join(f"{named_key(row.key)} ({row.first:.4g}, {row.second:.4g})" for row in rows)
            table += [f"{found.name}, {which} is better most at: {named}"] if named else []
    return "\n".join(table)


def to_json(comparison: Comparison) -> str:
    """The same for programs."""
    metrics = [
        {
            **{name: None if value != value else value for name, value in asdict(found).items()},
            "verdict": found.verdict,
            "second_better": list(map(_plain, found.second_better)),
            "first_better": list(map(_plain, found.first_better)),
        }
        for found in comparison.differences
    ]
    content = {
        "first": comparison.first.name,
        "second": comparison.second.name,
        "changed": comparison.changed,
        "pairs": {"common": comparison.common, "first_alone": comparison.alone[0], "second_alone": comparison.alone[1]},
        "metrics": metrics,
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _plain(row: PairDifference) -> dict[str, Any]:
    key = row.key
    named = key._asdict() if isinstance(key, FramePair) else {"seed" if isinstance(key, int) else "name": key}
    return {**named, "first": row.first, "second": row.second}


def named_key(key: Key) -> str:
    """Which pair it is, for people."""
    if isinstance(key, FramePair):
        return f"{key.clip} {key.source}→{key.target}"
    return f"seed {key}" if isinstance(key, int) else key


def _brief(value: Any) -> str:
    """Hashes are told by their beginnings."""
    return value[:8] if isinstance(value, str) and len(value) == 64 else str(value)
