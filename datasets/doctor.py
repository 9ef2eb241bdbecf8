"""Command line: what is in a data folder, and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnnlib.cli import Command, option

if TYPE_CHECKING:
    from datasets.checks import CheckedSplit

_EXAMPLES = 3  # of each kind of finding
_CENTERED = 0.005  # of a side: so far off the middle a principal point is not worth a word


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option("--photographs", is_flag=True, help="DIR is a folder of single photographs.")
@option("--frames", type=click.IntRange(min=1), metavar="N", help="Decode at most N frames of a clip.  [default: all]")
@option("--poses", type=click.IntRange(min=0), default=8, metavar="N", help="Compare poses with frames in N clips.")
@option("--workers", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Processes.")
@option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.pass_context
def main(
    ctx: click.Context, folder: Path, photographs: bool, frames: int | None, poses: int, workers: int, as_json: bool
) -> None:
    """Check a data folder in any layout: RealEstate10K as published, pixelSplat chunks, LVSM, nerfstudio, packs.

    \b
    Exit code 0: nothing is wrong; 1: something is; 2: this is no data folder. The folder is never changed.
    python -m datasets.doctor data
    """
    import json
    from functools import partial

    from tqdm import tqdm

    from datasets.checks import check_splits
    from datasets.layouts import find_splits, photograph_split

    splits = [photograph_split(folder)] if photographs else find_splits(folder)
    found = check_splits(splits, frames, poses, workers, partial(tqdm, leave=False, disable=None))
    healthy = not any(checked.findings for checked in found)
    if as_json:
        click.echo(json.dumps({"ok": healthy, "splits": [checked.to_json() for checked in found]}, indent=2))
    else:
        for checked in found:
            _print(checked)
        click.echo("nothing is wrong" if healthy else f"{sum(len(r.findings) for r in found)} findings")
    ctx.exit(0 if healthy else 1)


def _print(checked: CheckedSplit) -> None:
    click.echo(f"{checked.split}: {checked.layout}, {_photographs(checked) if checked.single else _clips(checked)}")
    if checked.off_center > _CENTERED:
        click.echo(
            f"  principal points are up to {checked.off_center:.1%} of a side off the middle of the frame: "
            f"squares are cropped around them"
        )
    for kind, count in checked.kinds().most_common():
        click.echo(f"  {kind}: {count}")
        for example in [finding.where for finding in checked.findings if finding.kind == kind][:_EXAMPLES]:
            click.echo(f"    {example}")


def _photographs(checked: CheckedSplit) -> str:
    return f"{checked.frames} of {checked.clips} photographs"


def _clips(checked: CheckedSplit) -> str:
    short = ", ".join(f"{count} too short for {name}" for name, count in checked.too_short.items())
    fits = [fit.declared_px for fit in checked.fits.values() if fit]
    fit = f"poses fit within {max(fits):.2g} px in {len(fits)} clips" if fits else "poses could not be compared"
    return (
        f"{checked.usable} of {checked.clips} clips usable ({short}), "
        f"{checked.frames} of {checked.listed} frames, {fit if checked.fits else 'poses not compared'}"
    )


if __name__ == "__main__":
    main()
