"""Judging novel views as they are made: what `calculate_metrics.py gen` and training call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tqdm import tqdm

from datasets.config import DataConfig, open_clip_pairs, open_pairs
from datasets.pairs import FramePair
from dnnlib import UserError
from dnnlib.settings import Settings
from dnnlib.util import present
from metrics.choice import default_metrics, usable_metrics
from metrics.protocols import Protocol, find_protocol
from metrics.runner import Evaluation
from metrics.views import Views
from torch_utils.depth import DepthModel, choose_depth_model
from training.batching import choose_batch
from training.generation import GeneratedBatch, GeneratedBatches, NovelViewSampler, generate_images, open_sampler
from training.results import RunFolder, generate_into, run_details, run_identity
from training.sampling_config import NetworkFiles, SamplingConfig

if TYPE_CHECKING:
    from datasets.clips import ClipPairs
    from datasets.pairs import PairDataset
    from metrics.table import Table
    from torch_utils.distributed import Processes
    from training.config import TrainingConfig
    from training.failures import Failures
    from training.milestones import Evaluate
    from training.precond import NVPrecond

DRAWN = 10_000  # pairs where nobody says how many, as the paper has them
TRAINING_METRICS = ("psnr", "lpips", "fd_efficientnet")  # none of which needs a download

_log = logging.getLogger("training")
_log_data = logging.getLogger("metrics")


def views_of(batch: GeneratedBatch) -> Views:
    """Generated images, beside the truth and the source views, as the metrics take them."""
    source, target = (torch.stack([getattr(pair, role).image for pair in batch.pairs]) for role in ("source", "target"))
    cameras = [(pair.source.camera, pair.target.camera) for pair in batch.pairs]
    return Views(batch.seeds, batch.images, target, source, cameras)


def depth_of(batch: GeneratedBatch, model: DepthModel | None, device: torch.device) -> torch.Tensor:
    """z-depth of a batch's source views, float32 [N, 1, R, R]: the model's, or what they carry where it is None."""
    if model is None:
        return torch.stack([present(pair.source.depth) for pair in batch.pairs])[:, None]
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


def open_listed(
    data: DataConfig, protocol: Protocol | None = None, count: int | None = None
) -> tuple[ClipPairs, list[str]]:
    """The pairs of the data, or those that a protocol chooses from them, and the group of each, or [].

    `count`: no more draws than that of a protocol that draws; None: as many as it has.
    """
    if protocol is None:
        return open_clip_pairs(data), []
    dataset = open_clip_pairs(replace(data, range_selection=None, pairs=None))
    clips = {name: dataset.frames(name) for name in dataset.names}
    rows = protocol.choose(clips, data.pairs, count)
    dataset = dataset.with_pairs([row.pair for row in rows])
    present = {dataset.choose(k) for k in range(len(dataset))}
    groups = [row.group for row in rows if row.pair in present]
    return dataset, groups if any(groups) else []


def true_views(dataset: PairDataset, seeds: Sequence[int], batch_size: int) -> Iterator[Views]:
    """Source views and true targets of pairs, with the targets in place of generated images."""
    for start in range(0, len(seeds), batch_size):
        some = seeds[start : start + batch_size]
        pairs = [dataset[seed] for seed in some]
        yield views_of(GeneratedBatch(list(some), pairs, torch.stack([pair.target.image for pair in pairs])))


@dataclass(frozen=True)
class GenerationJob(Settings):
    """What `calculate_metrics.py gen` was asked for.

    Attributes:
        networks, sampling, data: which networks, how, of which pairs. protocol: name of one, or None.
        num: how many pairs, None for all of a list, as many as a protocol has, or else `DRAWN`; seed: the first.
        metrics: names, None for what can be had here.
        weights: see `Evaluation`; baseline: see `judge`. outdir: where pictures are kept, None for nowhere.
        batch: images at once, or "auto"; most_at_once: that many for any "auto". workers, allow_few, bootstrap: see
            `Evaluation`.
    """

    networks: NetworkFiles
    sampling: SamplingConfig
    data: DataConfig
    protocol: str | None
    num: int | None
    seed: int
    metrics: Sequence[str] | None
    weights: Sequence[tuple[str, str]]
    allow_few: bool
    baseline: str | None
    bootstrap: int
    workers: int
    batch: int | Literal["auto"]
    most_at_once: int
    outdir: Path | None


def judge_generated(job: GenerationJob, processes: Processes, failures: Failures) -> tuple[Table | None, int]:
    """Make the pairs' novel views and judge them; the table, None where all failed, and of how many pairs.

    What cannot be made is told in `failures`. Raises UserError for what cannot be done at all.
    """
    protocol = None if job.protocol is None else find_protocol(job.protocol)
    dataset, groups = open_listed(job.data, protocol, None if job.num is None else job.seed + job.num)
    _log_data.info("%s: %s", job.data.data, dataset.summary())
    listed = protocol is not None or job.data.pairs is not None
    count = DRAWN if job.num is None else job.num
    if listed:
        left = len(dataset) - job.seed
        count = left if job.num is None else min(job.num, left)
    if count < 1:
        raise UserError(f"the list has {len(dataset)} pairs: there is none from `seed` {job.seed} on")
    sampler, files = open_sampler(job.networks, job.sampling, processes.device)
    evaluation, notes = _open_evaluation(job, protocol, count, processes)
    warp = job.baseline == "warp" or evaluation.needs("visible")
    depth_model = choose_depth_model(job.networks.depth_model, warp, processes.device)
    identity = run_identity(files, job.networks, sampler, job.data)
    if protocol is not None:
        identity["protocol"] = protocol.name
        notes = [*_remarks(protocol, dataset, sampler.resolution, count), *notes]
    if listed:
        notes = [f"pairs {job.seed} to {job.seed + count - 1} of {dataset.summary()}", *notes]
    seeds = range(job.seed, job.seed + count)
    batches = _made(job, sampler, dataset, seeds, identity, processes, failures)
    depth = partial(depth_of, model=depth_model, device=processes.device) if warp else None
    border = 0.0 if protocol is None else protocol.border
    for _ in judge(batches, evaluation, job.baseline, depth, border):
        pass
    evaluation.gather(processes)
    failures.gather(processes)
    if len(failures.reasons) == count:
        return None, count
    selection = protocol.what if protocol else job.data.range_selection or ("a list of pairs" if listed else "any")
    table = evaluation.compute(selection, notes)
    run = {"options": identity, **run_details(job.networks, processes), "dtype": sampler.config.dtype}
    run["judging"] = {"bootstrap": job.bootstrap, "baseline": job.baseline, "border": border}
    pairs = {seed: FramePair(*dataset.choose(seed)) for seed in table.indices}
    return replace(table, pairs=pairs, groups={seed: groups[seed] for seed in table.indices if groups}, run=run), count


def _open_evaluation(
    job: GenerationJob, protocol: Protocol | None, count: int, processes: Processes
) -> tuple[Evaluation, list[str]]:
    """Return what judges the job, and notes on what of it had to be left out."""
    weights, names = dict(job.weights), job.metrics
    notes: list[str] = []
    if names is None and protocol is not None:
        names, notes = usable_metrics(protocol.metrics, count, job.allow_few, weights)
    elif names is None:
        names, notes = default_metrics(True, count, job.allow_few, weights)
    names, notes = processes.gather([(list(names), notes)])[0]  # a download may fail for one process alone
    how: dict[str, Any] = {
        "weights": weights,
        "allow_few": job.allow_few,
        "workers": job.workers,
        "bootstrap": job.bootstrap,
    }
    evaluation = Evaluation(names, device=processes.device, **how)
    evaluation.check_count(count)
    return evaluation, notes


def _remarks(protocol: Protocol, dataset: ClipPairs, resolution: int, count: int) -> list[str]:
    """Return the remarks of a table under a protocol."""
    view = dataset[0].source.camera
    lines = [f"protocol {protocol.name}: {protocol.what} ({protocol.source})"]
    if view.width != view.height:
        lines.append(f"frames of {view.width}x{view.height} are cropped to the central square, as networks need it")
    if protocol.border:
        lines.append(f"{protocol.border:.0%} of the images are cut off at each side before anything is measured")
    if resolution != protocol.resolution:
        lines.append(
            f"made at {resolution}x{resolution}, the protocol is at {protocol.resolution}x{protocol.resolution}"
        )
    if protocol.count is not None and count < protocol.count:
        lines.append(f"{count} pairs, the protocol has {protocol.count}")
    return [*lines, *([protocol.remark] if protocol.remark else [])]


def _made(
    job: GenerationJob,
    sampler: NovelViewSampler,
    dataset: ClipPairs,
    seeds: Sequence[int],
    identity: Mapping[str, Any],
    processes: Processes,
    failures: Failures,
) -> Iterator[GeneratedBatch]:
    """This process's batches, under a progress bar; kept, and taken up from before, where the job has a folder."""
    folder, missing = None, list(seeds)
    if job.outdir is not None:
        folder = RunFolder(job.outdir, identity, run_details(job.networks, processes))
        missing = folder.missing(seeds, dataset)
    mine = processes.share(missing)
    batch_size = choose_batch(job.batch, sampler, min(len(mine), job.most_at_once))  # metrics take memory, too
    batches = GeneratedBatches(sampler, dataset, mine, batch_size, failures.add)
    made: Iterable[GeneratedBatch] = batches
    if folder is not None:
        there = processes.share(sorted({*seeds} - {*missing}))
        made = chain(
            generate_into(folder, batches, seeds, processes, failures),
            folder.load(there, batch_size, dataset, sampler.resolution),
        )
    return iter(tqdm(made, total=len(batches), unit="batch", disable=not processes.is_main))


def make_evaluate(config: TrainingConfig, sr_model: NVPrecond | None, count: int, processes: Processes) -> Evaluate:
    """Return what `train` calls for metrics of `count` pairs of the test split, shared by all processes.

    A metric that cannot be had here, and a range that no test clip is long enough for, are said and left out.
    """
    names, left_out = usable_metrics(TRAINING_METRICS, count)
    for line in left_out:
        _log.warning("metrics, %s", line)
    depth_model = choose_depth_model(config.depth_model, config.depth_model is not None, processes.device)

    def evaluate(net: NVPrecond, selection: str, is_stopping: Callable[[], bool]) -> dict[str, float]:
        evaluation = Evaluation(names, device=processes.device)
        try:
            pairs = open_pairs(replace(config.pairs("test"), range_selection=selection))
            seeds = processes.share(range(count))
            how: dict[str, Any] = {"sr_model": sr_model, "depth_model": depth_model, "batch_size": 32}
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
