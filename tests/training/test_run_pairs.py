"""Pairs that a run is made of: what cannot be read is replaced and counted, what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from datasets.synthetic import SyntheticClips, write_tree
from dnnlib.util import UserError
from tests.golden import TINY
from tests.training.runs import (
    tiny_config,
)
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View
from torch_utils.distributed import Processes
from training.precond import NVPrecond
from training.training_loop import train


def test_a_frame_that_cannot_be_read_is_skipped_counted_and_said(
    tmp_path: Path, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    write_tree(tmp_path / "data", "train", SyntheticClips("train", 3, frames=8, width=16, height=16))
    torn = sorted((tmp_path / "data" / "train").glob("*/*.png"))[::6]
    for frame in torn:
        frame.write_bytes(frame.read_bytes()[:60])
    config = tiny_config(tmp_path / "data", duration=48)
    with caplog.at_level("WARNING"):
        assert train(config, tmp_path / "run", processes)
    assert 1 <= caplog.text.count("a pair is skipped: ") <= 5
    assert "is not a whole image" in caplog.text
    last = (tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["skipped_pairs"] > 0

    for frame in (tmp_path / "data" / "train").glob("*/*.png"):
        frame.write_bytes(b"")
    with pytest.raises(UserError, match=r"16 pairs in a row cannot be read, the last one because .*png"):
        train(config, tmp_path / "other", processes)


def test_own_parts_that_do_not_fit_are_refused(data: Path, tmp_path: Path, processes: Processes) -> None:
    config = tiny_config(data, duration=4)
    view = View(torch.zeros(3, 16, 16, dtype=torch.uint8), Camera.from_fov(60, 16, 16))
    pairs = [Pair(view, view, "grey", 0, 1)]
    for parts, message in (
        ({"pairs": []}, "`pairs` is empty"),
        ({"pairs": [1, 2]}, "item . of `pairs` is of type int"),
        ({"net": NVPrecond(**{**TINY, "model_channels": 16})}, "give net.arguments"),
    ):
        with pytest.raises(UserError, match=message):
            train(config, tmp_path / "run", processes, **parts)
    with pytest.raises(UserError, match="needs `held_out` pairs"):
        train(dataclasses.replace(config, validation=4), tmp_path / "run", processes, pairs=pairs)
    with pytest.raises(UserError, match=r"no .*nowhere"):
        train(dataclasses.replace(config, validation=4, validation_split="nowhere"), tmp_path / "run", processes)
    assert not list((tmp_path / "run").glob("*.safetensors"))
