from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from datasets.pairs import FramePair, write_pair_lines
from dnnlib import UserError
from metrics.compare import bootstrap_interval, compare, read_per_pair, to_json, to_text

RNG = np.random.default_rng(0)
KEYS = [FramePair("clip", 0, k) for k in range(40)]
FIRST = dict(zip(KEYS, RNG.normal(20, 3, 40), strict=True))
SECOND = {key: value + shift for (key, value), shift in zip(FIRST.items(), RNG.normal(0.5, 0.4, 40), strict=True)}


def test_paired_differences_are_those_of_scipy() -> None:
    """The pairs differ far more from each other than the runs do: only paired numbers show the difference."""
    (found,) = compare({"psnr": FIRST}, {"psnr": SECOND})
    difference = np.array([SECOND[key] - FIRST[key] for key in KEYS])
    assert found.difference == pytest.approx(difference.mean())
    assert found.standard_error == pytest.approx(stats.sem(difference))
    assert found.difference / found.standard_error == pytest.approx(
        stats.ttest_rel(list(SECOND.values()), list(FIRST.values())).statistic
    )
    low, high = found.interval
    assert low < found.difference < high
    assert (high - low) / 2 == pytest.approx(1.96 * found.standard_error, rel=0.15)
    assert found.verdict == "B is better"
    assert compare({"psnr": SECOND}, {"psnr": FIRST})[0].verdict == "A is better"
    assert compare({"lpips": FIRST}, {"lpips": SECOND})[0].verdict == "A is better"
    assert found.most[0][0] == KEYS[int(difference.argmax())]
    assert "psnr ↑" in to_text([found])
    assert json.loads(to_json([found]))[0]["most"][0]["clip"] == "clip"


def test_only_pairs_that_both_have_count() -> None:
    first, second = {**FIRST, KEYS[0]: math.inf}, {key: SECOND[key] for key in KEYS[:30]}
    (found,) = compare({"psnr": first, "ssim": first}, {"psnr": second})
    assert (found.name, found.pairs) == ("psnr", 29)
    with pytest.raises(UserError, match="no pair in common"):
        compare({"psnr": FIRST}, {"psnr": {7: 20.0}})
    with pytest.raises(UserError, match="no metric"):
        compare({"psnr": FIRST}, {"ssim": SECOND})


def test_equal_runs_have_no_clear_difference() -> None:
    (found,) = compare({"psnr": FIRST}, {"psnr": FIRST})
    assert (found.difference, found.interval, found.verdict) == (0, None, "no clear difference")
    assert bootstrap_interval(np.array([1.0])) is None


def test_tsed_compares_which_pairs_fit() -> None:
    first = {0: 0.5, 1: 9.0, 2: math.inf, 3: 1.0}
    second = {0: 0.5, 1: 1.0, 2: 1.5, 3: 1.0}
    (found,) = compare({"tsed": first}, {"tsed": second})
    assert (found.first, found.second, found.pairs) == (0.5, 1.0, 4)


def test_numbers_from_files(tmp_path: Path) -> None:
    write_pair_lines(tmp_path / "a.jsonl", dict(enumerate(KEYS)), {"psnr": dict(enumerate(FIRST.values()))})
    assert read_per_pair(tmp_path / "a.jsonl") == {"psnr": pytest.approx(FIRST)}
    table = {"metrics": {"psnr": {"per_image": {"4": 20.5, "5": None}}}, "pairs": [{"seed": 4, **KEYS[2]._asdict()}]}
    (tmp_path / "table.json").write_text(json.dumps(table, indent=1))
    assert read_per_pair(tmp_path / "table.json") == {"psnr": {KEYS[2]: 20.5, 5: math.inf}}
    (tmp_path / "wrong.json").write_text("[1]")
    with pytest.raises(UserError, match="no numbers of pairs"):
        read_per_pair(tmp_path / "wrong.json")
    write_pair_lines(tmp_path / "list.jsonl", dict(enumerate(KEYS)))
    with pytest.raises(UserError, match="no numbers of them"):
        read_per_pair(tmp_path / "list.jsonl")
