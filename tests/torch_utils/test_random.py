from __future__ import annotations

import torch

from torch_utils.random import SeededGenerators, seed_of


def test_image_k_depends_on_its_own_seed_alone() -> None:
    together = SeededGenerators([3, 4, 5, 6]).randn((2, 5))
    for index, seed in enumerate([3, 4, 5, 6]):
        assert torch.equal(SeededGenerators([seed]).randn((2, 5))[0], together[index])


def test_streams_go_on_and_differ() -> None:
    generators = SeededGenerators([1, 2])
    first, second = generators.randn((4,)), generators.randn_like(torch.zeros(2, 4, dtype=torch.float64))
    assert second.dtype == torch.float64
    assert not torch.equal(first.double(), second)
    assert not torch.equal(first[0], first[1])


def test_compound_seeds_are_fixed_for_ever() -> None:
    assert seed_of(7) == 7
    assert seed_of((0, 1)) == 2918264622725855778
    assert len({seed_of((a, b)) for a in range(20) for b in range(20)}) == 400
