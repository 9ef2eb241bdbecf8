"""What several tests of metrics judge, and with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from datasets.synthetic import Synthetic
from metrics.views import Views
from torch_utils.batches import Pair
from training.generation import GeneratedBatch
from training.results import RunFolder


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


def write_run(folder: Path, pairs: list[Pair], images: torch.Tensor, subdirs: bool = False, first: int = 0) -> Path:
    """The folder that generate_images would have written for these images."""
    run = RunFolder(folder, {"range_selection": "5-15", "split": "test"}, subdirs=subdirs)
    run.save(GeneratedBatch(list(range(first, first + len(pairs))), pairs, images))
    run.begin()
    return folder


def save_tiny_dinov2(folder: Path) -> Path:
    """The real architecture, small and with random weights: 32 features. Skips the test without its package."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=28, image_size=56
    )
    torch.manual_seed(0)
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


def photographs(side: int = 64) -> torch.Tensor:
    """Real photographs that scikit-image carries: uint8 [4, 3, side, side]."""
    images = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    return torch.stack(
        [torch.from_numpy(np.array(image[50 : 50 + side, 100 : 100 + side])) for image in images]
    ).permute(0, 3, 1, 2)


def noisy(images: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * sigma
    return (images + noise).clip(0, 255).to(torch.uint8)
