"""The training loop: data, loss, gradient, EMA. Any number of processes, any batch_gpu, stopped and resumed at will.

Everything random is named by the seed of the run and the number of the image (pairs, noise levels, noise), so a run
does not depend on how its images are spread over processes and batches, nor on where it was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from dnnlib.imaging import save_png
from dnnlib.util import UserError, atomic_path, format_bytes, writable_directory
from torch_utils.batches import Batch, Pair, collate
from torch_utils.distributed import Processes
from torch_utils.random import SeededGenerators, seed_of
from training.checkpoint import load_newest_state, save_state
from training.config import TrainingConfig
from training.generation import generate_images
from training.model_io import save_network
from training.phema import PowerFunctionEMA
from training.precond import NVPrecond
from training.reporting import Reporter
from training.results import batches_sheet
from training.schedule import learning_rate

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger("training")
_BYTES_PER_PARAMETER = 4 * (1 + 2 + 2)  # of a checkpoint: weights, two moments of Adam, two averages


@dataclass
class Trainer:
    """A network in training and all that a step changes. One `step` is data, loss, gradient, EMA."""

    config: TrainingConfig
    processes: Processes
    net: NVPrecond = field(init=False)
    images: int = 0  # seen so far, over all processes
    nonfinite: torch.Tensor = field(init=False)  # gradient entries replaced so far, on this process

    def __post_init__(self) -> None:
        config, device = self.config, self.processes.device
        if config.batch % self.processes.world_size:
            raise UserError(f"batch {config.batch} cannot be shared by {self.processes.world_size} processes")
        torch.backends.cudnn.benchmark = config.bench
        self.net = config.build_network().train().to(device=device, memory_format=torch.channels_last)
        self.loss = config.build_loss()
        self.ema = PowerFunctionEMA(self.net, config.ema_stds)
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.0, betas=(0.9, 0.99), fused=fused)
        self.nonfinite = torch.zeros([], dtype=torch.int64, device=device)
        self._wrapped: nn.Module = self.net
        if self.processes.world_size > 1:
            self._wrapped = DistributedDataParallel(self.net, broadcast_buffers=False)

    @property
    def share(self) -> int:
        """Images of a step on this process."""
        return self.config.batch // self.processes.world_size

    @property
    def image_numbers(self) -> range:
        """Which images of the run this process takes in the step to come."""
        start = self.images + self.processes.rank * self.share
        return range(start, start + self.share)

    def step(self, batch: Batch) -> torch.Tensor:
        """One step on this process's share of a batch; the mean loss over it, as a tensor on the device."""
        config = self.config
        rate = learning_rate(self.images, config.batch, config.lr, config.decay, config.ramp_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._seed_dropout()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros([], device=self.processes.device)
        for rows, is_last in self._micro_batches():
            with contextlib.nullcontext() if is_last else self._no_sync():
                numbers = [(config.seed, number) for number in self.image_numbers[rows]]
                part = batch[rows].to(self.processes.device)
                loss = self.loss(self._wrapped, part, SeededGenerators(numbers))
                loss.sum().mul(config.loss_scaling / self.share).backward()
            total += loss.detach().sum() / (loss[0].numel() * self.share)
        self._repair_gradients()
        self.optimizer.step()
        self.images += config.batch
        self.ema.update(self.net, self.images, config.batch)
        return total

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        self.images = state["images"]

    def _micro_batches(self) -> Iterator[tuple[slice, bool]]:
        size = min(self.config.batch_gpu or self.share, self.share)
        for start in range(0, self.share, size):
            yield slice(start, min(start + size, self.share)), start + size >= self.share

    def _no_sync(self) -> contextlib.AbstractContextManager:
        """Gradients of all but the last micro-batch stay on their process."""
        wrapped = self._wrapped
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else contextlib.nullcontext()

    def _seed_dropout(self) -> None:
        torch.manual_seed(seed_of((self.config.seed, self.images, self.processes.rank)))

    @torch.no_grad()
    def _repair_gradients(self) -> None:
        """Take the loss scale out, replace what is not finite by 0, and count it."""
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        if self.config.loss_scaling != 1:
            torch._foreach_div_(gradients, self.config.loss_scaling)
        for gradient in gradients:
            self.nonfinite += gradient.numel() - gradient.isfinite().sum()
            torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def train(
    config: TrainingConfig,
    outdir: str | Path,
    processes: Processes,
    *,
    evaluate: Callable[[NVPrecond, str], dict[str, float]] | None = None,
) -> None:
    """Train in the run folder `outdir`, going on from its newest checkpoint where it has one.

    SIGTERM and SIGINT end the run after the running step, with a checkpoint. Raises UserError, before anything is
    computed, where the folder, the disk, the data or an earlier run in the folder stand against it.

    Args:
        evaluate: called every `config.metrics` images on every process with an averaged network and a range of frame
            gaps; returns metrics by name.
    """
    outdir = Path(outdir)
    trainer = Trainer(config, processes)
    _prepare_folder(config, outdir, trainer)
    resumed = load_newest_state(outdir)
    if resumed is not None:
        trainer.load_state_dict(resumed)
        del resumed
    batches = iter(_loader(config, trainer))
    run = _Run(config, outdir, processes, trainer, evaluate)
    with _stop_signals() as stop, run:
        while trainer.images < config.duration:
            loss = trainer.step(next(batches))
            stopping = processes.any(stop.is_set())
            run.after_step(loss, last=stopping or trainer.images >= config.duration)
            if stopping:
                _log.warning("stopped by signal at %d images; the same command goes on from here", trainer.images)
                return


class _Run:
    """What happens around the steps: reports, sample sheets, metrics, snapshots, checkpoints."""

    def __init__(
        self,
        config: TrainingConfig,
        outdir: Path,
        processes: Processes,
        trainer: Trainer,
        evaluate: Callable[[NVPrecond, str], dict[str, float]] | None,
    ) -> None:
        self.config, self.outdir, self.processes, self.trainer = config, outdir, processes, trainer
        self.evaluate = evaluate
        self.losses: list[torch.Tensor] = []
        self.before = trainer.images
        self.reporter = Reporter(outdir, trainer.images, config.duration) if processes.is_main else None

    def __enter__(self) -> None:
        if self.reporter is not None:
            verb = "goes on" if self.trainer.images else "starts"
            _log.info("training %s at %d images on %d processes", verb, self.trainer.images, self.processes.world_size)

    def __exit__(self, *_: object) -> None:
        if self.reporter is not None:
            self.reporter.close()

    def after_step(self, loss: torch.Tensor, last: bool) -> None:
        config, images = self.config, self.trainer.images
        self.losses.append(loss)
        if self.reporter is not None:
            self.reporter.advance(images)
        if last or self._due(config.status):
            self._report_status()
        if self._due(config.samples):
            self._report_samples()
        if self.evaluate is not None and self._due(config.metrics):
            self._report_metrics()
        finished = images >= config.duration
        if self.reporter is not None and (finished or self._due(config.snapshot)):
            self._save_snapshots()
        if self.reporter is not None and (last or self._due(config.checkpoint)):
            save_state(self.outdir, images, self.trainer.state_dict())
        self.before = images

    def _due(self, every: int | None) -> bool:
        """Whether the last step crossed a multiple of `every` images."""
        return every is not None and self.trainer.images // every > self.before // every

    def _report_status(self) -> None:
        trainer = self.trainer
        loss = torch.stack(self.losses).double().mean()
        self.losses.clear()
        loss, nonfinite = self.processes.mean(loss), self.processes.mean(trainer.nonfinite.double())
        if self.reporter is not None:
            values = {
                "loss": loss,
                "learning_rate": trainer.optimizer.param_groups[0]["lr"],
                "nonfinite_gradients": nonfinite * self.processes.world_size,
            }
            if trainer.processes.device.type == "cuda":
                values["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self.reporter.status(trainer.images, values)

    def _report_samples(self) -> None:
        if self.reporter is not None:
            sheet = sample_sheet(self.config, self.trainer.ema.averages[0])
            save_png(self.outdir / f"samples-{self.trainer.images // 1000:07d}.png", sheet)
            self.reporter.picture("samples", self.trainer.images, sheet)
        self.processes.barrier()

    def _report_metrics(self) -> None:
        values = {}
        for selection in ("mid", "long"):
            found = self.evaluate(self.trainer.ema.averages[0], selection)
            values.update({f"{name}/{selection}": value for name, value in found.items()})
        if self.reporter is not None:
            self.reporter.status(self.trainer.images, values)

    def _save_snapshots(self) -> None:
        ema, images = self.trainer.ema, self.trainer.images
        for std, average in zip(ema.stds, ema.averages, strict=True):
            provenance = {"images": images, "ema_std": std, "training_options": self.config.to_dict()}
            path = self.outdir / f"network-snapshot-{images // 1000:07d}-{std:.3f}.safetensors"
            save_network(path, average, provenance, torch.float16)


class _StepIndices:
    """For a DataLoader: the image numbers of this process, step by step, from where the run stands to its end."""

    def __init__(self, trainer: Trainer) -> None:
        config = trainer.config
        self._first = trainer.image_numbers
        self._starts = range(0, config.duration - trainer.images, config.batch)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[list[int]]:
        for start in self._starts:
            yield [number + start for number in self._first]


def training_pairs(config: TrainingConfig) -> Dataset[Pair]:
    """Pair k of the run is item k: clips, mixed with single photographs where the config says so."""
    from datasets.realestate10k import RealEstate10K

    pairs = RealEstate10K(config.data, "train", config.range_selection, config.resolution, seed=config.seed)
    _log.info("training data: %s", pairs.summary())
    if not config.single_image_mix:
        return pairs
    from datasets.single_image import Mixed, SingleImages

    photographs = SingleImages(config.single_image_data, config.resolution, seed=config.seed)
    _log.info("single photographs: %s", photographs.summary())
    return Mixed(pairs, photographs, config.single_image_mix, seed=config.seed)


def sample_sheet(config: TrainingConfig, net: NVPrecond, count: int = 8) -> Image.Image:
    """Source, sample and target of the first pairs of the test split (train where there is none)."""
    from datasets.realestate10k import RealEstate10K

    try:
        pairs = RealEstate10K(config.data, "test", config.range_selection, resolution=None)
    except UserError:
        pairs = RealEstate10K(config.data, "train", config.range_selection, resolution=None)
    return batches_sheet(generate_images(net, pairs, range(count), num_steps=18))


def _loader(config: TrainingConfig, trainer: Trainer) -> DataLoader:
    return DataLoader(
        training_pairs(config),
        batch_sampler=_StepIndices(trainer),
        collate_fn=collate,
        num_workers=config.workers,
        worker_init_fn=_ignore_signals if config.workers else None,
        pin_memory=trainer.processes.device.type == "cuda",
    )


def _ignore_signals(_: int) -> None:
    """Data workers leave signals to their parent, which still needs them to end its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


def _prepare_folder(config: TrainingConfig, outdir: Path, trainer: Trainer) -> None:
    """Refuse what would go wrong later: an unwritable folder, a full disk, another run's folder."""
    problem = ""
    if trainer.processes.is_main:
        try:
            _check_folder(config, writable_directory(outdir), trainer)
        except UserError as error:
            problem = str(error)
    problem = trainer.processes.gather([problem])[0]
    if problem:
        raise UserError(problem)


def _check_folder(config: TrainingConfig, outdir: Path, trainer: Trainer) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.net.parameters())
    needed, free = 3 * _BYTES_PER_PARAMETER * parameters, shutil.disk_usage(outdir).free
    if free < needed:
        raise UserError(
            f"{outdir} has {format_bytes(free)} left and checkpoints need {format_bytes(needed)}: "
            f"make room or choose another --outdir"
        )
    options = outdir / "training_options.json"
    if options.exists():
        try:
            different = config.differences(json.loads(options.read_text()))
        except (json.JSONDecodeError, AttributeError):
            raise UserError(f"{options} is damaged: choose another --outdir") from None
        if different:
            raise UserError(f"{outdir} holds a run with other options ({different[0]}): choose another --outdir")
    with atomic_path(options) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")


@contextlib.contextmanager
def _stop_signals() -> Iterator[Event]:
    """Within the block SIGTERM and SIGINT set the event instead of ending the process."""
    stop = Event()
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
