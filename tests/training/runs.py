"""Small training runs for tests: in processes of their own, which can be killed, and what they leave behind."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datasets.config import open_pairs
from datasets.synthetic import SyntheticClips, write_chunks
from tests.golden import TINY
from torch_utils.batches import Batch, collate
from torch_utils.distributed import Processes, start_processes
from training.checkpoint import load_newest_state
from training.config import TrainingConfig
from training.network_config import NetworkConfig
from training.training_loop import Trainer, train

# Processes are forked from a clean one that has torch loaded: as good as new, at a tenth of the time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["training.training_loop", "accelerate", "torch.utils.tensorboard", "torch._dynamo"])


def write_data(root: Path, frames: int = 8) -> Path:
    """Both splits of a tiny data set."""
    for split in ("train", "test"):
        write_chunks(root, split, SyntheticClips(split, 3, frames=frames, width=16, height=16))
    return root


def tiny_config(data: Path, network: dict[str, Any] | None = None, **changes: Any) -> TrainingConfig:
    """A run of 12 steps, a line of `stats.jsonl` for each, a checkpoint every second."""
    defaults = dict(
        data=str(data),
        duration=48,
        batch=4,
        lr=0.02,
        decay=4,
        ramp_up=8,
        workers=0,
        status=1,
        snapshot=16,
        checkpoint=8,
    )
    return TrainingConfig(NetworkConfig.of({**TINY, **(network or {})}), **{**defaults, **changes})


class Run:
    """A training run on `world_size` processes, started at once.

    Args:
        configs: one for all processes, or one for each.
        signal_after: a signal that the first process sends itself in the step after so many images.
    """

    def __init__(
        self,
        outdir: Path,
        *configs: TrainingConfig,
        world_size: int = 1,
        signal_after: tuple[signal.Signals, int] | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        configs = configs * world_size if len(configs) == 1 else configs
        self.processes = [
            _CONTEXT.Process(target=_train, args=(config, outdir, rank, world_size, port, signal_after))
            for rank, config in enumerate(configs)
        ]
        self._outdir = outdir
        for process in self.processes:
            process.start()

    def wait(self, timeout: float = 240) -> list[int | None]:
        """Exit codes, once all processes have ended; None for one that has not: it is killed."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def errors(self) -> str:
        """What the processes wrote to standard error."""
        return "".join(_errors(self._outdir, rank).read_text() for rank in range(len(self.processes)))


def _errors(outdir: Path, rank: int) -> Path:
    return outdir.with_name(f"{outdir.name}-rank{rank}.txt")


def _train(
    config: TrainingConfig,
    outdir: Path,
    rank: int,
    world_size: int,
    port: int,
    signal_after: tuple[signal.Signals, int] | None,
) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # under nohup, or in the background, they would be ignored
        signal.signal(number, signal.SIG_DFL)
    sys.stderr = _errors(outdir, rank).open("w")
    os.dup2(sys.stderr.fileno(), 2)
    multiprocessing.set_start_method("fork", force=True)  # of data workers
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if world_size > 1:
        where = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world_size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        os.environ.update({name: str(value) for name, value in where.items()})
    if signal_after and rank == 0:
        number, images = signal_after
        step = Trainer.step

        def interrupted_step(trainer: Trainer, batch: Batch) -> None:
            if trainer.images == images:
                os.kill(os.getpid(), number)
            step(trainer, batch)

        setattr(Trainer, "step", interrupted_step)  # noqa: B010 - of this process
    logging.getLogger().setLevel(logging.INFO if rank == 0 else logging.ERROR)
    processes = start_processes("cpu")
    train(config, outdir, processes)
    processes.close()


def losses(outdir: Path) -> dict[int, float]:
    """Loss of every step, by images seen after it."""
    lines = [json.loads(line) for line in (outdir / "stats.jsonl").read_text().splitlines()]
    found = {line["images"]: line["loss"] for line in lines if "loss" in line}
    assert len(found) == sum("loss" in line for line in lines), "a step is told twice"
    return found


def final_tensors(outdir: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest state: weights, moments, averages."""
    found: dict[str, torch.Tensor] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value.clone()
        elif isinstance(value, dict):
            for key, item in value.items():
                collect(f"{name}.{key}", item)

    collect("", load_newest_state(outdir))
    return found


def relative_difference(a: dict[Any, torch.Tensor | float], b: dict[Any, torch.Tensor | float]) -> float:
    """Largest ||a - b|| / ||b|| over equally named tensors or numbers."""
    assert a.keys() == b.keys()
    pairs = [(torch.as_tensor(a[name]).double(), torch.as_tensor(b[name]).double()) for name in a]
    return max(float((x - y).norm() / y.norm().clamp_min(1e-12)) for x, y in pairs)


def state_names(outdir: Path) -> list[str]:
    return sorted(path.name for path in outdir.iterdir() if re.match(r"\.?training-state", path.name))


def after_steps(config: TrainingConfig, processes: Processes, count: int = 4) -> Trainer:
    """A trainer after some steps."""
    trainer, pairs = Trainer(config, processes), open_pairs(config.training_pairs(), config.resolution)
    for _ in range(count):
        trainer.step(collate([pairs[number] for number in trainer.image_numbers(trainer.images)]))
    return trainer


def wait_for(condition: Callable[[], bool], timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def assert_same_run(outdir: Path, whole: Path) -> None:
    """Bit by bit the same losses, and the same weights, moments and averages in the end."""
    assert losses(outdir) == losses(whole)
    mine, reference = final_tensors(outdir), final_tensors(whole)
    assert mine.keys() == reference.keys()
    assert all(torch.equal(mine[name], reference[name]) for name in reference)


def read_lines(outdir: Path) -> list[dict]:
    return [json.loads(line) for line in (outdir / "stats.jsonl").read_text().splitlines()]
