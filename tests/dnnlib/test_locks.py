"""dnnlib.locks: one process at a time, also after one was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib import locks
from dnnlib.locks import sole_user, turn
from dnnlib.util import UserError
from tests.scripts import ROOT


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    code = (
        "import sys, os, time; from dnnlib.locks import sole_user, turn\n"
        "with sole_user(sys.argv[1], 'run'):\n"
        "    if os.fork() == 0: os.close(1); time.sleep(9); os._exit(0)\n"
        "    print('here', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"here\n"
        yield process
        process.kill()


def test_another_process_is_refused_while_one_is_at_work(
    holder: subprocess.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_WAIT_S", 0.1)
    with pytest.raises(UserError, match="another run is at work in"), sole_user(tmp_path, "run"):
        pass
    holder.stdin.close()
    holder.wait(timeout=120)
    with sole_user(tmp_path, "run"):
        pass


def test_a_killed_process_lets_go_though_its_children_live(holder: subprocess.Popen, tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with sole_user(tmp_path, "run"):
        pass


def test_a_turn_is_waited_for_and_that_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; from dnnlib.locks import turn\n"
        "with turn(sys.argv[1]):\n"
        "    print('here', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path / "x.lock"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"here\n"
        told = []

        def on_wait() -> None:
            told.append(process.poll())
            process.stdin.close()

        with turn(tmp_path / "x.lock", on_wait):
            assert told == [None]
            process.wait(timeout=60)
    with turn(tmp_path / "x.lock", lambda: pytest.fail("nobody is there")):
        pass


def test_where_nothing_can_be_locked_it_is_said_and_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    for lock in (sole_user(tmp_path, "run"), turn(tmp_path / "x.lock")):
        caplog.clear()
        with lock:
            assert "cannot be locked" in caplog.text
