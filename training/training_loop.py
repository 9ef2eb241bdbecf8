"""The training loop: data, loss, gradient, EMA. Any number of processes, any batch_gpu, stopped and resumed at will.

Everything random is named by the seed of the run and the number of the image (pairs, noise levels, noise), so a run
does not depend on how its images are spread over processes and batches, nor on where it was interrupted. (Dropout is
the exception: its masks are named by the first image of what is computed at once.)
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dnnlib.locks import sole_user
from dnnlib.text_files import read_json
from dnnlib.util import UserError, atomic_path, format_bytes, one_line, writable_directory
from torch_utils.batches import Batch, Pair
from torch_utils.depth import DepthModel, choose_depth_model
from torch_utils.distributed import Processes
from torch_utils.random import SeededGenerators, seed_of
from training.checkpoint import check_moments, kimg_name, load_newest_state, remove_leftovers, save_state
from training.config import TrainingConfig
from training.layers import normalize_weights
from training.loss import Loss, NVLoss
from training.model_io import copy_weights, save_network
from training.phema import PowerFunctionEMA
from training.precond import NVPrecond
from training.reporting import Reporter, logging_to, sample_sheet
from training.run_pairs import STOP_SIGNALS, RunPairs, step_batches
from training.schedule import learning_rate
from training.validation import Validation

Stopping = Callable[[], bool]  # whether this process has been told to end
# An averaged network and a range of frame gaps to metrics; it may break off where it is told that the run ends.
Evaluate = Callable[[NVPrecond, str, Stopping], dict[str, float]]

_log = logging.getLogger("training")
_BYTES_PER_PARAMETER = 4 * (1 + 2 + 2)  # of a checkpoint: weights, two moments of Adam, two averages
_DROPOUT = 1  # behind the name of an image: the randomness of dropout, not of its noise
_RANGES = ("mid", "long")  # that metrics are reported for
_MOST_BAD_STEPS = 10  # in a row with a loss that is not finite, before the run ends


@dataclass
class Trainer:
    """A network in training and all that a step changes. One `step` is data, loss, gradient, EMA."""

    config: TrainingConfig
    processes: Processes
    own_net: InitVar[NVPrecond | None] = None  # in place of the network and the loss that the config describes
    own_loss: InitVar[Loss | None] = None
    net: NVPrecond = field(init=False)
    loss: Loss = field(init=False)
    images: int = 0  # seen so far, over all processes
    depth_model: DepthModel | None = field(init=False)
    losses: list[torch.Tensor] = field(default_factory=list)  # of the steps since somebody last cleared the list
    nonfinite: torch.Tensor = field(init=False)  # entries of the gradient replaced so far
    bad_steps: torch.Tensor = field(init=False)  # in a row, whose loss is not finite
    skipped: int = 0  # pairs of this process that could not be read since it started

    def __post_init__(self, own_net: NVPrecond | None, own_loss: Loss | None) -> None:
        config, device = self.config, self.processes.device
        if config.batch % self.processes.world_size:
            raise UserError(f"batch {config.batch} cannot be shared by {self.processes.world_size} processes")
        torch.backends.cudnn.benchmark = config.bench
        self.net = config.build_network() if own_net is None else config.adopt_network(own_net)
        if config.init is not None:
            copy_weights(config.init, self.net)
        self.net = channels_last(self.net.train().to(device))
        self.loss = own_loss or config.build_loss()
        self.depth_model = choose_depth_model(config.depth_model, config.needs_depth, device)
        self.ema = PowerFunctionEMA(self.net, config.ema_stds)
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.0, betas=(0.9, 0.99), fused=fused)
        self.nonfinite, self.bad_steps = torch.zeros(2, dtype=torch.int64, device=device).unbind()
        self._wrapped: nn.Module = self.net
        if config.compile:
            self.net.compile_parts(graphs=False)
        if self.processes.world_size > 1:
            self._wrapped = DistributedDataParallel(self.net)

    @property
    def share(self) -> int:
        """Images of a step on this process."""
        return self.config.batch // self.processes.world_size

    def image_numbers(self, images: int) -> range:
        """Which images of the run this process takes in the step that follows on `images` seen."""
        start = images + self.processes.rank * self.share
        return range(start, start + self.share)

    def step(self, batch: Batch) -> None:
        """One step on this process's share of a batch. Appends the mean loss over all processes to `losses`."""
        config, device = self.config, self.processes.device
        rate = learning_rate(self.images, config.batch, config.lr, config.decay, config.ramp_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        normalize_weights(self.net)
        mean_loss = torch.zeros([], device=device)
        for rows, is_last in self._micro_batches():
            names = [(config.seed, number) for number in self.image_numbers(self.images)[rows]]
            torch.manual_seed(seed_of((*names[0], _DROPOUT)))
            with contextlib.nullcontext() if is_last else self._no_sync():
                loss = self.loss(self._wrapped, self.with_depth(batch[rows].to(device)), SeededGenerators(names))
                loss.sum().mul(config.loss_scaling / self.share).backward()
            mean_loss += loss.detach().sum() / (loss[0].numel() * self.share)
        self._repair_gradients()
        self.optimizer.step()
        self.images += config.batch
        self.ema.update(self.net, self.images, config.batch)
        self.losses.append(self.processes.mean(mean_loss))
        self.bad_steps = torch.where(self.losses[-1].isfinite(), 0, self.bad_steps + 1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "losses": [float(loss) for loss in self.losses],
            "nonfinite": int(self.nonfinite),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        check_moments(self.optimizer)
        self.ema.load_state_dict(state["ema"])
        self.images = state["images"]
        self.losses = list(torch.tensor(state.get("losses", []), device=self.processes.device))
        self.nonfinite.fill_(state.get("nonfinite", 0))

    def with_depth(self, batch: Batch) -> Batch:
        """The batch with the depth that the model tells, or the one it carries."""
        return batch if self.depth_model is None else replace(batch, depth=self.depth_model(batch.source))

    def _micro_batches(self) -> Iterator[tuple[slice, bool]]:
        size = min(self.config.batch_gpu or self.share, self.share)
        for start in range(0, self.share, size):
            yield slice(start, min(start + size, self.share)), start + size >= self.share

    def _no_sync(self) -> contextlib.AbstractContextManager:
        """Gradients of all but the last micro-batch stay on their process."""
        wrapped = self._wrapped
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else contextlib.nullcontext()

    @torch.no_grad()
    def _repair_gradients(self) -> None:
        """Take the loss scale out, replace what is not finite by 0, and count it."""
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        if self.config.loss_scaling != 1:
            torch._foreach_div_(gradients, self.config.loss_scaling)
        for gradient in gradients:
            self.nonfinite += gradient.numel() - gradient.isfinite().sum()
            torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def channels_last(net: nn.Module) -> nn.Module:
    """The same network, with its 3x3 weights in the layout that convolutions are fastest in; activations follow.

    For 1x1 weights the layout is a matter of names alone, over which DistributedDataParallel would warn.
    """
    for parameter in net.parameters():
        if parameter.ndim == 4 and parameter[0, 0].numel() > 1:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


def train(
    config: TrainingConfig,
    outdir: str | Path,
    processes: Processes,
    *,
    pairs: Sequence[Pair] | None = None,
    held_out: Sequence[Pair] | None = None,
    net: NVPrecond | None = None,
    loss: Loss | None = None,
    evaluate: Evaluate | None = None,
    sr_model: NVPrecond | None = None,
) -> bool:
    """Train in the run folder `outdir`, going on from its newest checkpoint; returns whether the run came to its end.

    SIGTERM, SIGINT and SIGHUP end the run after the running step, with a checkpoint. Raises UserError, before anything
    is computed, where the folder, the disk, the data or an earlier run in the folder stand against it; and where the
    loss stays not finite, or the data cannot be read, with the last checkpoint kept.

    Args:
        outdir: on several machines a folder that all of them see.
        pairs, held_out: to train on and to validate on, of one's own in place of those of `config.data`.
        net: to train in place of a new one; `config.network` is what it was built with. loss: in place of `NVLoss`.
        evaluate: called every `config.metrics` images and at the end, on every process, for each published range of
            frame gaps.
        sr_model: super-resolution network behind the one in training, for sample sheets.
    """
    outdir = Path(outdir)
    trainer, data = Trainer(config, processes, net, loss), RunPairs(config, pairs, held_out)
    with (
        _own_folder(config, outdir, trainer),
        logging_to(outdir / "log.txt") if processes.is_main else contextlib.nullcontext(),
    ):
        _resume(trainer, outdir)
        with _stop_signals() as stop, _Reports(outdir, trainer, data, evaluate, sr_model, stop.is_set) as reports:
            for batch in step_batches(trainer, data.training()):
                trainer.step(batch)
                stopping = processes.any(stop.is_set())
                reports.after_step(stopping)
                if stopping:
                    _log.warning("stopped by signal at %d images; the same command goes on from here", trainer.images)
                    return False
    return True


class _Reports:
    """What happens around the steps: reports, sample sheets, metrics, snapshots, checkpoints."""

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
        self.reporter: Reporter | None = None

    def __enter__(self) -> _Reports:
        processes, images = self.trainer.processes, self.trainer.images
        if processes.is_main:
            self.reporter = Reporter(self.outdir, images, self.config.duration)
        _log.info(
            "training %s at %d images on %d processes", "goes on" if images else "starts", images, processes.world_size
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.reporter is not None:
            self.reporter.close()

    def after_step(self, stopping: bool) -> None:
        config, trainer = self.config, self.trainer
        finished = trainer.images >= config.duration
        saving = finished or stopping or self._due(config.checkpoint)
        if trainer.images // config.batch % _MOST_BAD_STEPS == 0:  # to look waits for the device
            self._check_loss()
        if self.reporter is not None:
            self.reporter.advance(trainer.images)
            if finished or self._due(config.status):
                self.reporter.status(trainer.images, self._values())
            if self._due(config.samples):
                sheet = sample_sheet(self.data.shown(), trainer.ema.averages[0], self.sr_model, trainer.depth_model)
                self.reporter.picture("samples", trainer.images, sheet)
        if finished or self._due(config.status):
            trainer.losses.clear()
        if self.validate is not None and (finished or self._due(config.validation)):
            self._record(self.validate(trainer))
        if self.reporter is not None:
            if finished or self._due(config.snapshot):
                self._save_snapshots()
            if saving and not int(trainer.bad_steps):  # what a run has become is not saved over what it was
                save_state(self.outdir, trainer.images, trainer.state_dict())
        if self.evaluate is not None and (finished or self._due(config.metrics)) and not stopping:
            self._report_metrics()  # which takes long: what could be lost by then is saved
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

    def _report_metrics(self) -> None:
        values = {}
        for selection in _RANGES:
            found = self.evaluate(self.trainer.ema.averages[0], selection, self.is_stopping)
            if self.trainer.processes.any(self.is_stopping()):
                return  # of fewer images than was said
            values.update({f"{name}/{selection}": value for name, value in found.items()})
        self._record(values)

    def _record(self, values: Mapping[str, float]) -> None:
        if self.reporter is not None and values:
            self.reporter.record(self.trainer.images, values)

    @cached_property
    def _typical_depth(self) -> float | None:
        """Of the clips trained on, whatever their mix; a matter of seconds, once."""
        from datasets.typical_depth import typical_depth

        found = typical_depth(self.data.as_stored())
        _log.info("typical depth of the views: %s", "too few points to tell" if found is None else f"{found:.2f} units")
        return found

    def _own_parts(self) -> dict[str, str]:
        """What took part that the config does not tell, by name."""
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


@contextlib.contextmanager
def _own_folder(config: TrainingConfig, outdir: Path, trainer: Trainer) -> Iterator[None]:
    """Keep the folder to this run within the block, and refuse what would go wrong later.

    That is an unwritable folder, a full disk, another run's folder, and one that a run is at work in.
    """
    problem = ""
    with contextlib.ExitStack() as stack:
        if trainer.processes.is_main:
            try:
                stack.enter_context(sole_user(writable_directory(outdir), "training"))
                _check_folder(config, outdir, trainer)
                remove_leftovers(outdir)
            except UserError as error:
                problem = str(error)
        problem = trainer.processes.gather([problem])[0]
        if problem:
            raise UserError(problem)
        yield


def _check_folder(config: TrainingConfig, outdir: Path, trainer: Trainer) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.net.parameters())
    needed, free = 3 * _BYTES_PER_PARAMETER * parameters, shutil.disk_usage(outdir).free
    if free < needed:
        raise UserError(
            f"{outdir} has {format_bytes(free)} left and checkpoints need {format_bytes(needed)}: "
            f"make room or choose another `outdir`"
        )
    options = outdir / "training_options.json"
    if options.exists():
        try:
            different = config.differences(read_json(options))
        except (UserError, AttributeError, TypeError):
            raise UserError(f"{options} is damaged: choose another `outdir`") from None
        if different:
            raise UserError(f"{outdir} holds a run with other options ({different[0]}): choose another `outdir`")
    with atomic_path(options) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")


def _resume(trainer: Trainer, outdir: Path) -> None:
    """Bring the trainer to the newest state in the folder, the same one on every process."""
    state = load_newest_state(outdir)
    if state is not None:
        try:
            trainer.load_state_dict(state)
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            reason = one_line(str(error).partition("\n")[0] or type(error).__name__)
            raise UserError(
                f"the training state of {state['images']} images in {outdir} does not fit this run ({reason}): "
                f"move it away or choose another `outdir`"
            ) from None
    seen = trainer.processes.gather([trainer.images])
    if len(set(seen)) > 1:
        raise UserError(
            f"processes find states of {min(seen)} to {max(seen)} images in {outdir}: "
            f"give an `outdir` that all machines see"
        )


@contextlib.contextmanager
def _stop_signals() -> Iterator[Event]:
    """Within the block the signals set the event instead of ending the process, but for those that are ignored."""
    stop = Event()
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
