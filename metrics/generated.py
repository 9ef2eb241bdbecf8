"""Judging novel views as they are made: what `calculate_metrics.py gen` and training call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from datasets.config import open_pairs
from dnnlib import UserError
from metrics.runner import Evaluation
from metrics.views import Views
from torch_utils.depth import DepthModel, choose_depth_model
from training.generation import GeneratedBatch, generate_images

if TYPE_CHECKING:
    from torch_utils.distributed import Processes
    from training.config import TrainingConfig
    from training.precond import NVPrecond

TRAINING_METRICS = ("psnr", "lpips", "fd_efficientnet")  # none of which needs a download

_log = logging.getLogger("training")


def views_of(batch: GeneratedBatch) -> Views:
    """Generated images, beside the truth and the source views, as the metrics take them."""
    source, target = (torch.stack([getattr(pair, role).image for pair in batch.pairs]) for role in ("source", "target"))
    cameras = [(pair.source.camera, pair.target.camera) for pair in batch.pairs]
    return Views(batch.seeds, batch.images, target, source, cameras)


def depth_of(batch: GeneratedBatch, model: DepthModel | None, device: torch.device) -> torch.Tensor:
    """z-depth of a batch's source views, float32 [N, 1, R, R]: the model's, or what they carry where it is None."""
    if model is None:
        return torch.stack([pair.source.depth for pair in batch.pairs])[:, None]
    return model(torch.stack([pair.source.image for pair in batch.pairs]).to(device)).cpu()


def judge(
    batches: Iterable[GeneratedBatch],
    evaluation: Evaluation,
    baseline: str | None = None,
    depth: Callable[[GeneratedBatch], torch.Tensor] | None = None,
    border: float = 0.0,
) -> Iterator[GeneratedBatch]:
    """Hand on the batches, each judged.

    Args:
        baseline: "homography" to judge source views moved by the rotation, too; None without.
        depth: of a batch, see `depth_of`, to judge source views moved by it, and know what they see; None without.
        border: share of the images at each side that is cut off before anything is measured.
    """
    for batch in batches:
        views = views_of(batch)
        if depth is not None:
            views = views.with_depth(depth(batch))
        if baseline == "homography":
            views = views.with_homography()
        evaluation.update(views.without_border(border) if border else views)
        yield batch


def usable_metrics(names: Iterable[str], count: int, *, log: Callable[[str, UserError], None]) -> list[str]:
    """Those that can be computed here of so many images; `log` is told of the others, and why."""
    usable = []
    for name in names:
        try:
            Evaluation([name]).check_count(count)
        except UserError as error:
            log(name, error)
        else:
            usable.append(name)
    return usable


def make_evaluate(
    config: TrainingConfig, sr_model: NVPrecond | None, count: int, processes: Processes
) -> Callable[[NVPrecond, str], dict[str, float]]:
    """What `train` calls for metrics: of `count` pairs of the test split, shared by all processes.

    A metric that cannot be had here, and a range that no test clip is long enough for, are said and left out.
    """

    def left_out(name: str, error: UserError) -> None:
        _log.warning("metrics without %s: %s", name, error)

    names = usable_metrics(TRAINING_METRICS, count, log=left_out)
    depth_model = choose_depth_model(config.depth_model, config.depth_model is not None, processes.device)

    def evaluate(net: NVPrecond, selection: str, is_stopping: Callable[[], bool]) -> dict[str, float]:
        evaluation = Evaluation(names, device=processes.device)
        try:
            pairs = open_pairs(replace(config.pairs("test"), range_selection=selection))
            seeds = processes.share(range(count))
            how = {"sr_model": sr_model, "depth_model": depth_model, "batch_size": 32}
            for _ in judge(generate_images(net, pairs, seeds, **how), evaluation):
                if is_stopping():
                    break
        except UserError as error:
            _log.warning("no metrics for range %s: %s", selection, error)
            return {}
        evaluation.gather(processes)
        if processes.any(is_stopping()):
            return {}
        return {score.name: score.generated for score in evaluation.compute(selection).scores}

    return evaluate
