"""Which pairs a training run sees, those of the data that its config names or of one's own, and batches of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from datasets.config import open_pairs
from datasets.pairs import OwnPairs, PairDataset
from dnnlib.util import UserError
from torch_utils.batches import Batch, Pair, collate
from training.config import TrainingConfig
from training.stopping import ignore_stop_signals

if TYPE_CHECKING:
    from training.training_loop import Trainer

_log = logging.getLogger("training")
_MOST_BAD_PAIRS = 16  # in a row that cannot be read, before the run ends
_SUBSTITUTE = 1 << 40  # images further on is the pair that stands in for one that cannot be read: no run comes there
_SKIPPED_SAID = 5  # pairs that cannot be read are named in the log, then counted


@dataclass(frozen=True)
class RunPairs:
    """All of them raise UserError where there are none.

    Attributes:
        own: to train on, in place of the data of `config`; own_held_out: likewise, to validate on.
    """

    config: TrainingConfig
    own: Sequence[Pair] | None = None
    own_held_out: Sequence[Pair] | None = None

    def training(self) -> PairDataset:
        """Item k is pair k of the run, at its resolution."""
        if self.own is None:
            return open_pairs(self.config.training_pairs(), self.config.resolution)
        return OwnPairs(self.own, self.config.resolution, self.config.seed)

    def as_stored(self) -> PairDataset:
        """Return those to train on, photographs aside, at the size that their frames have."""
        return open_pairs(self.config.pairs("train")) if self.own is None else OwnPairs(self.own)

    def held_out(self) -> PairDataset:
        """Return those to validate on, at the run's resolution; the same ones for every seed."""
        config = self.config
        if self.own_held_out is not None:
            return OwnPairs(self.own_held_out, config.resolution)
        if self.own is not None:
            raise UserError("`validation` of a run on `pairs` of one's own needs `held_out` pairs, too")
        return open_pairs(replace(config.pairs(config.validation_split), seed=0), config.resolution)

    def shown(self) -> PairDataset:
        """Return those of sample sheets: held out where there are such, at the size that their frames have."""
        own = self.own if self.own_held_out is None else self.own_held_out
        if own is not None:
            return OwnPairs(own)
        try:
            return open_pairs(self.config.pairs("test"))
        except UserError:
            return open_pairs(self.config.pairs("train"))


class _Share(NamedTuple):
    """What a data worker hands over: a batch, or what stands in its way; and why pairs were replaced by others.

    (A UserError that a data worker raises would reach the user as the text of a traceback.)
    """

    batch: Batch | None
    error: str
    skipped: list[str]


class _StepShares(Dataset):
    """Item n is this process's share of the step that follows on n images.

    A pair that cannot be read is replaced by one that no run comes to, the same one every time.
    """

    def __init__(self, pairs: Dataset[Pair], first_share: range) -> None:
        self.pairs, self.first_share = pairs, first_share

    def __getitem__(self, images: int) -> _Share:
        skipped: list[str] = []
        try:
            return _Share(collate([self._pair(images + number, skipped) for number in self.first_share]), "", skipped)
        except UserError as error:
            return _Share(None, str(error), skipped)

    def _pair(self, number: int, skipped: list[str]) -> Pair:
        reason = ""
        for attempt in range(_MOST_BAD_PAIRS):
            try:
                return self.pairs[number + attempt * _SUBSTITUTE]
            except UserError as error:
                reason = str(error)
                skipped.append(reason)
        raise UserError(f"{_MOST_BAD_PAIRS} pairs in a row cannot be read, the last one because {reason}")


def step_batches(trainer: Trainer, pairs: PairDataset) -> Iterator[Batch]:
    """This process's share of every step to come."""
    config = trainer.config
    _log.info("training data: %s", pairs.summary())
    loader = DataLoader(
        _StepShares(pairs, trainer.image_numbers(0)),
        batch_size=None,
        sampler=range(trainer.images, config.duration, config.batch),
        num_workers=config.workers,
        worker_init_fn=ignore_stop_signals if config.workers else None,
        pin_memory=trainer.processes.device.type == "cuda",
    )
    batches: Any = iter(loader)
    try:
        for share in batches:
            for reason in share.skipped[: max(_SKIPPED_SAID - trainer.skipped, 0)]:
                _log.warning("a pair is skipped: %s", reason)
            trainer.skipped += len(share.skipped)
            if share.batch is None:
                raise UserError(share.error)
            yield share.batch
    finally:  # the traceback of an error would keep them running, and the process would wait for them for ever
        if config.workers:
            batches._shutdown_workers()
