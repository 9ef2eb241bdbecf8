"""The server of the page: threads that are owned and joined, and the signals that end it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from dnnlib.page.studio import Studio

_SILENCE_S = 30.0  # after which a connection that neither asks nor takes is dropped
_LOOK_S = 0.2
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def serve(app: Flask, studio: Studio, listener: socket.socket) -> Iterator[None]:
    """Answer at a listening socket, and work, until the block ends; then nothing runs any more.

    Every thread is joined: those of requests end when the work does, and a connection without a request is dropped.
    """
    from werkzeug.serving import WSGIRequestHandler, make_server

    connections: set[socket.socket] = set()
    closing = threading.Event()

    class Handler(WSGIRequestHandler):
        timeout = _SILENCE_S

        def setup(self) -> None:
            super().setup()
            connections.add(self.connection)
            if closing.is_set():
                _hang_up(self.connection)

        def finish(self) -> None:
            connections.discard(self.connection)
            with suppress(OSError):
                super().finish()

        def log_request(self, *_: object) -> None:
            """Nothing: it would tell every request, with the word that nobody is to know."""

    host, port = listener.getsockname()[:2]
    server = make_server(host, port, app, threaded=True, request_handler=Handler, fd=listener.fileno())
    server.daemon_threads = False  # type: ignore[attr-defined]  # it is threaded, which its type does not tell
    thread = threading.Thread(target=server.serve_forever, name="serving")
    with studio:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
    closing.set()
    for connection in list(connections):
        _hang_up(connection)
    thread.join()


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def stop_signal() -> Iterator[Callable[[], None]]:
    """A function that waits for Ctrl+C, SIGTERM or SIGHUP, so that the block ends in order; more change nothing.

    After the block the process ends with 0 where it was Ctrl+C, otherwise with 128 and the signal's number.
    """
    received: list[int] = []

    def wait() -> None:
        # In short sleeps: the system may hand a signal to a thread that computes, which does not wake this one.
        while not received:
            time.sleep(_LOOK_S)

    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in _SIGNALS}
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and received[0] != signal.SIGINT:
        raise SystemExit(128 + received[0])
