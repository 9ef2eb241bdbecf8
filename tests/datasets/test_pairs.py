"""Which two frames: exact numbers, uniformity, and pair lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.pairs import (
    FramePair,
    FrameRange,
    count_pairs,
    draw_pair,
    random_uniform,
    read_pairs,
    visit,
    write_pair_lines,
    write_pairs,
)
from dnnlib.util import UserError
from tests.scripts import run_python

positions = st.lists(st.integers(0, 40), unique=True, max_size=12).map(sorted)
ranges = st.none() | st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda r: (r[0], r[0] + r[1]))


def brute_force(frames: list[int], frame_range: tuple[int, int] | None) -> list[tuple[int, int]]:
    low, high = frame_range or (1, 1000)
    return [(i, j) for i in frames for j in frames if low <= abs(i - j) < high]


@settings(deadline=None, max_examples=200)
@given(positions, ranges, st.integers(0, 2**40), st.integers(0, 2**40))
def test_every_draw_is_in_range(frames: Sequence[int], frame_range: FrameRange, seed: int, k: int) -> None:
    allowed = brute_force(frames, frame_range)
    assert count_pairs(frames, frame_range) == len(allowed)
    if allowed:
        assert draw_pair(frames, frame_range, seed, k) in allowed


@pytest.mark.parametrize("frames", [range(12), np.array([0, 1, 4, 5, 9, 11])], ids=["whole", "gaps"])
def test_draws_are_uniform_over_ordered_pairs(frames: Sequence[int]) -> None:
    allowed = brute_force(list(frames), (3, 6))
    draws = 200 * len(allowed)
    counts = Counter(draw_pair(frames, (3, 6), seed=5, k=k) for k in range(draws))
    assert set(counts) == set(allowed)
    chi2 = sum((counts[pair] - 200) ** 2 / 200 for pair in allowed)
    assert chi2 < len(allowed) + 4 * np.sqrt(2 * len(allowed))  # 4 standard deviations; the draws are fixed


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_visits_each_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(visit(n, seed, epoch * n + step) for step in range(n)) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(visit(50, seed, 50 * epoch + step) for step in range(50)) for seed in range(4) for epoch in range(4)
    }
    assert len(orders) == 16


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(IndexError):
        visit(5, 0, -1)


CHOICES = """
from datasets.pairs import draw_pair, random_uniform, visit
print([visit(10, 3, k) for k in range(10)], [draw_pair(range(280), (30, 60), 3, k) for k in range(4)])
print(random_uniform("test", 3, count=2).tolist())
"""
PINNED = """\
[7, 8, 6, 1, 5, 2, 4, 0, 3, 9] [(69, 125), (114, 82), (204, 168), (89, 137)]
[0.4288693316783694, 0.4995074856682362]
"""


def test_the_numbers_never_change() -> None:
    """Pinned, and from another process: tables of pair k must stay reproducible."""
    run = run_python("-c", CHOICES, PYTHONHASHSEED="7")
    assert run.stdout == PINNED, run.stderr


def test_purposes_do_not_share_numbers() -> None:
    assert random_uniform("one", 0)[0] != random_uniform("other", 0)[0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=5))
def test_pair_lists_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]]) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.json"
    pairs = [FramePair(*row) for row in rows]
    write_pairs(path, pairs)
    assert read_pairs(path) == pairs
    assert [tuple(row.values()) for row in json.loads(path.read_text(encoding="utf-8"))] == rows


def test_evaluation_index_of_pixelsplat(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(
        json.dumps({"a": {"context": [3, 60], "target": [10, 20]}, "b": None, "c": {"context": [7], "target": [1]}})
    )
    assert read_pairs(path) == [("a", 3, 10), ("a", 3, 20), ("c", 7, 1)]


def test_every_form_of_a_list(tmp_path: Path) -> None:
    pairs = [FramePair("a", 3, 10), FramePair("b", 7, 1)]
    write_pair_lines(tmp_path / "lines.jsonl", dict(enumerate(pairs)), {"psnr": {0: 20.5, 1: float("inf")}})
    rows = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert rows == [
        {"seed": 0, "clip": "a", "source": 3, "target": 10, "psnr": 20.5},
        {"seed": 1, "clip": "b", "source": 7, "target": 1, "psnr": None},
    ]
    images = [{"clip": clip, "source_index": source, "target_index": target} for clip, source, target in pairs]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"options": {}, "images": images}))
    (tmp_path / "rows.txt").write_text("a 3 10 10 10\r\nb 7 1\n\n")
    write_pair_lines(tmp_path / "one.jsonl", {0: pairs[0]})
    assert read_pairs(tmp_path / "one.jsonl") == pairs[:1]
    for form in ("lines.jsonl", "run", "run/run.json", "rows.txt"):
        assert read_pairs(tmp_path / form) == pairs


@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "3", "null", "[1]", '[{"clip": "a", "source": 1}]', '[{"clip": "a", "source": "x", "target": 1}]',
     '{"a": {"context": [], "target": [1]}}', '{"a": 3}', '{"a": null}'],
)  # fmt: skip
def test_what_is_no_pair_list_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(text)
    with pytest.raises(UserError, match="pair list") as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        read_pairs(tmp_path / "missing.json")
