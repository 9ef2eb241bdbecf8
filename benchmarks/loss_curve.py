"""A picture of the loss of training runs over the images seen, from their stats.jsonl.

python -m benchmarks.loss_curve runs/base runs/sr --out=loss.png
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _MARGIN = 640, 320, 48
_COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"]


def read_curve(run: Path) -> list[tuple[float, float]]:
    """Images seen and loss; an interrupted run wrote some twice, and the later counts."""
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return sorted({line["images"]: line["loss"] for line in lines if "loss" in line}.items())


def draw(curves: dict[str, list[tuple[float, float]]]) -> Image.Image:
    """All curves over one axis of images; the loss from the lowest to the highest of any."""
    points = [point for curve in curves.values() for point in curve]
    most_images = max(images for images, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(picture)

    def place(images: float, loss: float) -> tuple[float, float]:
        x = _MARGIN + images / most_images * (_WIDTH - 2 * _MARGIN)
        return x, _MARGIN + (high - loss) / max(high - low, 1e-9) * (_HEIGHT - 2 * _MARGIN)

    for k in range(5):
        loss, images = low + k / 4 * (high - low), k / 4 * most_images
        pen.line([place(0, loss), place(most_images, loss)], fill="#dddddd")
        pen.text((4, place(0, loss)[1] - 6), f"{loss:.2f}", fill="black")
        pen.text((place(images, low)[0] - 16, _HEIGHT - _MARGIN + 8), f"{images / 1000:.0f}k", fill="black")
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        pen.line([place(*point) for point in curve], fill=colour, width=2)
        pen.text((place(*curve[-1])[0] + 4, place(*curve[-1])[1] - 6), name, fill=colour)
    pen.text((_MARGIN, 16), "loss (its scale is learned and has no zero) over images seen", fill="black")
    return picture


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Draw the loss of training runs."""
    draw({run.name: read_curve(run) for run in runs}).save(out)


if __name__ == "__main__":
    main()
