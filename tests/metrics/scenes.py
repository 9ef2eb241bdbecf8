"""Pairs of synthetic views with exact poses, as batches to judge."""

from __future__ import annotations

import torch

from datasets.synthetic import Synthetic
from metrics.definitions import Views
from torch_utils.batches import Pair


def synthetic_pairs(count: int, resolution: int = 64) -> list[Pair]:
    dataset = Synthetic("test", "5-15", resolution)
    return [dataset[index] for index in range(count)]


def views_of(pairs: list[Pair], generated: torch.Tensor | None = None, first: int = 0) -> Views:
    """The pairs with these generated images; by default the true targets."""
    target = torch.stack([pair.target.image for pair in pairs])
    return Views(
        range(first, first + len(pairs)),
        target if generated is None else generated,
        target,
        torch.stack([pair.source.image for pair in pairs]),
        [(pair.source.camera, pair.target.camera) for pair in pairs],
    )
