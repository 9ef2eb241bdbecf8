"""How many images at once: the largest batch that fits, found by trying."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from torch_utils.cameras import Camera, View
from torch_utils.memory import is_out_of_memory, memory_limit, peak_memory, release_memory
from training.generation import NovelViewSampler
from training.sampling_config import SUPER_RESOLUTION

_MOST = {"cpu": 16, "mps": 64, "cuda": 256}  # larger batches are no faster
_SHARE_OF_MEMORY = 0.9  # the rest is for what a probe does not see
_PROBE_BATCHES = (1, 2)  # the difference tells what an image takes
_FOV_DEG = 58.0

_log = logging.getLogger(__name__)


def probe(sampler: NovelViewSampler, batch: int, evaluations: int = 1) -> None:
    """Make `batch` grey images with so few evaluations of each network; memory is that of a whole sample."""
    side, depth = sampler.net.img_resolution, torch.ones(sampler.net.img_resolution, sampler.net.img_resolution)
    view = View(torch.full((3, side, side), 128, dtype=torch.uint8), Camera.from_fov(_FOV_DEG, side, side), depth)
    own: dict[str, Any] = dict.fromkeys(SUPER_RESOLUTION)
    config = replace(sampler.config, num_steps=evaluations, solver="euler", guidance_interval=None, **own)
    short = replace(sampler, config=config)
    conditioning_image = torch.zeros(batch, 3, side, side, device=sampler.device) if sampler.net.super_res else None
    short([view] * batch, [view.camera] * batch, range(batch), conditioning_image)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the sampler's device: `fixed`, for networks and whatever else, and `per_image`, for each at once."""

    fixed: float
    per_image: float

    def of(self, batch: int) -> float:
        """Bytes for a batch of so many images."""
        return self.fixed + batch * self.per_image

    def largest_batch(self, limit: float) -> int:
        """Return how many images fit into `limit` bytes, 1 at least."""
        return max(int((limit - self.fixed) / max(self.per_image, 1)), 1)


def measure_memory(sampler: NovelViewSampler) -> MemoryNeed:
    """Measure the memory that sampling takes, by two small probes."""
    small, large = (peak_memory(partial(probe, sampler, n), sampler.device) for n in _PROBE_BATCHES)
    per_image = max(large - small, 0) / (_PROBE_BATCHES[1] - _PROBE_BATCHES[0])
    return MemoryNeed(small - per_image, per_image)


def fitting_batch(sampler: NovelViewSampler, need: MemoryNeed, most: int | None = None) -> int:
    """The largest batch that fits the device, not above `most`, nor above what makes anything faster.

    On a GPU it has been tried.
    """
    device = sampler.device
    batch = min(need.largest_batch(_SHARE_OF_MEMORY * memory_limit(device)), most or _MOST[device.type])
    batch = min(batch, _MOST[device.type])
    while batch > 1 and device.type != "cpu":
        try:
            probe(sampler, batch)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        batch //= 2
    return batch


def choose_batch(wanted: int | Literal["auto"], sampler: NovelViewSampler, images: int | None = None) -> int:
    """The number, or for "auto" the largest batch that fits and that so many images fill, which is logged."""
    if wanted != "auto":
        return wanted
    if images is not None and images <= 1:
        return 1
    batch = fitting_batch(sampler, measure_memory(sampler), images)
    _log.info("batch auto: %d images at once", batch)
    return batch
