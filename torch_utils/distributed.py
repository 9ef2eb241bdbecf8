"""One process, torchrun on one machine, or many machines: the same calls. Built on accelerate's state.

DataLoaders are never handed to accelerate: this project's `datasets` package would shadow the library of that name.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed

from dnnlib.util import UserError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # that accelerate looks for
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def best_device() -> str:
    """The best kind of device present: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def fast_dtype(device: torch.device | str) -> torch.dtype | None:
    """Return the dtype whose arithmetic beats float32 on a device; None: the one that a network is made for."""
    on_cpu = torch.device(device).type == "cpu"
    return torch.bfloat16 if on_cpu and torch.cpu._is_avx512_bf16_supported() else None  # all with AMX have it, too


@dataclass(frozen=True)
class Processes:
    """The processes of this run and this one's place among them.

    Attributes:
        rank, world_size: number of this process and how many there are.
        device: where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device
    _state: PartialState

    @property
    def is_main(self) -> bool:
        """Rank 0: the one that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's items: every world_size-th."""
        return list(items[self.rank :: self.world_size])

    def barrier(self) -> None:
        self._state.wait_for_everyone()

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes, in order of rank, on every process."""
        from accelerate.utils import gather_object

        return gather_object(items)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes, on every process."""
        from accelerate.utils import reduce

        return reduce(value, reduction="mean")

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process: one answer for all."""
        return flag if self.world_size == 1 else bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def close(self) -> None:
        """Leave together: none ends while another, or a thread of its own, is still busy with what was last shared."""
        self.barrier()
        self._state.destroy_process_group()


def start_processes(device: str | None = None) -> Processes:
    """Join the processes that torchrun started, or be alone. Device: "cpu", "cuda", "cuda:1", "mps"; None: the best.

    Raises UserError where the device is not there.
    """
    _check_launcher()
    try:
        wanted = torch.device(device or best_device())
    except RuntimeError:
        raise UserError(f"unknown device {device!r}: use cpu, cuda, cuda:N or mps") from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(wanted.type, False):
        raise UserError(f"device {device!r} is not available here: use one of {[k for k, v in present.items() if v]}")
    from accelerate import PartialState

    _rejoin("nccl" if wanted.type == "cuda" else "gloo")
    state = PartialState(cpu=wanted.type == "cpu")
    alone = state.num_processes == 1
    if wanted.type == "cuda" and wanted.index is not None:
        if not alone:
            raise UserError(f"`device` {device} names one GPU for all processes: use `device` cuda")
        if wanted.index >= torch.cuda.device_count():
            raise UserError(f"device {device!r} is not available here: there are {torch.cuda.device_count()} GPUs")
    atexit.register(_leave)
    return Processes(state.process_index, state.num_processes, wanted if alone else state.device, state)


def _check_launcher() -> None:
    """Raise UserError where the environment says that there are others, and not where: torchrun says it all."""
    if distributed.is_initialized():
        return
    sizes = {name: os.environ[name] for name in _SIZES if os.environ.get(name, "1") != "1"}
    if sizes or "LOCAL_RANK" in os.environ:
        missing = [name for name in _TORCHRUN if not os.environ.get(name)]
        wrong = [name for name in (*_SIZES, "RANK", "LOCAL_RANK") if not os.environ.get(name, "0").isdecimal()]
        if missing or wrong:
            name = next(iter(sizes), "LOCAL_RANK")
            raise UserError(
                f"{name}={os.environ[name]} is set, but not by torchrun ({(wrong or missing)[0]} is missing or no "
                f"number): start with torchrun, or unset {name}"
            )


def _leave() -> None:
    """End the threads of the process group where an error left `close` out: one that is still busy when the interpreter
    is gone ends the process with SIGABRT."""
    if distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def _rejoin(backend: str) -> None:
    """Join the processes that torchrun started anew after one of them died; nothing at the first start.

    torch's own way of joining may find in the store the addresses of those that are gone: keys of every attempt get a
    prefix of their own.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if attempt == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or distributed.is_initialized():
        return
    store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    distributed.init_process_group(
        backend,
        store=distributed.PrefixStore(f"attempt_{attempt}", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
