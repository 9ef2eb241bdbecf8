"""What a run tells, and that it tells nothing twice."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from dnnlib.imaging import read_image
from training.reporting import RunLog, logging_to


def read_stats(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


def test_status_goes_to_all_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    caplog.set_level(logging.INFO)
    log = RunLog(tmp_path, 0, 4000)
    log.advance(1000)
    with logging_to(tmp_path / "log.txt"):
        log.status(1000, {"loss": 0.5})
        log.record(1000, {"psnr/mid": 20.0})
    log.picture("samples", 1000, Image.new("RGB", (8, 4)))
    log.close()
    status, metrics = read_stats(tmp_path)
    assert (status["images"], status["loss"]) == (1000, 0.5)
    assert status["images_per_second"] > 0
    assert metrics["psnr/mid"] == 20
    assert "images_per_second" not in metrics
    log = (tmp_path / "log.txt").read_text()
    assert "images 1000  loss 0.5" in log
    assert "25.0% done" in log
    assert read_image(tmp_path / "samples-0000001.000.png").shape == (4, 8, 3)
    board = EventAccumulator(str(tmp_path)).Reload()
    assert set(board.Tags()["scalars"]) == {"loss", "images_per_second", "psnr/mid"}
    assert board.Scalars("loss")[0].step == 1000
    assert board.Tags()["images"] == ["samples"]


def test_going_on_forgets_what_comes_after(tmp_path: Path) -> None:
    lines = [json.dumps({"images": images}) for images in (4, 8, 12)]
    (tmp_path / "stats.jsonl").write_text("\n".join([*lines, '{"images": 16, "lo']))
    RunLog(tmp_path, 8, 16).close()
    assert [line["images"] for line in read_stats(tmp_path)] == [4, 8]
