"""What a training run does between its steps, each every so many images: reports, metrics, snapshots, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dnnlib.util import UserError
from training.checkpoint import kimg_name, save_state
from training.loss import NVLoss
from training.model_io import save_network
from training.precond import NVPrecond
from training.reporting import RunLog, sample_sheet
from training.run_pairs import RunPairs
from training.stopping import Stopping
from training.validation import Validation

if TYPE_CHECKING:
    from training.training_loop import Trainer

# An averaged network and a range of frame gaps to metrics; it may break off where it is told that the run ends.
Evaluate = Callable[[NVPrecond, str, Stopping], dict[str, float]]

_log = logging.getLogger("training")
_RANGES = ("mid", "long")  # that metrics are reported for
_MOST_BAD_STEPS = 10  # in a row with a loss that is not finite, before the run ends


class Milestones:
    """Reports, sample sheets, metrics, snapshots and checkpoints of a run; a context, within which it trains.

    Args:
        outdir: the run folder. evaluate, sr_model: as for `train`.
        data: for the validation loss, the sample sheets and the typical depth of the views.
        is_stopping: ends an evaluation that has begun.
    """

    def __init__(
        self,
        outdir: Path,
        trainer: Trainer,
        data: RunPairs,
        evaluate: Evaluate | None,
        sr_model: NVPrecond | None,
        is_stopping: Stopping,
    ) -> None:
        self.config, self.outdir, self.trainer, self.data = trainer.config, outdir, trainer, data
        self.evaluate, self.sr_model, self.is_stopping = evaluate, sr_model, is_stopping
        validating = self.config.validation and trainer.images < self.config.duration
        self.validate = Validation(data.held_out(), trainer.processes, self.config.batch_gpu) if validating else None
        self.before = trainer.images
        self.log: RunLog | None = None

    def __enter__(self) -> Milestones:
        processes, images = self.trainer.processes, self.trainer.images
        if processes.is_main:
            self.log = RunLog(self.outdir, images, self.config.duration)
        _log.info(
            "training %s at %d images on %d processes", "goes on" if images else "starts", images, processes.world_size
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.log is not None:
            self.log.close()

    def after_step(self, stopping: bool) -> None:
        config, trainer = self.config, self.trainer
        finished = trainer.images >= config.duration
        saving = finished or stopping or self._due(config.checkpoint)
        if trainer.images // config.batch % _MOST_BAD_STEPS == 0:  # to look waits for the device
            self._check_loss()
        if self.log is not None:
            self.log.advance(trainer.images)
            if finished or self._due(config.status):
                self.log.status(trainer.images, self._values())
            if self._due(config.samples):
                sheet = sample_sheet(self.data.shown(), trainer.ema.averages[0], self.sr_model, trainer.depth_model)
                self.log.picture("samples", trainer.images, sheet)
        if finished or self._due(config.status):
            trainer.losses.clear()
        if self.validate is not None and (finished or self._due(config.validation)):
            self._record(self.validate(trainer))
        if self.log is not None:
            if finished or self._due(config.snapshot):
                self._save_snapshots()
            if saving and not int(trainer.bad_steps):  # what a run has become is not saved over what it was
                save_state(self.outdir, trainer.images, trainer.state_dict())
        if self.evaluate is not None and (finished or self._due(config.metrics)) and not stopping:
            self._report_metrics(self.evaluate)  # which takes long: what could be lost by then is saved
        self.before = trainer.images

    def _check_loss(self) -> None:
        """End a run whose loss stays not finite."""
        bad = int(self.trainer.bad_steps)
        if bad >= _MOST_BAD_STEPS:
            raise UserError(
                f"the loss was not finite in the last {bad} steps, up to {self.trainer.images} images: the last "
                f"checkpoint is kept; give a lower `lr`, or with `fp16` another `loss_scaling`"
            )

    def _due(self, every: int | None) -> bool:
        """Whether the last step crossed a multiple of `every` images."""
        return every is not None and self.trainer.images // every > self.before // every

    def _values(self) -> dict[str, float]:
        trainer = self.trainer
        values = {
            "loss": float(torch.stack(trainer.losses).double().mean()),
            "learning_rate": trainer.optimizer.param_groups[0]["lr"],
            "nonfinite_gradients": int(trainer.nonfinite),
            **({"skipped_pairs": trainer.skipped} if trainer.skipped else {}),
        }
        if trainer.processes.device.type == "cuda":
            values["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return values

    def _report_metrics(self, evaluate: Evaluate) -> None:
        values = {}
        for selection in _RANGES:
            found = evaluate(self.trainer.ema.averages[0], selection, self.is_stopping)
            if self.trainer.processes.any(self.is_stopping()):
                return  # of fewer images than was said
            values.update({f"{name}/{selection}": value for name, value in found.items()})
        self._record(values)

    def _record(self, values: Mapping[str, float]) -> None:
        if self.log is not None and values:
            self.log.record(self.trainer.images, values)

    @cached_property
    def _typical_depth(self) -> float | None:
        """That of the clips trained on, whatever their mix; measured once, in seconds."""
        from datasets.typical_depth import typical_depth

        found = typical_depth(self.data.as_stored())
        _log.info("typical depth of the views: %s", "too few points to tell" if found is None else f"{found:.2f} units")
        return found

    def _own_parts(self) -> dict[str, str]:
        """Return what took part that the config does not tell, by name."""
        loss = self.trainer.loss
        own = {"own_pairs": self.data.own, "own_loss": None if isinstance(loss, NVLoss) else loss}
        return {
            role: getattr(part, "__qualname__", type(part).__qualname__)
            for role, part in own.items()
            if part is not None
        }

    def _save_snapshots(self) -> None:
        ema, images = self.trainer.ema, self.trainer.images
        for std, average in zip(ema.stds, ema.averages, strict=True):
            average.typical_depth = self._typical_depth
            provenance = {
                "images": images,
                "ema_std": std,
                "training_options": self.config.to_dict(),
                **self._own_parts(),
            }
            path = self.outdir / f"network-snapshot-{kimg_name(images)}-{std:.3f}.safetensors"
            save_network(path, average, provenance, torch.float16)
