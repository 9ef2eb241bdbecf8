"""Command lines in tests: within this process, which is fast, or in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
from click.testing import CliRunner, Result

ROOT = Path(__file__).resolve().parent.parent

# The tiny network of `tests.golden`, for train_nvs.py.
TINY_OPTIONS = (
    *("--resolution=16", "--channels=8", "--channel-mult=1,2", "--blocks=1", "--attn-resolutions=8"),
    "--channels-per-head=8",
)


def invoke(command: click.Command, *arguments: object) -> Result:
    """Run a command within this process. Errors that are no message for its user are raised."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def succeed(command: click.Command, *arguments: object) -> Result:
    """Run a command that must end with exit code 0."""
    result = invoke(command, *arguments)
    assert result.exit_code == 0, result.output
    return result


def error_of(command: click.Command, *arguments: object) -> str:
    """The line in which a command says why it ends with exit code 2."""
    result = invoke(command, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert (result.exit_code, len(lines)) == (2, 1), result.output
    return lines[0]


def run_python(*arguments: object, processes: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS`` from the root of the repository; more than one process of it run under torchrun."""
    # Without "--" torchrun takes options that begin like its own.
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "--"]
    command = [sys.executable, *(launcher if processes > 1 else []), *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
