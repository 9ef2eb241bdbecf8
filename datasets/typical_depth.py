"""The typical depth of the views of a data set: it tells what the unit of its poses is worth.

python -m datasets.typical_depth DIR [--split=train]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from dnnlib.cli import Command, option
from dnnlib.util import UserError

if TYPE_CHECKING:
    import numpy as np

    from torch_utils.batches import Pair

_PAIRS = 64
_SIDE = 256  # pixels at most: points are searched in squares of this size
_SMALLEST_SIDE = 64  # pixels, below which matches are chance
_EPIPOLAR_PX = 1.0  # of matches that are kept
_PARALLAX_DEG = 1.5  # at least: some ten times what a third of a pixel is seen under
_MIN_MATCHES = 100  # over all pairs


class Pairs(Protocol):
    """Pair k is a function of k alone."""

    def __getitem__(self, index: int, /) -> Pair: ...


def typical_depth(pairs: Pairs, count: int = _PAIRS) -> float | None:
    """Median z-depth, in the unit of the poses, of points that `count` pairs of views have in common.

    They are matched and triangulated under the poses, so no depth need be known. Half a second a pair. None where
    views are too small or too few points are found.
    """
    import numpy as np

    found = []
    for number in range(count):
        depths = _depths(pairs[number])
        if depths is None:
            return None
        found.append(depths)
    depths = np.concatenate(found)
    return float(np.median(depths)) if len(depths) >= _MIN_MATCHES else None


def _depths(pair: Pair) -> np.ndarray | None:
    """Depths of the points of a pair, float64 [M]; None where its views are too small."""
    from einops import rearrange

    from torch_utils.matching import match, sift, symmetric_epipolar_distance, triangulate

    side = min(_SIDE, *(min(view.camera.width, view.camera.height) for view in (pair.source, pair.target)))
    if side < _SMALLEST_SIDE:
        return None
    views = [view.square(side) for view in (pair.source, pair.target)]
    points = [sift(rearrange(view.image, "c h w -> h w c").numpy()) for view in views]
    chosen = match(*points)
    pixels = [found.pixels[column] for found, column in zip(points, chosen.T, strict=True)]
    cameras = [view.camera for view in views]
    depth, parallax = triangulate(*pixels, *cameras)
    good = (symmetric_epipolar_distance(*pixels, *cameras) < _EPIPOLAR_PX) & (parallax > _PARALLAX_DEG) & (depth > 0)
    return depth[good]


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@option("--split", default="train", help="train, test, or what the folder is called.")
def main(data: Path, split: str) -> None:
    """Print the typical depth of the views of DATA, in the unit of its poses."""
    from datasets.config import DataConfig, open_pairs

    found = typical_depth(open_pairs(DataConfig(str(data), split)))
    if found is None:
        raise UserError(f"{data}: its views are too small, or have too few points in common, to tell their depth")
    click.echo(f"typical depth {found:.2f} units")


if __name__ == "__main__":
    main()
