"""The golden vectors and the recipe that fills networks (tests/data/README.md)."""

from __future__ import annotations

import json
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from training.precond import NVPrecond

DATA = Path(__file__).parent / "data"

# The smallest network with all parts, for tests that need no golden numbers.
TINY = {
    "img_resolution": 16,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "channels_per_head": 8,
}


@lru_cache
def vectors() -> dict:
    return json.loads((DATA / "vectors.json").read_text())


@lru_cache
def tensors() -> dict[str, torch.Tensor]:
    return load_file(DATA / "vectors.safetensors")


def recipe(name: str, shape: tuple[int, ...] | list[int]) -> torch.Tensor:
    """The tensor that the recipe gives for a state-dict name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith(".phases"):
        return 2 * math.pi * torch.rand(shape, generator=generator)
    tensor = torch.randn(shape, generator=generator)
    if name.endswith(".freqs"):
        return tensor * 2 * math.pi
    return tensor * 0.5 if len(shape) == 0 or name.endswith("epipolar_mixing") else tensor


def fill(net: NVPrecond) -> NVPrecond:
    """The network with weights by the recipe, in evaluation mode."""
    net.load_state_dict({name: recipe(name, tensor.shape) for name, tensor in net.state_dict().items()})
    return net.eval().requires_grad_(False)


def tiny_network(**options: Any) -> NVPrecond:
    """The smallest network with weights by the recipe; `options` beside or instead of `TINY`."""
    return fill(NVPrecond(**{**TINY, **options}))


def golden_network(config: str) -> NVPrecond:
    return fill(NVPrecond(**vectors()["nets"][config]["init_kwargs"]))


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    return float((a.double() - b.double()).norm() / b.double().norm())
