"""Does geometry help? The same budget for each encoding of it: train, sample, judge, by the command lines alone.

    python -m benchmarks.ablation --data=DIR --outdir=runs/ablation --duration=2400 -- --channels=16 --batch=8

DIR is a tree of frames with depth beside them. What is already there is not made again, so a longer --duration goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ["--preset=vivid-tiny-base", "--single-image-mix=0", "--no-epipolar-attn-bias"]
WITH_DEPTH = ["--depth-model=file"]
ENCODINGS = {
    "pose vector": [],
    "epipolar bias": ["--epipolar-attn-bias"],
    "depth input": ["--depth-input", *WITH_DEPTH],
    "warped coordinates": ["--warp-depth-coor", *WITH_DEPTH],
}
METRICS = ("psnr", "psnr_visible", "psnr_disoccluded", "fd_efficientnet", "tsed")


def run(script: str, *options: str) -> None:
    """One command line of the project, in a process of its own; an error ends this one, too."""
    code = subprocess.run([sys.executable, ROOT / script, *options], stdout=subprocess.DEVNULL).returncode
    if code:
        sys.exit(code)


def evaluate(name: str, options: Sequence[str], common: Sequence[str], outdir: Path, budget: dict[str, str]) -> dict:
    """Train with these options, sample the test split, and return what calc says."""
    folder = outdir / name.replace(" ", "-")
    never = ["--snapshot=1Gi", "--checkpoint=1Gi"]  # but at the end
    data, seeds = f"--data={budget['data']}", f"--seeds={budget['seeds']}"
    selection = f"--range-selection={budget['range_selection']}"
    training = [*TRAINING, *never, data, selection, f"--duration={budget['duration']}", *options, *common]
    run("train_nvs.py", *training, f"--outdir={folder}")
    snapshot = sorted(folder.glob("network-snapshot-*.safetensors"))[-1]  # the newest, with the longer average
    images = folder / f"images-{snapshot.stem}"
    sampling = [f"--net={snapshot}", data, seeds, selection, "--steps=18", "--batch=16", *WITH_DEPTH]
    run("generate_images.py", *sampling, f"--outdir={images}")
    table = folder / "metrics.json"
    judging = [f"--images={images}", f"--metrics={','.join(METRICS)}", "--baseline=warp", *WITH_DEPTH, "--allow-few"]
    run("calculate_metrics.py", "calc", *judging, f"--json={table}")
    return json.loads(table.read_text())["metrics"]


@click.command()
@click.option("--data", required=True, metavar="DIR", help="Tree of frames with depth beside them.")
@click.option("--outdir", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--duration", default="2400", show_default=True, help="Images that each network sees.")
@click.option("--seeds", default="0-63", show_default=True, help="Test pairs.")
@click.option("--range-selection", default="mid", show_default=True, help="Frame gaps, of both splits.")
@click.argument("common", nargs=-1, type=click.UNPROCESSED)
def main(outdir: Path, common: tuple[str, ...], **budget: str) -> None:
    """Train and judge one network for each encoding. COMMON: further options for train_nvs.py."""
    measured = {name: evaluate(name, options, common, outdir, budget) for name, options in ENCODINGS.items()}
    first = next(iter(measured.values()))
    rows = {name: [numbers[metric]["generated"] for metric in METRICS] for name, numbers in measured.items()}
    rows["no network: copy of the source"] = [first[metric]["copy_source"] for metric in METRICS]
    rows["no network: warp by true depth"] = [first[metric]["warp"] for metric in METRICS]
    print(f"| | {' | '.join(METRICS)} |\n|---{'|---:' * len(METRICS)}|")
    for name, numbers in rows.items():
        print(f"| {name} | {' | '.join('–' if n is None else f'{n:.2f}' for n in numbers)} |")


if __name__ == "__main__":
    main()
