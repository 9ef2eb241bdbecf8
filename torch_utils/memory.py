"""How much memory there is, how much a computation takes, and what to do where it does not suffice."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from dnnlib.util import UserError

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.002
_OUT_OF_MPS = "MPS backend out of memory"  # which earlier versions of accelerate do not know


def memory_limit(device: torch.device) -> int:
    """Bytes that this process may use on a device, those that it uses already among them.

    On a CPU, the processes of this machine share what is available.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return used_memory(device) + psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def used_memory(device: torch.device) -> int:
    """Bytes that this process uses on a device now; on a CPU, all that the process has in memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


def peak_memory(function: Callable[[], object], device: torch.device) -> int:
    """The most bytes that this process uses on a device while it runs a function.

    On a CPU under Linux the kernel tells; elsewhere, what is seen every other millisecond.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device)
    if device.type == "cpu" and _forget_peak():
        function()
        return _peak_of_process()
    peak, done = used_memory(device), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_POLL_SECONDS):
            peak = max(peak, used_memory(device))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(peak, used_memory(device))


def _forget_peak() -> bool:
    """Have Linux begin anew with the peak that it keeps of this process; False where it does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _peak_of_process() > 0
    except OSError:
        return False


def _peak_of_process() -> int:
    """Bytes, as Linux tells; 0 where it does not."""
    status = Path("/proc/self/status").read_text()
    return sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))


def release_memory() -> None:
    """Give back what the allocator of a GPU keeps for later."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory did not suffice."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and (should_reduce_batch_size(error) or _OUT_OF_MPS in str(error))


def in_parts(
    make: Callable[[Sequence[T]], R],
    items: Sequence[T],
    on_failure: Callable[[T, Exception], None] | None = None,
) -> Iterator[R]:
    """make(items); where that fails, make of each half, and so on: less fits into memory, and one item spoils no other.

    Args:
        on_failure: is told of each item that fails alone. With None such an error is raised, and halves are made only
            where memory does not suffice.

    A UserError is raised in any case, since it is about all items, and so is an error after which the GPU does nothing.
    """
    try:
        made = make(items)
    except (UserError, torch.AcceleratorError):
        raise
    except Exception as error:
        if on_failure is None and (len(items) == 1 or not is_out_of_memory(error)):
            raise
        if len(items) == 1 and on_failure is not None:
            on_failure(items[0], error)
            return
    else:
        yield made
        return
    # The error is gone by now, and with it the tensors of the attempt that failed.
    release_memory()
    half = (len(items) + 1) // 2
    for part in (items[:half], items[half:]):
        yield from in_parts(make, part, on_failure)
