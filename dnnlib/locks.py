"""Folders that one process at a time may write to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
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

    Raises UserError, which says that another `what` is at work there, where one is. On file systems without locks it
    warns and goes on.
    """
    lock = FileLock(Path(folder) / _FILE)
    try:
        lock.acquire(timeout=_WAIT_S)
    except Timeout:
        raise UserError(
            f"another {what} is at work in {one_line(folder)}: wait for its end, or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        _log.warning("%s cannot be locked (%s): take care that nobody else writes to it", folder, error)
        yield
        return
    try:
        yield
    finally:
        lock.release()
