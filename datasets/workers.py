"""Work that is spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

_Result = TypeVar("_Result")
_task: Callable[[Any], Any]  # of a worker; sent once, since it may carry the names of a whole data set


def in_processes(task: Callable[[Any], _Result], items: Sequence[Any], workers: int) -> Iterator[_Result]:
    """`task(item)` for all items, in their order; with one worker, in this process."""
    workers = min(workers, len(items))
    if workers < 2:
        yield from map(task, items)
        return
    spawn = get_context("spawn")  # a forked torch may hang
    with ProcessPoolExecutor(workers, spawn, _start_worker, (task,)) as pool:
        yield from pool.map(_run, items)


def _start_worker(task: Callable[[Any], Any]) -> None:
    global _task
    _task = task
    torch.set_num_threads(1)


def _run(item: Any) -> Any:
    return _task(item)
