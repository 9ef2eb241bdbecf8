"""The table as text and as data, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets.pairs import FramePair, read_pairs
from dnnlib import UserError
from metrics.definitions import Number, Score
from metrics.table import Table, format_indices, versions

NAN = float("nan")
PSNR = Score(
    "psnr",
    True,
    {"generated": Number(20.5, 0.25), "copy_source": Number(12.0, None)},
    2,
    {0: 20.0, 1: 22.0, 5: float("inf")},
    "PSNR, dB",
    True,
    "a remark",
)
FID = Score("fid", False, {"generated": Number(3.14159, 0.5, (2.0, 4.0)), "target": Number(NAN)}, 3)
PAIRS = {0: FramePair("a", 0, 3), 1: FramePair("b", 2, 1), 5: FramePair("b", 4, 0)}


def table(**changes: object) -> Table:
    return Table([PSNR, FID], [0, 1, 5], (64, 48), [], "mid", ["a note"], **changes)


def test_text() -> None:
    """Two digits from 10 on, four below; arrows say which way is better; no column for a warp that nobody made."""
    head, psnr, fid, empty, *facts = table().to_text().splitlines()
    assert head.split() == ["generated", "copy", "source", "true", "target", "images"]
    assert psnr.split() == ["psnr", "↑", "20.50", "±", "0.25", "12.00", "–", "2"]
    assert fid.split() == ["fid", "↓", "3.1416", "±", "0.5000", "–", "–", "3"]
    assert empty == ""
    assert facts == [
        "images: 3 of 64x48 pixels",
        "range: mid",
        "seeds: 0-1,5",
        "psnr: a remark",
        "fid: 95 % bootstrap interval 2 to 4 (generated)",
        "a note",
    ]


def test_data_is_json_without_numbers_that_json_lacks() -> None:
    found = json.loads(json.dumps(table(pairs=PAIRS, run={"guidance": 1.5}).to_dict(), allow_nan=False))
    psnr, fid = found["metrics"]["psnr"], found["metrics"]["fid"]
    assert (psnr["generated"], psnr["copy_source"], psnr["warp"], psnr["true_target"]) == (20.5, 12, None, None)
    assert psnr["standard_error"] == {"generated": 0.25, "copy_source": None}
    assert psnr["per_image"] == {"0": 20, "1": 22, "5": None}
    assert (psnr["higher_is_better"], fid["higher_is_better"], fid["true_target"]) == (True, False, None)
    assert fid["interval_95"] == {"generated": [2, 4]}
    assert (found["images"], found["size"], found["seeds"]) == (3, [64, 48], "0-1,5")
    assert found["pairs"][1] == {"seed": 1, "clip": "b", "source": 2, "target": 1}
    assert found["run"]["guidance"] == 1.5
    assert found["run"]["versions"]["torch"] == versions()["torch"]


def test_groups_have_means_of_their_own() -> None:
    grouped = table(groups={0: "near", 1: "far", 5: "far"})
    means = grouped.group_means()
    assert list(means) == ["psnr"]  # a distance between sets has no number of a pair
    assert {group: number.value for group, number in means["psnr"].items()} == {"near": 20, "far": 22}
    assert "psnr: near 20.00, far 22.00" in grouped.to_text()
    assert grouped.to_dict()["groups"] == {"psnr": {"near": 20, "far": 22}}


def test_pairs_are_written_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    table(pairs=PAIRS).write_pairs(file)
    assert read_pairs(file) == list(PAIRS.values())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["psnr"] for row in rows] == [20, 22, None]
    with pytest.raises(UserError, match=r"there is no run\.json"):
        table().write_pairs(file)


@pytest.mark.parametrize(
    ("indices", "text"), [([], ""), ([7], "7"), ([0, 1, 2, 7], "0-2,7"), ([7, 2, 1, 0, 9], "0-2,7,9"), ([3, 4], "3-4")]
)
def test_format_indices(indices: list[int], text: str) -> None:
    assert format_indices(indices) == text
