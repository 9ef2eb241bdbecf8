"""Hold maps back from training, to choose settings on: a data folder whose `test` is a part of another's `train`.

python -m benchmarks.hold_back --data=../shared/arena --out=runs/arena
python -m benchmarks.demo_model --preset=vivid-tiny --data=runs/arena --split=test --range-selection=16-33

Only indices are written, and links to the chunks: pixelSplat's layout. The test split of the data itself is not used.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

# Of the 57 maps that vivid-tiny learns from; none is another version of one that stays.
MAPS = ("aggressor", "am_spacecont", "ctf_compromise", "oa_dm3", "oa_shine", "oacmpdm5", "slimefac")


def split_index(index: dict[str, str], maps: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """(what stays, what is held back) of an index of clips, whose names are `<map>_<resolution>_<number>`."""
    held = {name: file for name, file in index.items() if name.rsplit("_", 2)[0] in maps}
    return {name: file for name, file in index.items() if name not in held}, held


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--maps", default=",".join(MAPS), show_default=True, help="Names of maps, with commas.")
def main(data: Path, out: Path, maps: str) -> None:
    """Split the `train` of DATA, chunks of clips, into the `train` and `test` of OUT."""
    source = (data / "train").resolve()
    parts = split_index(json.loads((source / "index.json").read_text()), tuple(maps.split(",")))
    for split, index in zip(("train", "test"), parts, strict=True):
        if not index:
            raise click.UsageError(f"--maps leaves nothing for {split}")
        (out / split).mkdir(parents=True, exist_ok=True)
        for file in sorted(set(index.values())):
            link = out / split / file
            link.unlink(missing_ok=True)
            link.symlink_to(source / file)
        (out / split / "index.json").write_text(json.dumps(index))
        click.echo(f"{out / split}: {len(index)} clips")


if __name__ == "__main__":
    main()
