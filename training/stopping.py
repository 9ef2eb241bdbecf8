"""Signals that end a training run, after the running step and with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from threading import Event

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))

Stopping = Callable[[], bool]  # whether this process has been told to end


@contextlib.contextmanager
def stop_signals() -> Iterator[Event]:
    """Within the block the signals set the event instead of ending the process, but for those that are ignored."""
    stop = Event()
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ignore_stop_signals(_: int) -> None:
    """Ignore the signals in a data worker, which its parent still needs to end its step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
