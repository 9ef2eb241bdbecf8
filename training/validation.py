"""The loss on held-out pairs, which says when a network begins to learn its training pairs by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torch_utils.batches import Batch, PairSource, collate
from torch_utils.random import SeededGenerators

if TYPE_CHECKING:
    from torch_utils.distributed import Processes
    from training.training_loop import Trainer

PAIRS = 256
_AT_ONCE = 32
_SEED = 0  # of pairs, noise levels and noise: runs of other seeds are judged on the same ones


class Validation:
    """The first `PAIRS` of the pairs, kept in memory and shared by all processes.

    Pair k has its own noise level and noise, named by k alone: they are the same at every moment of every run, so that
    two losses differ by their networks alone. Nothing that training draws from is touched.
    """

    def __init__(self, pairs: PairSource, processes: Processes, at_once: int | None = None) -> None:
        numbers = processes.share(range(PAIRS))
        size = min(at_once or _AT_ONCE, _AT_ONCE)
        chunks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        self._batches: list[tuple[list[int], Batch]] = [(some, collate([pairs[k] for k in some])) for some in chunks]

    @torch.no_grad()
    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """The mean loss of each average of the network, as ``validation_loss/0.050``; a network without dropout."""
        device = trainer.processes.device
        found = {}
        for std, net in zip(trainer.ema.stds, trainer.ema.averages, strict=True):
            losses: list[tuple[int, float]] = []
            with torch.random.fork_rng([device] if device.type == "cuda" else []):  # a loss of one's own may draw
                torch.manual_seed(_SEED)
                for numbers, batch in self._batches:
                    generators = SeededGenerators([(_SEED, k) for k in numbers])
                    loss = trainer.loss(net, trainer.with_depth(batch.to(device)), generators)
                    losses += zip(numbers, loss.flatten(1).double().mean(1).tolist(), strict=True)
            every = sorted(trainer.processes.gather(losses))  # one order, whatever the processes
            found[f"validation_loss/{std:.3f}"] = sum(loss for _, loss in every) / len(every)
        return found
