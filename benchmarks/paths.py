"""generate_images.py along camera paths: seconds and memory over the number of frames, and what chaining frames gains.

    python -m benchmarks.paths --image=photo.jpg --image=more/

Every line is one run of the command in a process of its own, so seconds include its start. Photographs are all those
named; the first one is timed. The numbers of neighbouring frames are those that the command reports, averaged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from datasets.user_image import photograph_files

SCRIPT = Path(__file__).resolve().parents[1] / "generate_images.py"
KINDS = {
    "first, fresh noise": ["--condition=first", "--fresh-noise"],
    "first": ["--condition=first"],
    "chain": ["--condition=chain"],
    "stochastic": ["--condition=stochastic"],
}


def run(*arguments: str) -> tuple[float, float]:
    """Seconds, and the most memory it held in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, SCRIPT, *arguments], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"generate_images.py failed: {' '.join(arguments)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # getrusage(2): bytes there, KiB elsewhere
    return time.perf_counter() - start, usage.ru_maxrss / unit


def mean(numbers: list[float | None]) -> str:
    told = [number for number in numbers if number is not None]
    return f"{sum(told) / len(told):6.2f}" if told else "     -"


@click.command()
@click.option("--preset", default="vivid-tiny", show_default=True)
@click.option("--image", "images", multiple=True, required=True, help="Photograph, or a folder of them.")
@click.option("--frames", multiple=True, type=int, default=(24, 240), show_default=True, help="To be timed.")
@click.option("--paths", default="pan,truck", show_default=True, help="To compare the ways of conditioning on.")
@click.option("--path-frames", default=8, show_default=True, help="Frames of each of these.")
def main(preset: str, images: tuple[str, ...], frames: tuple[int, ...], paths: str, path_frames: int) -> None:
    """Print two tables."""
    files = [str(file.resolve()) for file in photograph_files(images).values()]
    with TemporaryDirectory() as folder:
        print("frames  seconds  MiB")
        for count in frames:
            seconds, mib = run(
                f"--preset={preset}", f"--image={files[0]}", f"--frames={count}", f"--outdir={folder}/{count}"
            )
            print(f"{count:6d}  {seconds:7.1f}  {mib:.0f}", flush=True)
        print(f"\n{'path':10}{'condition':20}  TSED    PSNR of turned neighbours, dB")
        given = [f"--image={file}" for file in files]
        for path in paths.split(","):
            for kind, options in KINDS.items():
                out = Path(folder, path, kind)
                command = [f"--preset={preset}", *given, f"--trajectory={path}", f"--frames={path_frames}", *options]
                run(*command, f"--outdir={out}")
                reports = [json.loads(file.read_text())["neighbours"] for file in out.rglob("trajectory.json")]
                tsed, psnr = ([report[name] for report in reports] for name in ("tsed", "psnr_db"))
                print(f"{path:10}{kind:20}{mean(tsed)}  {mean(psnr)}", flush=True)


if __name__ == "__main__":
    main()
