"""Commands in docs/evaluation.md have options that exist, with values that they take; nothing is run."""

from __future__ import annotations

import contextlib
import re
import shlex

import click
import pytest

import calculate_metrics
from tests.scripts import ROOT

TEXT = (ROOT / "docs" / "evaluation.md").read_text().replace("\\\n", " ")
COMMANDS = re.findall(r"^    python calculate_metrics\.py (.+)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_evaluation(command: str) -> None:
    name, *arguments = shlex.split(command)
    subcommand = calculate_metrics.main.commands[name]
    with contextlib.suppress(click.exceptions.Exit):  # of --protocol=list
        subcommand.make_context(name, arguments)


def test_they_are_found() -> None:
    assert len(COMMANDS) >= 10
