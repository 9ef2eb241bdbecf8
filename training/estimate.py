"""What a training run will take, before it has any data: parameters, memory, FLOP, images per second."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from torch_utils.batches import Batch
from torch_utils.cameras import GEOMETRY_DIM
from torch_utils.random import SeededGenerators
from training.config import TrainingConfig

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
