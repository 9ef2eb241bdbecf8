from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from datasets.pairs import FramePair, write_pair_lines
from dnnlib import UserError
from metrics.compare import Difference, Judged, bootstrap_interval, compare, read_judged, to_json, to_text

RNG = np.random.default_rng(0)
KEYS = [FramePair("clip", 0, k) for k in range(40)]
FIRST = dict(zip(KEYS, RNG.normal(20, 3, 40), strict=True))
SECOND = {key: value + shift for (key, value), shift in zip(FIRST.items(), RNG.normal(0.5, 0.4, 40), strict=True)}


def differences(first: dict, second: dict, most: int = 3) -> list[Difference]:
    return list(compare(Judged("a", first), Judged("b", second), most).differences)


def test_paired_differences_are_those_of_scipy() -> None:
    """The pairs differ far more from each other than the runs do: only paired numbers show the difference."""
    (found,) = differences({"psnr": FIRST}, {"psnr": SECOND})
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
    assert differences({"psnr": SECOND}, {"psnr": FIRST})[0].verdict == "A is better"
    assert differences({"lpips": FIRST}, {"lpips": SECOND})[0].verdict == "A is better"


@pytest.mark.parametrize(("name", "sign"), [("psnr", 1), ("lpips", -1)])
def test_pairs_that_speak_for_either_run(name: str, sign: int) -> None:
    """None is named for a run that it does not speak for, even where there are fewer."""
    first = dict(zip(KEYS[:5], (20.0, 20.0, 20.0, 20.0, 20.0), strict=True))
    second = dict(zip(KEYS[:5], (20 + sign * gain for gain in (1.0, 0.0, -3.0, 4.0, -1.0)), strict=True))
    (found,) = differences({name: first}, {name: second})
    assert [row.key for row in found.second_better] == [KEYS[3], KEYS[0]]
    assert [row.key for row in found.first_better] == [KEYS[2], KEYS[4]]
    assert found.first_better[0] == (KEYS[2], 20, 20 - 3 * sign)
    assert [len(differences({name: first}, {name: second}, 1)[0].second_better)] == [1]


def test_only_pairs_that_both_have_count() -> None:
    first, second = {**FIRST, KEYS[0]: math.inf}, {key: SECOND[key] for key in KEYS[:30]}
    found = compare(Judged("a", {"psnr": first, "ssim": first}), Judged("b", {"psnr": {**second, 7: 20.0, 8: 20.0}}))
    (psnr,) = found.differences
    assert (psnr.name, psnr.pairs) == ("psnr", 29)
    assert psnr.note == "1 of 30 pairs equal their target in one of them, and are left out"
    assert (found.common, found.alone) == (30, (10, 2))
    assert "pairs: 30 in both, 10 in A alone, 2 in B alone" in to_text(found)
    with pytest.raises(UserError, match="no pair in common"):
        differences({"psnr": FIRST}, {"psnr": {7: 20.0}})
    with pytest.raises(UserError, match="no metric"):
        differences({"psnr": FIRST}, {"ssim": SECOND})
    with pytest.raises(UserError, match="no pair has a finite number"):
        differences({"psnr": {1: math.inf}}, {"psnr": {1: 20.0}})


def test_equal_runs_have_no_clear_difference() -> None:
    (found,) = differences({"psnr": FIRST}, {"psnr": FIRST})
    assert (found.difference, found.interval, found.verdict) == (0, None, "no clear difference")
    assert (found.second_better, found.first_better) == ([], [])
    assert bootstrap_interval(np.array([1.0])) is None


def test_one_pair_has_no_standard_error() -> None:
    found = compare(Judged("a", {"psnr": {0: 20.0}}), Judged("b", {"psnr": {0: 21.0}}))
    assert re.search(r"\+1\.0000 +– +1 +no clear difference", to_text(found))
    assert json.loads(to_json(found))["metrics"][0]["standard_error"] is None


def test_tsed_compares_which_pairs_fit() -> None:
    first = {0: 0.5, 1: 9.0, 2: math.inf, 3: 1.0}
    second = {0: 0.5, 1: 1.0, 2: 1.5, 3: 1.0}
    (found,) = differences({"tsed": first}, {"tsed": second})
    assert (found.first, found.second, found.pairs) == (0.5, 1.0, 4)
    assert found.note == "too few matches to tell: 1 in A, 0 in B"


def test_what_is_compared_is_said() -> None:
    """Which is A, and in what they differ: networks by the beginnings of their hashes."""
    runs = [{"net": letter * 64, "steps": steps, "pairs": letter} for letter, steps in (("a", 3), ("b", 8))]
    found = compare(Judged("one", {"psnr": FIRST}, runs[0]), Judged("two", {"psnr": SECOND}, runs[1]))
    text = to_text(found)
    for line in ("A: one", "B: two", "settings that differ: net aaaaaaaa, bbbbbbbb; steps 3, 8"):
        assert line in text.splitlines()
    assert "psnr, B is better most at: clip 0→" in text
    content = json.loads(to_json(found))
    assert (content["first"], content["second"], content["changed"]["steps"]) == ("one", "two", [3, 8])
    assert content["metrics"][0]["second_better"][0]["clip"] == "clip"
    assert content["metrics"][0]["verdict"] == "B is better"
    assert "settings that differ: not known" in to_text(compare(Judged("a", {"psnr": FIRST}), found.second))


def test_numbers_from_files(tmp_path: Path) -> None:
    write_pair_lines(tmp_path / "a.jsonl", dict(enumerate(KEYS)), {"psnr": dict(enumerate(FIRST.values()))})
    assert read_judged(tmp_path / "a.jsonl").numbers == {"psnr": pytest.approx(FIRST)}
    pairs = [{"seed": 4, **KEYS[2]._asdict()}, {"seed": 6, "name": "room/6"}]
    table = {"metrics": {"psnr": {"per_image": {"4": 20.5, "5": None, "6": 21}}}, "pairs": pairs}
    table["run"] = {"options": {"sigma_min": 3}, "versions": {"torch": "2"}, "device": "cpu"}
    (tmp_path / "table.json").write_text(json.dumps(table, indent=1))
    read = read_judged(tmp_path / "table.json")
    assert read.numbers == {"psnr": {KEYS[2]: 20.5, 5: math.inf, "room/6": 21}}
    assert read.settings == {"sigma_min": 3, "versions.torch": "2", "device": "cpu"}
    for content in ("[1]", '{"metrics": {"psnr": 3}, "pairs": []}', '{"seed": "x", "psnr": 3}', '{"run": 3}'):
        (tmp_path / "wrong.json").write_text(content)
        with pytest.raises(UserError, match="neither a list of pairs"):
            read_judged(tmp_path / "wrong.json")
    write_pair_lines(tmp_path / "list.jsonl", dict(enumerate(KEYS)))
    with pytest.raises(UserError, match="no numbers of them"):
        read_judged(tmp_path / "list.jsonl")
