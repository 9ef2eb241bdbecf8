"""Some seconds of `tests.fuzz.readers`: every reader, files that are new in each run of hypothesis."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import attack, warm, write_originals


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict:
    found = write_originals(tmp_path_factory.mktemp("originals"))
    warm(found)
    return found


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused_in_one_line(originals: dict, seed: int) -> None:
    faults = {name: fault for name, original in originals.items() if (fault := attack(original, seed))}
    assert not faults


def test_the_attack_tells_faults(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("content")

    def broken(folder: Path) -> None:
        raise KeyError((folder / "a.txt").name)

    assert "KeyError" in str(attack((tmp_path, "a.txt", broken), 0))
