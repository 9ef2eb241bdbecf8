"""What a run, of training or of sampling, will take before it has any data: parameters, memory, FLOP, time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dnnlib.util import format_bytes, format_seconds
from torch_utils.batches import Batch
from torch_utils.distributed import Processes
from torch_utils.geometry_vector import GEOMETRY_DIM
from torch_utils.memory import memory_limit
from torch_utils.random import SeededGenerators
from training.batching import MemoryNeed, fitting_batch, measure_memory, probe
from training.config import TrainingConfig
from training.generation import NovelViewSampler

_STATE_BYTES = 4 * (1 + 1 + 2 + 2)  # float32 weights, gradients, two moments of Adam, two averages
_SHARE_OF_PEAK = 0.5  # convolutions of these shapes reach about half of what one large matmul does
_PROBE_SECONDS = 0.3


def estimate(config: TrainingConfig, device: torch.device, world_size: int) -> dict[str, Any]:
    """Parameters; GiB per process (state and activations of one micro-batch); GFLOP and images per second of a step.

    Activations and FLOP are counted on a step of two images without data (the meta device), memory then scales with
    the micro-batch. Speed is half of what a large matmul reaches on this device now: an estimate, not a measurement.
    """
    with torch.device("meta"):
        net = config.build_network()
        views = torch.zeros(2, 3, config.resolution, config.resolution, dtype=torch.uint8)
        depth = torch.ones(2, 1, config.resolution, config.resolution)
        batch = Batch(views, views, torch.zeros(2, GEOMETRY_DIM), depth)
    net.requires_grad_(True).train()
    saved: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as flops, saved_tensors_hooks(count, lambda tensor: tensor):
        config.build_loss()(net, batch, SeededGenerators([0, 1])).sum().backward()
    parameters = sum(parameter.numel() for parameter in net.parameters())
    share = max(config.batch // world_size, 1)
    micro_batch = min(config.batch_gpu or share, share)
    activations = max(sum(saved.values()) - 4 * parameters, 0) / 2 * micro_batch
    flop_per_image = flops.get_total_flops() / 2
    rate = _matmul_rate(device, getattr(torch, config.precision))
    return {
        "parameters": parameters,
        "gib_per_process": round((_STATE_BYTES * parameters + activations) / 2**30, 2),
        "gflop_per_image": round(flop_per_image / 1e9, 2),
        "images_per_second_estimate": round(_SHARE_OF_PEAK * rate * world_size / flop_per_image, 2),
    }


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int = 1024) -> float:
    """FLOP/s of square matrix products."""
    a = torch.randn(side, side, device=device).to(dtype)
    count, start = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - start < _PROBE_SECONDS:
        float((a @ a)[0, 0])  # reading a number waits for the device
        count += 1
        if count == 2:  # the first two warm up
            start = time.perf_counter()
    return (count - 2) * 2 * side**3 / (time.perf_counter() - start)


@dataclass(frozen=True)
class NetworkEstimate:
    """One network of a sampler: how many parameters it has, and for an image its evaluations, FLOP and seconds."""

    parameters: int
    evaluations: int
    flop: float
    seconds: float


@dataclass(frozen=True)
class SamplingEstimate:
    """What `estimate_sampling` finds.

    Attributes:
        networks: by role, those that are evaluated.
        batch: images at once, for which the rest holds; memory: what they need on the device.
        fitting_batch: what `choose_batch` would take, were there no end of images.
    """

    networks: dict[str, NetworkEstimate]
    batch: int
    memory: MemoryNeed
    fitting_batch: int

    @property
    def seconds(self) -> float:
        """For an image, in one process."""
        return sum(network.seconds for network in self.networks.values())

    def to_text(self, images: int, processes: Processes) -> str:
        """A table for people; `images` are made in all."""
        device, need = processes.device, self.memory
        rows = [(role, net.parameters, net.evaluations, net.flop, net.seconds) for role, net in self.networks.items()]
        sums = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
        lines = [f"{'an image':10}{'parameters':>14}{'evaluations':>13}{'GFLOP':>11}{'seconds':>10}"]
        for role, parameters, evaluations, flop, seconds in [*rows, ("all", *sums)]:
            lines.append(f"{role:10}{parameters:14,}{evaluations:13}{flop / 1e9:11,.2f}{seconds:10.3f}")
        at_once, each, there = map(format_bytes, (need.of(self.batch), need.per_image, memory_limit(device)))
        time = format_seconds(self.seconds * -(-images // processes.world_size))
        return "\n".join(
            [
                *lines,
                f"memory    {at_once} at batch {self.batch}, {each} of it for each image at once; {there} there",
                f"fits      batch {self.fitting_batch}, which batch auto takes of as many images or more",
                f"in all    {images} images: {time} on {processes.world_size} x {device.type}",
            ]
        )


def estimate_sampling(sampler: NovelViewSampler, batch: int | Literal["auto"], images: int) -> SamplingEstimate:
    """Probe the networks, each alone, on this device; `images`, how many one process is to make, limits the batch.

    What a sample takes grows linearly with its evaluations, so one of one evaluation and one of two tell it.
    """
    memory = measure_memory(sampler)
    fitting = fitting_batch(sampler, memory)
    size = min(fitting, images, fitting if batch == "auto" else batch)
    networks: dict[str, NetworkEstimate] = {}
    for role, evaluations in sampler.evaluations.items():
        net = sampler.networks[role]
        alone = NovelViewSampler(net, depth_model=sampler.depth_model)
        probe(alone, size)  # warms up
        networks[role] = NetworkEstimate(
            parameters=sum(parameter.numel() for parameter in net.parameters()),
            evaluations=evaluations,
            flop=_extrapolate(partial(count_flop, alone, 1), evaluations),
            seconds=_extrapolate(partial(_seconds, alone, size), evaluations) / size,
        )
    return SamplingEstimate(networks, size, memory, fitting)


def count_flop(sampler: NovelViewSampler, batch: int, evaluations: int) -> int:
    """FLOP, see `flop_of`, for so many images."""
    return flop_of(lambda: probe(sampler, batch, evaluations))


def flop_of(function: Callable[[], object]) -> int:
    """FLOP of matrix products and convolutions, a multiplication and an addition being two."""
    # Neither fused attention nor what was compiled is counted.
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.compiler.set_stance("force_eager"),
    ):
        function()
    return counter.get_total_flops()


def _extrapolate(cost: Callable[[int], float], evaluations: int) -> float:
    """cost(evaluations), from those of one and two; where noise makes two no dearer, two times so many halves."""
    one, two = cost(1), cost(2)
    return one + (two - one) * (evaluations - 1) if two > one else two * evaluations / 2


def _seconds(sampler: NovelViewSampler, batch: int, evaluations: int) -> float:
    """The least of as many tries as there is time for, since a busy machine only ever adds to it."""
    tries: list[float] = []
    while not tries or sum(tries) < _PROBE_SECONDS:
        start = time.perf_counter()
        probe(sampler, batch, evaluations)  # gives images on the CPU: it waits for the device
        tries.append(time.perf_counter() - start)
    return min(tries)
