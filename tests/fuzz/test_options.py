"""A few dozen of the command lines of `tests.fuzz.options`, others in each run."""

from __future__ import annotations

import random

import click
import pytest

from dnnlib.cli import Command
from tests.fuzz.options import command_lines, fault


def test_absurd_options_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.options.MOST_S", 60.0)  # imports among it
    lines = list(command_lines())
    assert len(lines) > 1000
    faults = {name: found for name, *line in random.sample(lines, 30) if (found := fault(*line))}
    assert not faults


def test_the_attack_tells_faults() -> None:
    @click.command(cls=Command)
    def broken() -> None:
        raise KeyError("ours")

    assert "KeyError" in str(fault(broken, []))
