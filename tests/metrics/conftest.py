"""Pairs that several tests of metrics judge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metrics.views import Views
from tests.metrics.scenes import noisy, synthetic_pairs, views_of
from torch_utils.batches import Pair


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    return synthetic_pairs(10)


@pytest.fixture(scope="session")
def views(pairs: list[Pair]) -> Views:
    whole = views_of(pairs)
    return replace(whole, generated=noisy(whole.target, 12))
