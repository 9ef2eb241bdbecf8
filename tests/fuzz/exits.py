"""How two processes end, beside a busy core: python -m tests.fuzz.exits --runs=60

A thread that wants the interpreter back while it ends takes the whole process with it (SIGABRT), work done. It happens
once in many runs on a busy machine, so that a test which runs once proves nothing.
"""

from __future__ import annotations

import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from dnnlib.imaging import save_png
from tests.scripts import run_python


@click.command()
@click.option("--runs", type=click.IntRange(min=1), default=60, help="Of calculate_metrics.py calc on two processes.")
@click.option("--busy", type=click.IntRange(min=0), default=1, help="Processes that do nothing but keep a core busy.")
def main(runs: int, busy: int) -> None:
    """Count how runs of two processes end."""
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = write_results(Path(folder))
            ends = collections.Counter(end_of_run(results) for _ in range(runs))
    finally:
        for process in beside:
            process.kill()
            process.wait()
    for end, count in ends.most_common():
        click.echo(f"{count:4} of {runs}  {end}")
    sys.exit(set(ends) != {"done"})


def write_results(folder: Path) -> Path:
    """Pictures as generate_images.py writes them, of noise."""
    noise = np.random.default_rng(0)
    for seed in range(6):
        for role in ("src", "tgt", "sample"):
            save_png(folder / f"{role}_{seed:06d}.png", noise.integers(0, 256, (32, 32, 3), np.uint8))
    return folder


def end_of_run(results: Path) -> str:
    """How one run ended, in a few words."""
    arguments = ("--images", results, "--metrics=psnr,ssim", "--workers=2", "--device=cpu")
    result = run_python("calculate_metrics.py", "calc", *arguments, processes=2)
    if result.returncode == 0:
        return "done"
    found = re.search(r"terminate called without an active exception|SIGABRT|SIGSEGV", result.stderr)
    errors = [line for line in result.stderr.splitlines() if re.match(r"(\[rank\d\]: )?\w*(Error|Exception)\b", line)]
    return found[0] if found else f"exit code {result.returncode}: {next(iter(errors), result.stderr[-200:])}"


if __name__ == "__main__":
    main()
