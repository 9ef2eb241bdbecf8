"""The folder of a run: kept to one, checked before anything is computed, gone on from."""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dnnlib.util import UserError
from tests.training.runs import (
    Run,
    assert_same_run,
    state_names,
    tiny_config,
    wait_for,
)
from torch_utils.distributed import Processes
from training.training_loop import train


def test_what_a_killed_process_was_writing_is_removed(data: Path, processes: Processes, tmp_path: Path) -> None:
    leftover = tmp_path / ".training-state-0000000.008.0123abcd.tmp.pt"
    leftover.write_bytes(b"half")
    train(tiny_config(data, duration=4), tmp_path, processes)
    assert not leftover.exists()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path: Path) -> None:
    """In the middle of a tensor, where the file still looks whole."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content[largest.header_offset + largest.file_size // 2 + 128] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_one_bit])
def test_a_damaged_state_is_passed_over_aloud(
    data: Path, whole: Path, processes: Processes, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    train(tiny_config(data, duration=24), tmp_path, processes)
    newest = tmp_path / state_names(tmp_path)[-1]
    damage(newest)
    train(tiny_config(data), tmp_path, processes)
    assert "damaged and passed over" in (tmp_path / "log.txt").read_text()
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(data="nowhere"), "there is no data folder .*nowhere"),
        (dict(batch=8), "holds a run with other options .batch was 4 and is 8."),
        (dict(network=dict(depth_input=True), outdir="new"), "need source depth"),
        (dict(outdir="file"), "not a folder"),
        (dict(network=dict(img_resolution=17), outdir="new"), "no network can be built"),
    ],
)
def test_what_stands_against_a_run_is_said_in_one_line(
    data: Path, processes: Processes, tmp_path: Path, changes: dict, message: str
) -> None:
    train(tiny_config(data, duration=4), tmp_path, processes)
    (tmp_path / "file").touch()
    outdir = tmp_path / changes.pop("outdir", ".")
    with pytest.raises(UserError, match=message) as error:
        train(tiny_config(**{"data": data, **changes}), outdir, processes)
    assert "\n" not in str(error.value)


def test_a_second_run_in_the_folder_of_a_running_one_is_refused(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, duration=1 << 20, workers=1, snapshot=None)
    (tmp_path / "run").mkdir()
    first = Run(tmp_path / "run", config)
    try:
        wait_for(lambda: bool(state_names(tmp_path / "run")))
        leftover = tmp_path / "run" / ".training-state-0000999.000.0.tmp.pt"
        leftover.write_bytes(b"what the first is writing")
        second = Run(tmp_path / "run", config)
        assert second.wait() == [1]
        assert "another training is at work in" in second.errors()
        assert leftover.exists()
        os.kill(first.processes[0].pid, signal.SIGHUP)
        assert first.wait() == [0]
    finally:
        first.wait(0)
