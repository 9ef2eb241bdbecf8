"""view_images.py as a process: what it says, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import view_images
from tests.scripts import ROOT, error_of
from tests.view_images.driving import photograph

pytest.importorskip("flask")


@contextmanager
def running(network: str, tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process and its address. Its temporary files are in tmp_path/tmp."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "view_images.py", "--net", network, "--port", "0", "--device", "cpu", *options]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    try:
        yield process, re.search(r"Open (\S+) in a browser", process.stdout.readline())[1]
    finally:
        process.kill()
        process.wait()


def ask(address: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(address, data=body), timeout=30) as answer:
        return json.load(answer)


def begin_rendering(address: str, tmp_path: Path) -> Any:
    """A path that takes minutes, begun; the stream of its news."""
    visit = f"{address}visits/{ask(address + 'visits', b'')['visit']}/"
    picture = photograph(tmp_path / "photo.png").read_bytes()
    number = ask(visit + "photographs?name=a.png", picture)["photograph"]
    result = ask(visit + "results", json.dumps({"photograph": number, "path": "pan", "frames": 600}).encode())["result"]
    news = urllib.request.urlopen(f"{visit}results/{result}/events", timeout=30)
    while b'"frame"' not in news.readline():
        pass
    return news


@pytest.mark.parametrize(
    ("host", "number", "code"), [("127.0.0.1", signal.SIGINT, 0), ("0.0.0.0", signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_signal_while_it_renders_ends_it_in_order(
    network: str, tmp_path: Path, host: str, number: signal.Signals, code: int
) -> None:
    """No abort, no traceback, no file left; also where a browser holds a connection on which it asks nothing."""
    with running(network, tmp_path, "--host", host) as (process, address):
        port, word = re.fullmatch(r"http://[a-z0-9.]+:([0-9]+)/([\w-]{22})/", address).groups()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/")
        news = begin_rendering(address, tmp_path)
        with socket.create_connection(("127.0.0.1", int(port))):
            assert list((tmp_path / "tmp").glob("view_images-*"))
            began = time.monotonic()
            process.send_signal(number)
            _, errors = process.communicate(timeout=20)
            assert time.monotonic() - began < 15  # well below the silence after which connections are dropped
        news.close()
    assert process.returncode == code
    assert list((tmp_path / "tmp").glob("view_images-*")) == []
    assert (errors.startswith("Anyone who reaches 0.0.0.0"), errors.count("\n")) == ((host == "0.0.0.0"),) * 2
    assert word not in errors


def test_a_port_in_use_is_one_line(network: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        error = error_of(view_images.main, "--net", network, "--port", port)
    assert f"Error: cannot listen at 127.0.0.1, port {port}" in error
    assert "try --port 0" in error
