"""The way from saved images to numbers: shares, baselines, where depth comes from."""

from __future__ import annotations

import pytest
import torch

from dnnlib import UserError
from metrics.judging import judge_saved
from metrics.runner import Evaluation
from metrics.saved import SavedViews, open_results
from metrics.views import COPY_SOURCE, GENERATED, WARP
from tests.metrics.scenes import synthetic_pairs, write_run
from torch_utils.distributed import start_processes


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedViews:
    pairs = synthetic_pairs(3)
    images = torch.stack([pair.target.image for pair in pairs])
    return open_results(write_run(tmp_path_factory.mktemp("saved") / "out", pairs, 255 - images))


def test_numbers_do_not_depend_on_the_batch(saved: SavedViews) -> None:
    scores = []
    for batch_size in (1, 2, 3):
        evaluation = Evaluation(["psnr"])
        judge_saved(saved, evaluation, start_processes("cpu"), batch_size)
        scores += evaluation.compute().scores
    assert [score.images for score in scores] == [3, 3, 3]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].numbers.keys() == {GENERATED, COPY_SOURCE}


def test_a_baseline_is_judged_where_one_is_asked_for(saved: SavedViews) -> None:
    evaluation = Evaluation(["psnr"])
    judge_saved(saved, evaluation, start_processes("cpu"), 2, baseline="homography")
    assert evaluation.compute().scores[0].numbers.keys() == {GENERATED, COPY_SOURCE, WARP}


@pytest.mark.parametrize(("metric", "baseline"), [("psnr", "warp"), ("psnr_visible", None)])
def test_depth_is_asked_for_where_it_is_needed(saved: SavedViews, metric: str, baseline: str | None) -> None:
    with pytest.raises(UserError, match="depth_model"):
        judge_saved(saved, Evaluation([metric]), start_processes("cpu"), 2, baseline=baseline)
