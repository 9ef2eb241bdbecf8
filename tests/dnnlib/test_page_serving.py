"""The server's threads and the signals that end it, without networks."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from dnnlib.page import Studio, create_app, serve
from tests.dnnlib.page_stand_in import TOKEN, StandIn
from tests.scripts import ROOT

pytest.importorskip("flask")


def test_nothing_runs_after_the_end_whatever_a_client_holds_open(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        studio = Studio(tmp_path, StandIn())
        with serve(create_app(studio, TOKEN), studio, listener):
            place = listener.getsockname()
            with urllib.request.urlopen(f"http://127.0.0.1:{place[1]}/{TOKEN}/paths") as answer:
                assert answer.status == 200
            idle = [socket.create_connection(place) for _ in range(3)]
            idle[0].sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n")
            began = time.monotonic()
        assert time.monotonic() - began < 10
    assert set(threading.enumerate()) <= before
    for connection in idle:
        connection.close()


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 0), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_block_and_then_the_process(name: str, code: int) -> None:
    program = """
from dnnlib.page.serving import stop_signal
with stop_signal() as wait:
    print("ready", flush=True)
    wait()
    import os, signal
    os.kill(os.getpid(), signal.SIGINT)  # one more changes nothing
    print("in order", flush=True)
"""
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (code, "in order\n", "")
