"""The format of a folder of pictures: names, records, run.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from dnnlib.imaging import save_png
from dnnlib.util import UserError
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View
from torch_utils.run_files import (
    PICTURE_ROLES,
    RECORD_KEY,
    PairRecord,
    Run,
    parse_picture_name,
    picture_path,
    read_record,
    read_run,
)


@pytest.fixture
def record() -> PairRecord:
    views = [View(torch.zeros(3, 16, 16, dtype=torch.uint8), Camera.from_fov(fov, 16, 16)) for fov in (60, 40)]
    return PairRecord.of(16, Pair(*views, "a clip", 9, 4))


@pytest.mark.parametrize("seed", [0, 999, 1000, 123456, 12345678])
def test_names_of_pictures_are_read_as_they_are_written(seed: int) -> None:
    for role in PICTURE_ROLES:
        assert parse_picture_name(picture_path(Path("out"), role, seed).name) == (role, seed)


def test_folders_of_a_thousand_seeds() -> None:
    assert picture_path(Path("out"), "tgt", 16) == Path("out/tgt_000016.png")
    assert picture_path(Path("out"), "src", 1999, subdirs=True) == Path("out/001000/src_001999.png")


@pytest.mark.parametrize(
    "name", ["tgt_16.jpg", "target_000016.png", "tgt_000016.png.tmp", "xtgt_000016.png", "tgt_.png"]
)
def test_other_files_are_no_pictures(name: str) -> None:
    assert parse_picture_name(name) is None


def test_a_record_is_that_of_its_pair(record: PairRecord, tmp_path: Path) -> None:
    assert (record.frames, record.gap, record.seed) == (("a clip", 9, 4), 5, 16)
    source, target = record.cameras(32, 32)  # of pictures twice as large
    assert (source.width, target.height) == (32, 32)
    torch.testing.assert_close(source.intrinsics, Camera.from_fov(60, 32, 32).intrinsics)
    torch.testing.assert_close(target.intrinsics, Camera.from_fov(40, 32, 32).intrinsics)

    file = tmp_path / "sample_000016.png"
    save_png(file, np.zeros((4, 4, 3), np.uint8), {RECORD_KEY: record.to_text()})
    assert read_record(file) == record
    save_png(file, np.zeros((4, 4, 3), np.uint8))
    assert read_record(file) is None


@pytest.mark.parametrize("change", [{"clip": None}, {"gap": "x"}, {"source_camera": 3}, {"target_index": None}])
def test_what_is_no_record_names_its_seed(record: PairRecord, change: dict) -> None:
    content = {**asdict(record), **change}
    if change == {"clip": None}:
        del content["clip"]
    with pytest.raises(ValueError, match="seed 16: "):
        PairRecord.from_dict(content)


def test_a_run_is_read_as_it_was_written(record: PairRecord, tmp_path: Path) -> None:
    assert read_run(tmp_path) is None
    run = Run({"solver": "euler", "guidance_interval": [0, 1], "pairs": "list"}, {16: record}, {"device": "cpu"})
    run.write(tmp_path)
    assert read_run(tmp_path) == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_earlier_runs_tell_what_they_did() -> None:
    """They name no solver, as there was one, and their dtype beside the options."""
    run = Run.parse(json.dumps({"options": {"seed": 3}, "dtype": "float16", "images": []}))
    assert run.options == {"solver": "heun", "guidance_interval": None, "pairs": None, "seed": 3, "dtype": "float16"}
    assert Run.parse(json.dumps({"options": {"dtype": "a"}, "dtype": "b", "images": []})).options["dtype"] == "a"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"options": 3, "images": []}', '{"options": {}, "images": [{"seed": 1}]}', "null"]
)
def test_what_no_run_has_written_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json") as error:
        read_run(tmp_path)
    assert "\n" not in str(error.value)
