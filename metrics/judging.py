"""Judging images that are there: what `calculate_metrics.py calc`, `show` and `compare` call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dnnlib.util import present
from metrics.compare import Judged, judged_table
from metrics.folders import open_saved
from metrics.runner import Evaluation
from metrics.saved import SavedViews
from metrics.views import Views
from torch_utils.depth import choose_depth_model
from torch_utils.distributed import Processes


def judge_saved(
    saved: SavedViews,
    evaluation: Evaluation,
    processes: Processes,
    batch_size: int,
    baseline: str | None = None,
    depth_model: str | None = None,
    workers: int = 0,
) -> None:
    """Judge saved images: each process its share, after which each knows the numbers of all.

    Args:
        baseline: "warp" or "homography" to judge source views moved by depth or by the rotation, too; None without.
        depth_model: name of what gives depth where it is needed, see `choose_depth_model`.
        workers: threads that read.

    Raises UserError where depth is needed and cannot be had, or files are broken.
    """
    needs_depth = baseline == "warp" or evaluation.needs("visible")
    model = choose_depth_model(depth_model, needs_depth, processes.device)
    mine = saved.only(processes.share(list(saved.files)))
    for views in batches(mine, batch_size, workers, processes.is_main):
        if needs_depth and model is None:
            views = views.with_depth(saved.stored_depth(views))
        elif model is not None:
            views = views.with_depth(model(present(views.source).to(processes.device)).cpu())
        evaluation.update(views.with_homography() if baseline == "homography" else views)
    evaluation.gather(processes)


def judge_run(path: Path, metrics: Sequence[str], processes: Processes, batch_size: int, **how: Any) -> Judged:
    """The images of a folder or zip file, judged to be compared; `how`: as in `Evaluation`."""
    saved = open_saved(path)
    evaluation = Evaluation(metrics, device=processes.device, **how)
    judge_saved(saved, evaluation, processes, batch_size, workers=how.get("workers", 0))
    table = replace(evaluation.compute(), pairs=saved.pairs, names=saved.names, run=saved.described)
    return judged_table(str(path), table)


def batches(saved: SavedViews, size: int, workers: int = 0, visible: bool = True) -> Iterator[Views]:
    """The images in batches, under a progress bar."""
    total = -(-len(saved) // size)
    return iter(tqdm(saved.batches(size, workers), total=total, unit="batch", disable=None if visible else True))
