"""Command line: pack a data set, to be read fast."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dnnlib.cli import Command, IntList, option

SOURCE, FORMAT, RUN = "Source", "Format", "Run"
_CODECS = ("jpeg", "webp", "png")
_PHOTOGRAPH_SIZE = "512"  # what single-image training starts from
_EXAMPLES = 5


@click.command(cls=Command)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@option("--split", "splits", section=SOURCE, metavar="NAME", multiple=True, help="Only this split; may be repeated.")
@option(
    "--from-videos",
    section=SOURCE,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Cut the frames from the videos here, <youtube id>.mp4 and the like; SRC holds the camera files.",
)
@option("--photographs", section=SOURCE, is_flag=True, help="SRC is a folder of single photographs.")
@option(
    "--size",
    "sizes",
    section=FORMAT,
    type=IntList(),
    metavar="LIST",
    help=f"Sides of the squares to store.  [default: 256,64; photographs: {_PHOTOGRAPH_SIZE}]",
)
@option("--codec", section=FORMAT, type=click.Choice(_CODECS), default="jpeg", help="webp and png lose nothing.")
@option("--quality", section=FORMAT, type=click.IntRange(1, 100), default=95, metavar="N", help="Of jpeg.")
@option(
    "--workers",
    section=RUN,
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    metavar="N",
    help="Processes; the bytes do not depend on it.",
)
@option("--verify", section=RUN, is_flag=True, help="Read everything back afterwards.")
def main(
    source: Path, destination: Path, splits: tuple[str, ...], from_videos: Path | None, photographs: bool,
    sizes: list[int] | None, codec: str, quality: int, workers: int, verify: bool,
) -> None:  # fmt: skip
    """Pack SRC, in any layout that `python -m datasets.doctor` knows, into DST.

    What is cut short goes on where it was when the same command is given again.

    \b
    python -m datasets.pack data data-packed
    python -m datasets.pack cameras data-packed --from-videos=videos
    python -m datasets.pack photos photos-packed --photographs
    """
    from functools import partial

    from tqdm import tqdm

    from datasets.pack_writer import open_sources, write_pack
    from datasets.packed import Recipe, verify_pack
    from dnnlib.util import UserError, one_line, parse_int_list

    sizes = sizes or parse_int_list(_PHOTOGRAPH_SIZE if photographs else "256,64")
    recipe = Recipe(tuple(sizes), codec, quality, clips_per_shard=1024 if photographs else 32)
    if destination.resolve() == source.resolve():
        raise UserError("SRC and DST are one folder; pack into another one")
    empty = []
    for name, clips in open_sources(source, splits, from_videos, photographs).items():
        folder = destination / name
        bar = partial(tqdm, desc=name or source.name, unit="shard", disable=None)
        skipped = write_pack(clips, folder, recipe, workers, bar)
        click.echo(f"{one_line(folder)}: {len(clips.names)} clips" + (f", left out: {len(skipped)}" if skipped else ""))
        for what, why in list(skipped.items())[:_EXAMPLES]:
            click.echo(f"  {one_line(what)}: {one_line(why)}")
        if skipped.keys() >= set(clips.names):
            empty.append(str(folder))
        if verify:
            problems = list(verify_pack(folder, workers))
            if problems:
                raise UserError(f"{folder} cannot be read back: {problems[0]} (and {len(problems) - 1} more)")
            click.echo(f"{folder}: every frame was read back")
    if empty:
        raise UserError(f"no clip could be packed into {', '.join(empty)}")


if __name__ == "__main__":
    main()
