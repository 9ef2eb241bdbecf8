"""Running metrics over batches: one pass, any number of processes, the same numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dnnlib import UserError
from dnnlib.imaging import to_rgb
from dnnlib.util import one_line
from metrics.definitions import FEATURE_METRICS, IMAGE_METRICS, FeatureMetric, ImageMetric, Tools
from metrics.detectors import load_detectors
from metrics.image import Images, as_uint8, image_size
from metrics.kid import kernel_distance
from metrics.lpips import BACKBONES, load_lpips, lpips_info
from metrics.reference import Reference
from metrics.table import Table
from metrics.views import Views
from torch_utils.cameras import Camera
from torch_utils.distributed import Processes

METRICS = (*IMAGE_METRICS, *FEATURE_METRICS)

_CHUNK = 64  # images at a time, where they all come at once


@dataclass(frozen=True)
class State:
    """What an `Evaluation` has seen: plain numbers, to be sent between processes and merged."""

    accumulators: dict[str, dict[str, Any]]  # by metric, then by role: what its `accumulator` makes
    indices: set[int]
    size: tuple[int, int] | None


class Evaluation:
    """Metrics over batches of images, in one pass: `update` for each batch, `compute` at the end.

    Several processes each see some of the batches; then `merge` takes the `state` of the others. Every image counts
    once: an index that comes again is an error. SavedViews depend neither on the batches nor on the order they come in
    (Fréchet distances up to the rounding of their float64 sums).
    """

    def __init__(
        self,
        metrics: str | Sequence[str],
        *,
        device: torch.device | str = "cpu",
        weights: Mapping[str, str | Path] | None = None,
        reference: Reference | None = None,
        allow_few: bool = False,
        workers: int = 0,
        bootstrap: int = 0,
    ) -> None:
        """Load what the metrics need.

        Args:
            metrics: names, see `METRICS`.
            device: where networks compute.
            weights: in place of the published ones: by detector name, see `load_detectors`, or by the name of an LPIPS
                metric, a safetensors file.
            reference: statistics that Fréchet distances compare with, in place of the targets'.
            allow_few: compute Fréchet distances of fewer images than features all the same, and note it.
            bootstrap: resamples that tell how sure distances between sets are; 0: none. Features are kept then.
            workers: processes for the work that no network does (SIFT); 0: none but this one.

        Raises UserError for an unknown metric, a missing package or file, a reference that does not fit.
        """
        self.metrics = {name: _metric(name) for name in ([metrics] if isinstance(metrics, str) else metrics)}
        names = [metric.detector for metric in self.metrics.values() if isinstance(metric, FeatureMetric)]
        weights = weights or {}
        detectors = load_detectors(names, device, {n: file for n, file in weights.items() if n not in BACKBONES})
        lpips = {name: load_lpips(device, name, weights.get(name)) for name in self.metrics if name in BACKBONES}
        self._lpips_infos = [lpips_info(name, weights.get(name)) for name in lpips]
        for name, metric in self.metrics.items():
            if isinstance(metric, FeatureMetric):
                info = detectors[metric.detector].info
                moments = None if reference is None else reference.moments_for(metric.reference_name, info)
                if moments and metric.distance is kernel_distance:
                    raise UserError(f"{name} needs all features of the targets, a reference holds none; leave it out")
                self.metrics[name] = replace(metric, reference=moments, allow_few=allow_few, bootstrap=bootstrap)
        self._tools = Tools(torch.device(device), detectors, lpips, self._map(workers) if workers else map)
        self._accumulators: dict[str, dict[str, Any]] = {name: {} for name in self.metrics}
        self._indices: set[int] = set()
        self._size: tuple[int, int] | None = None

    def needs(self, attribute: str) -> bool:
        """Whether a metric needs this attribute of `Views`."""
        return any(attribute in metric.needs for metric in self.metrics.values() if isinstance(metric, ImageMetric))

    def check_count(self, count: int) -> None:
        """Raise UserError where `count` images are too few for a metric, before they are made or read."""
        if count < 1:
            raise UserError("there are no images to judge")
        for metric in self.metrics.values():
            if isinstance(metric, FeatureMetric):
                metric.check_count(count, self._tools.detectors[metric.detector].info.dim)

    def update(self, views: Views) -> None:
        """Measure a batch. Raises UserError where its images do not fit together or lack what a metric needs."""
        self._admit(views.indices, views.size)
        for name, metric in self.metrics.items():
            for role, values in metric.measure(views, self._tools).items():
                metric.add(self._accumulator(name, role), views.indices, values)

    def state(self) -> State:
        """What has been seen so far."""
        return State(self._accumulators, self._indices, self._size)

    def merge(self, state: State) -> None:
        """Add what another process has seen."""
        if state.size is None:
            return
        self._admit(state.indices, state.size)
        for name, by_role in state.accumulators.items():
            for role, accumulator in by_role.items():
                self._accumulator(name, role).merge(accumulator)

    def gather(self, processes: Processes) -> None:
        """Merge what all processes have seen, on each of them."""
        for rank, state in enumerate(processes.gather([self.state()])):
            if rank != processes.rank:
                self.merge(state)

    def compute(self, range_selection: str = "", notes: Sequence[str] = ()) -> Table:
        """The numbers of all images so far. Raises UserError where they are too few."""
        self.check_count(len(self._indices))
        assert self._size is not None
        results = [metric.compute(self._accumulators[name]) for name, metric in self.metrics.items()]
        detectors = [*self._lpips_infos, *(detector.info for detector in self._tools.detectors.values())]
        return Table(results, sorted(self._indices), self._size, detectors, range_selection, notes)

    def _map(self, workers: int) -> Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]:
        """`map` over processes, which start anew: a fork would inherit the locks of torch's threads. They end with
        this object."""
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        weakref.finalize(self, pool.shutdown)
        return pool.map

    def _accumulator(self, name: str, role: str) -> Any:
        by_role = self._accumulators[name]
        if role not in by_role:
            by_role[role] = self.metrics[name].accumulator()
        return by_role[role]

    def _admit(self, indices: Collection[int], size: tuple[int, int]) -> None:
        """Note new images. Raises where one has been seen before, or their size is not that of the others."""
        twice = self._indices.intersection(indices)
        if twice or len(set(indices)) < len(indices):
            raise ValueError(f"image {min(twice, default=min(indices))} comes twice")
        if self._size not in (None, size):
            raise UserError("images of {}x{} and of {}x{} pixels: all must have one size".format(*self._size, *size))
        self._indices.update(indices)
        self._size = size


def compute_metrics(
    generated: Images | Iterable[Images],
    target: Images | Iterable[Images],
    source: Images | Iterable[Images] | None = None,
    metrics: str | Sequence[str] = ("psnr", "ssim", "lpips"),
    *,
    cameras: Sequence[tuple[Camera, Camera]] | None = None,
    device: torch.device | str = "cpu",
    weights: Mapping[str, str | Path] | None = None,
    allow_few: bool = False,
    value_range: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Metrics of generated images against the true targets.

    Args:
        generated, target, source: images in any form that `as_uint8` takes, one image [3, H, W], [H, W, 3], [H, W] or
            of Pillow, or iterables of such images or batches, which are read once and need not fit into memory. Source
            views are needed by `tsed` and the joint metrics alone.
        metrics: names, see `METRICS`.
        cameras: (source, target) of every pair, at the images' size, for `tsed`.
        device, weights, allow_few: see `Evaluation`.
        value_range: black and white of floating-point images, such as (0, 1); see `as_uint8`.

    Returns: one number per metric; NaN where no image has a finite one, as the PSNR of equal images is not.
    `Evaluation` gives baselines, numbers of single images, visible and disoccluded PSNR, and works on several
    processes.
    Raises UserError where sizes or numbers of images do not fit, or numbers are not finite.
    """
    evaluation = Evaluation(metrics, device=device, weights=weights, allow_few=allow_few)
    roles = {"generated": generated, "target": target, **({} if source is None else {"source": source})}
    streams = {role: _pictures(images, value_range) for role, images in roles.items()}
    count = 0
    while batch := {role: list(islice(pictures, _CHUNK)) for role, pictures in streams.items()}:
        if len({len(pictures) for pictures in batch.values()}) > 1:
            found = " and ".join(_described(pictures) for pictures in batch.values())
            raise UserError(f"{', '.join(batch)} images differ in number: from image {count} on, {found}")
        if not batch["target"]:
            break
        images = {role: _stacked(pictures) for role, pictures in batch.items()}
        end = count + len(images["generated"])
        chosen = None if cameras is None else cameras[count:end]
        shown = images["generated"], images["target"], images.get("source")
        evaluation.update(Views(range(count, end), *shown, chosen, baseline=False))
        count = end
    return {score.name: score.generated for score in evaluation.compute().scores}


def _metric(name: str) -> ImageMetric | FeatureMetric:
    metric = IMAGE_METRICS.get(name) or FEATURE_METRICS.get(name)
    if metric is None:
        raise UserError(f"there is no metric {name!r}; known are {', '.join(METRICS)}")
    return metric


def _pictures(images: Any, value_range: tuple[float, float] | None) -> Iterator[torch.Tensor]:
    """One image, a batch, or an iterable of either, as images, uint8 [3, H, W]."""
    if isinstance(images, Image.Image):
        images = np.array(to_rgb(images))
    if not hasattr(images, "shape"):
        if isinstance(images, str | bytes | Mapping) or not isinstance(images, Iterable):
            what = "read the files first" if isinstance(images, str | bytes | Path) else "give some"
            raise UserError(f"images are arrays, tensors or images of Pillow, not {one_line(repr(images), 80)}: {what}")
        for item in images:
            yield from _pictures(item, value_range)
        return
    batch = images[None, ..., None] if images.ndim == 2 else images[None] if images.ndim == 3 else images
    for start in range(0, max(len(batch), 1), _CHUNK):
        yield from as_uint8(batch[start : start + _CHUNK], value_range)


def _stacked(pictures: Sequence[torch.Tensor]) -> torch.Tensor:
    sizes = dict.fromkeys(image_size(picture) for picture in pictures)
    if len(sizes) > 1:
        raise UserError(f"images of {' and of '.join(sizes)} pixels: all must have one size")
    return torch.stack(list(pictures))


def _described(pictures: Sequence[torch.Tensor]) -> str:
    sizes = " and ".join(dict.fromkeys(image_size(picture) for picture in pictures))
    return f"{len(pictures)} of {sizes} pixels" if pictures else "none"
