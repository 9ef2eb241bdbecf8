"""What a training run tells: a status line, `log.txt`, `stats.jsonl`, TensorBoard, sample sheets. Rank 0 alone."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dnnlib.imaging import save_png
from dnnlib.text_files import parse_json, read_text
from dnnlib.util import UserError, atomic_path
from torch_utils.depth import DepthModel
from training.checkpoint import kimg_name
from training.generation import generate_images
from training.precond import NVPrecond
from training.results import batches_sheet

if TYPE_CHECKING:
    from PIL import Image

    from datasets.pairs import PairDataset

_log = logging.getLogger("training")


class RunLog:
    """Writes into a run folder; `images` is where the run starts or goes on, `duration` where it ends.

    A run that goes on from a checkpoint first drops what was reported after it, so that no step is told twice.
    The progress bar is for terminals alone.
    """

    def __init__(self, folder: Path, images: int, duration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        self._folder, self._duration = folder, duration
        self._stats = folder / "stats.jsonl"
        _forget_after(images, self._stats)
        self._open = ExitStack()
        self._board = SummaryWriter(str(folder), purge_step=images + 1)
        self._open.callback(self._board.close)
        self._bar = self._open.enter_context(
            tqdm(total=duration, initial=images, unit="img", unit_scale=True, smoothing=0.05, disable=None)
        )
        self._open.enter_context(logging_redirect_tqdm())
        self._last = (time.monotonic(), images)

    def advance(self, images: int) -> None:
        """Move the progress bar to `images` seen."""
        self._bar.update(images - self._bar.n)

    def status(self, images: int, values: Mapping[str, float]) -> None:
        """A status line: the given numbers, the speed since the last, and how long the run will go on at this speed."""
        now = time.monotonic()
        then, before = self._last
        self._last = (now, images)
        rate = (images - before) / max(now - then, 1e-9)
        left = timedelta(seconds=round(max(self._duration - images, 0) / rate)) if rate else "unknown"
        self.record(images, {**values, "images_per_second": rate}, f"{images / self._duration:.1%} done, {left} left")

    def record(self, images: int, values: Mapping[str, float], remark: str = "") -> None:
        """Numbers that belong to a moment of the run."""
        with self._stats.open("a") as file:
            file.write(json.dumps({"images": images, **values, "time": round(time.time(), 3)}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, images)
        text = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        _log.info("%s", "  ".join(part for part in (f"images {images}", text, remark) if part))

    def picture(self, name: str, images: int, sheet: Image.Image) -> None:
        """A sample sheet, as `<name>-<kimg>.png` and in TensorBoard."""
        save_png(self._folder / f"{name}-{kimg_name(images)}.png", sheet)
        self._board.add_image(name, np.asarray(sheet), images, dataformats="HWC")

    def close(self) -> None:
        self._open.close()


def sample_sheet(
    pairs: PairDataset,
    net: NVPrecond,
    sr_model: NVPrecond | None = None,
    depth_model: DepthModel | None = None,
    count: int = 8,
) -> Image.Image:
    """Source, sample and target of the first pairs."""
    batches = generate_images(net, pairs, range(count), sr_model=sr_model, depth_model=depth_model, num_steps=18)
    return batches_sheet(batches)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Within the block, what is logged goes to the end of this file, too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _images(line: str) -> float:
    """Return how many images a line of `stats.jsonl` is about; infinity where it is none."""
    try:
        return float(parse_json(line, "a line of stats.jsonl")["images"])
    except (UserError, TypeError, LookupError, ValueError, OverflowError):
        return math.inf


def _forget_after(images: int, stats: Path) -> None:
    """Drop the lines about more images than these, and one that was cut short."""
    if not stats.exists():
        return
    lines = read_text(stats).splitlines()
    kept = [line for line in lines if _images(line) <= images]
    if kept != lines:
        with atomic_path(stats) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
