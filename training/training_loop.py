"""The training loop: data, loss, gradient, EMA. Any number of processes, any batch_gpu, stopped and resumed at will.

Everything random is named by the seed of the run and the number of the image (pairs, noise levels, noise), so a run
does not depend on how its images are spread over processes and batches, nor on where it was interrupted. (Dropout is
the exception: its masks are named by the first image of what is computed at once.)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dnnlib.util import UserError
from torch_utils.batches import Batch, Pair
from torch_utils.depth import DepthModel, choose_depth_model
from torch_utils.distributed import Processes
from torch_utils.random import SeededGenerators, seed_of
from training.checkpoint import check_moments
from training.config import TrainingConfig
from training.layers import normalize_weights
from training.loss import Loss
from training.milestones import Evaluate, Milestones
from training.model_io import copy_weights
from training.phema import PowerFunctionEMA
from training.precond import NVPrecond
from training.reporting import logging_to
from training.run_folder import own_folder, resume
from training.run_pairs import RunPairs, step_batches
from training.schedule import learning_rate
from training.stopping import stop_signals

_Module = TypeVar("_Module", bound=nn.Module)

_log = logging.getLogger("training")
_DROPOUT = 1  # behind the name of an image: the randomness of dropout, not of its noise


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
        self.loss = own_loss or config.build_loss(base=config.load_base(device))
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
        """Return which images of the run this process takes in the step that follows on `images` seen."""
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
        if self.processes.device.type == "cpu":  # reading a number waits for nothing there, and one pass is enough
            largest = torch.stack(torch._foreach_norm(gradients, float("inf")))
            if bool(largest.isfinite().all()):
                return
        for gradient in gradients:
            self.nonfinite += gradient.numel() - gradient.isfinite().sum()
            torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def channels_last(net: _Module) -> _Module:
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
        own_folder(config, outdir, trainer),
        logging_to(outdir / "log.txt") if processes.is_main else contextlib.nullcontext(),
    ):
        resume(trainer, outdir)
        with stop_signals() as stop, Milestones(outdir, trainer, data, evaluate, sr_model, stop.is_set) as milestones:
            for batch in step_batches(trainer, data.training()):
                trainer.step(batch)
                stopping = processes.any(stop.is_set())
                milestones.after_step(stopping)
                if stopping:
                    _log.warning("stopped by signal at %d images; the same command goes on from here", trainer.images)
                    return False
    return True
