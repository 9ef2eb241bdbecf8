"""Absurd values for every option of every command line: python -m tests.fuzz.options

Each command gets what else it needs, but for its data or its network, which are not there: so it ends soon, with exit
code 2 and one line. All else is a fault: a traceback, another exit code, more than 5 s of computing.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from tests.scripts import TINY_OPTIONS

MOST_S = 5.0
VALUES = (
    *("", " ", "nan", "inf", "-inf", "-1", "0", "1e999", "1e-999", "9" * 5000, "1" * 40, "18446744073709551616", "1_0"),
    *("../x", "/dev/null", "\x1b]0;x\x07", "é", "none", ",", "1,,2", "1-", "5-2", "a=b", "%s", "{}", "-", "--", "0x10"),
)
# Module, command, and arguments with which it ends where it looks for what is not there.
COMMANDS = (
    ("train_nvs", "main", (*TINY_OPTIONS, "--batch=4", "--data=nowhere", "--outdir=run", "--device=cpu")),
    ("generate_images", "main", ("--net=nowhere", "--data=nowhere", "--outdir=out", "--device=cpu")),
    ("generate_images", "main", ("--net=nowhere", "--image=nowhere.png", "--outdir=out", "--device=cpu")),
    ("calculate_metrics", "gen", ("--net=nowhere", "--data=nowhere", "--device=cpu")),
    ("calculate_metrics", "calc", ("--images=nowhere", "--device=cpu")),
    ("calculate_metrics", "ref", ("--images=nowhere", "--dest=ref.npz", "--device=cpu")),
    ("calculate_metrics", "show", ("--images=nowhere", "--device=cpu")),
    ("datasets.pack", "main", ("nowhere", "packed")),
    ("datasets.doctor", "main", ("nowhere",)),
    ("training.phema", "main", ("nowhere", "--std=0.1", "--out=out.safetensors")),
)


def command_lines() -> Iterator[tuple[str, click.Command, list[str]]]:
    """(name, command, arguments) of everything that is tried."""
    for module, name, base in COMMANDS:
        command = getattr(importlib.import_module(module), name)
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag and parameter.nargs == 1:
                for value in VALUES:
                    yield (
                        f"{module} {name} {parameter.opts[0]}={value[:30]!r}",
                        command,
                        [*base, parameter.opts[0], value],
                    )


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    """With this working directory (contextlib.chdir is of Python 3.11)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def fault(command: click.Command, arguments: list[str]) -> str | None:
    """What is wrong with how a command line ended; None where nothing is. It runs in a folder of its own."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, working_in(folder):
        result = CliRunner().invoke(command, arguments)
        left = [path.name for path in Path(folder).rglob("*.tmp*")]
    seconds = time.process_time() - start
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{type(result.exception).__name__}: {str(result.exception)[:150]}"
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    if result.exit_code not in (0, 1, 2) or (result.exit_code == 2 and len(errors) != 1):
        return f"exit code {result.exit_code}, {len(errors)} errors"
    if not all(c.isprintable() or c in "\n\r\t" for c in result.output):
        return "control characters"
    return f"left {left[0]}" if left else f"took {seconds:.1f} s" if seconds > MOST_S else None


@click.command()
@click.option("--every", type=click.IntRange(min=1), default=1, help="Try every so many of the command lines.")
def main(every: int) -> None:
    """Attack every option."""
    logging.disable()
    for _, command, arguments in list(command_lines())[:: len(VALUES)]:  # what is imported takes its seconds now
        fault(command, arguments)
    tried, faults = 0, 0
    for number, (name, command, arguments) in enumerate(command_lines()):
        if number % every == 0:
            tried += 1
            if found := fault(command, arguments):
                faults += 1
                click.echo(f"{name}: {found}")
    click.echo(f"{tried} command lines: {faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
