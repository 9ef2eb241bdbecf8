from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib import UserError
from metrics import Evaluation
from metrics.definitions import Number, Score
from metrics.detectors import DetectorInfo
from metrics.gallery import extremes, group_means, samples_sheet, save_gap_plot
from metrics.saved import open_results
from metrics.table import Table, format_indices
from metrics.views import COPY_SOURCE, GENERATED, TARGET
from tests.metrics.scenes import noisy, synthetic_pairs, views_of, write_run

PSNR = Score(
    "psnr",
    True,
    {GENERATED: Number(20.0, 1.5), COPY_SOURCE: Number(15.25, 0.25)},
    5,
    {3: 30.0, 1: 10.0, 4: 15.0, 9: 25.0, 2: 20.0},
    "PSNR, dB",
    True,
)
TSED = Score(
    "tsed",
    True,
    {GENERATED: Number(0.5), TARGET: Number(0.75)},
    2,
    {1: math.inf, 3: 0.2},
    "distance",
    False,
    note="share of pairs",
)
FID = Score("fid", False, {GENERATED: Number(123.456, 2.0, (100.0, 150.0)), COPY_SOURCE: Number(math.nan)}, 5)


def test_extremes() -> None:
    assert extremes(PSNR) == {"worst": [1], "median": [2], "best": [3]}
    assert extremes(PSNR, count=5) == {"worst": [1], "median": [2], "best": [3]}  # no image is shown twice
    assert extremes(TSED) == {"worst": [1], "median": [1], "best": [3]}
    many = Score("lpips", False, {}, 9, {index: float(index) for index in range(9)}, "LPIPS", False)
    assert extremes(many, count=3) == {"worst": [8, 7, 6], "median": [5, 4, 3], "best": [2, 1, 0]}


def test_sheet_and_plot(tmp_path: Path) -> None:
    pairs = synthetic_pairs(4)
    views = views_of(pairs)
    images = noisy(views.target, 10)
    results = open_results(write_run(tmp_path / "out", pairs, images))
    evaluation = Evaluation(["psnr", "tsed"])
    for batch in results.batches(2):
        evaluation.update(batch)
    measured = evaluation.compute().scores
    sheet = np.asarray(samples_sheet(results, measured))
    worst = min(measured[0].per_image, key=measured[0].per_image.get)
    expected = images[worst].permute(1, 2, 0).numpy().repeat(2, axis=0).repeat(2, axis=1)  # enlarged to 128 pixels
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (2, 2, 3))[:, :, 0]
    places = np.argwhere((windows == expected[:2, :2]).all(axis=(2, 3, 4)))
    assert any(np.array_equal(sheet[top : top + 128, left : left + 128], expected) for top, left in places)

    pytest.importorskip("matplotlib")
    save_gap_plot(tmp_path / "gaps.png", measured, {index: pair.gap for index, pair in enumerate(pairs)})
    with Image.open(tmp_path / "gaps.png") as plot:
        assert plot.width > plot.height > 300
    assert [path.name for path in tmp_path.glob("*gaps*")] == ["gaps.png"]


def test_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        save_gap_plot(tmp_path / "gaps.png", [PSNR], {})


def test_group_means() -> None:
    x = np.repeat(np.arange(8.0), 10)
    means = group_means(x, 3 * x + 1)
    np.testing.assert_allclose(means[1], 3 * means[0] + 1)
    assert 4 <= len(means[0]) <= 8
    assert sum(len(part) for part in group_means(np.array([2.0]), np.array([5.0]))) == 2
    assert [len(part) for part in group_means(np.zeros(0), np.zeros(0))] == [0, 0]


def test_table() -> None:
    detector = DetectorInfo("inception", "ab" * 32, "299x299", 2048)
    table = Table([PSNR, TSED, FID], [1, 2, 3, 4, 9], (64, 48), [detector], "mid", ["left out: kid"])
    lines = table.to_text().splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["generated", "copy", "source", "true", "target", "images"],
        ["psnr", "↑", "20.00", "±", "1.50", "15.25", "±", "0.25", "–", "5"],
        ["tsed", "↑", "0.5000", "–", "0.7500", "2"],
        ["fid", "↓", "123.46", "±", "2.00", "–", "–", "5"],
    ]
    assert lines[4:] == [
        "",
        "images: 5 of 64x48 pixels",
        "range: mid",
        "seeds: 1-4,9",
        f"inception: 2048 features, 299x299, SHA-256 {'ab' * 32}",
        "tsed: share of pairs",
        "fid: 95 % bootstrap interval 100 to 150 (generated)",
        "left out: kid",
    ]


def test_json_has_no_infinite_numbers() -> None:
    table = Table([PSNR, TSED, FID], [1, 3], (64, 64), [], "", [])
    content = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert content["metrics"]["tsed"]["per_image"] == {"1": None, "3": 0.2}
    assert content["metrics"]["fid"]["copy_source"] is None
    assert content["metrics"]["psnr"]["generated"] == 20.0
    assert content["metrics"]["psnr"]["standard_error"] == {"generated": 1.5, "copy_source": 0.25}
    assert content["metrics"]["fid"]["interval_95"] == {"generated": [100.0, 150.0]}
    assert content["seeds"] == "1,3"


def test_format_indices() -> None:
    assert format_indices([]) == ""
    assert format_indices([7]) == "7"
    assert format_indices([5, 3, 4, 9, 10, 0]) == "0,3-5,9-10"
