"""Files and folders that one process at a time may write to. Nothing else in the project locks any."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dnnlib.util import UserError, one_line

_log = logging.getLogger(__name__)
_FILE = ".lock"
_WAIT_S = 5.0  # for the helpers of a process that was killed


@contextmanager
def sole_user(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Within the block no other process is in one for this folder, which must exist; a killed process lets go of it.

    Raises UserError, which says that another `what` is at work there, where one is.
    """
    lock = FileLock(Path(folder) / _FILE)
    if not _acquire(lock, _WAIT_S):
        raise UserError(f"another {what} is at work in {one_line(folder)}: wait for its end, or choose another folder")
    with _held(lock):
        yield


@contextmanager
def turn(file: str | os.PathLike[str], on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Within the block no other process is in one for this lock file; where one is, it calls `on_wait` and waits."""
    lock = FileLock(file)
    if not _acquire(lock, 0):
        if on_wait is not None:
            on_wait()
        _acquire(lock, None)
    with _held(lock):
        yield


def _acquire(lock: FileLock, timeout_s: float | None) -> bool:
    """Whether the lock is ours now. On file systems without locks it warns, and they are as good as ours."""
    try:
        lock.acquire(timeout=-1 if timeout_s is None else timeout_s)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        _log.warning("%s cannot be locked (%s): take care that nobody else writes there", lock.lock_file, error)
    return True


@contextmanager
def _held(lock: FileLock) -> Iterator[None]:
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()
