"""Randomness that is named: a seed names one output, whatever the batch, the process or the device it is made in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class SeededGenerators:
    """One generator per image of a batch, so that image k depends on its own seed alone.

    Numbers are drawn on the CPU in float32 and then moved, so that every device gets the same ones.

    Args:
        seeds: one per image; each a number, or a sequence of numbers such as (seed of the run, number of the image), or
            a generator on the CPU, which is drawn from.
    """

    def __init__(self, seeds: Sequence[int | Sequence[int] | torch.Generator]) -> None:
        self._generators = [
            seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed_of(seed))
            for seed in seeds
        ]

    def __getitem__(self, images: Sequence[int]) -> SeededGenerators:
        """The same generators, of some images: what is drawn here is not drawn there."""
        return SeededGenerators([self._generators[image] for image in images])

    def randn(self, size: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """Standard normal, float32 [images, *size]."""
        return torch.stack([torch.randn(size, generator=g) for g in self._generators]).to(device)

    def randn_like(self, x: torch.Tensor) -> torch.Tensor:
        """Standard normal of the shape, dtype and device of x [images, ...]."""
        return self.randn(x.shape[1:], x.device).to(x.dtype)


def seed_of(seed: int | Sequence[int]) -> int:
    """A number stays itself; several are hashed to 64 bits by numpy's SeedSequence, the same on every platform."""
    if isinstance(seed, int):
        return seed
    state = np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)
    return int(state[0]) >> 1  # in this order: numpy 1 shifts no uint64 by an int
