"""Clips held back from training, by map."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.hold_back import MAPS, main, split_index
from datasets.realestate10k import RealEstate10K
from datasets.synthetic import SyntheticClips, write_chunks


class Walks(SyntheticClips):
    """Two walks through each of two maps, named as the levels are."""

    def __init__(self) -> None:
        super().__init__("train", 4, frames=3, width=16, height=16)
        self.names = ["hall_16_00", "hall_16_01", "yard_2_16_00", "yard_2_16_01"]


def test_maps_are_held_back_whole(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_chunks(data, "train", Walks(), clips_per_chunk=3)
    for _ in range(2):  # again over what is there
        found = CliRunner().invoke(main, [f"--data={data}", f"--out={out}", "--maps=yard_2"])
        assert found.exit_code == 0, found.output
    assert RealEstate10K(out, "train", None, 16).names == ["hall_16_00", "hall_16_01"]
    held = RealEstate10K(out, "test", None, 16)
    assert held.names == ["yard_2_16_00", "yard_2_16_01"]
    assert held[0].source.image.shape == (3, 16, 16)


def test_nothing_held_back_is_said(tmp_path: Path) -> None:
    write_chunks(tmp_path / "data", "train", Walks())
    found = CliRunner().invoke(main, [f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'out'}", "--maps=cave"])
    assert found.exit_code == 2
    assert "--maps leaves nothing for test" in found.output


@pytest.mark.parametrize("name", MAPS)
def test_names_of_other_maps_that_begin_alike_stay(name: str) -> None:
    stays, held = split_index({f"{name}_128_00": "a", f"{name}2_128_00": "a"}, MAPS)
    assert (list(stays), list(held)) == ([f"{name}2_128_00"], [f"{name}_128_00"])
