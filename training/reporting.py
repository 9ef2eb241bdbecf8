"""What a training run tells: a status line, `log.txt`, `stats.jsonl`, TensorBoard, sample sheets. Rank 0 alone."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dnnlib.util import atomic_path

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

_log = logging.getLogger("training")


class Reporter:
    """Writes into a run folder; `images` is where the run starts or goes on.

    A run that goes on from a checkpoint first drops what was reported after it, so that no step is told twice.
    """

    def __init__(self, folder: Path, images: int, duration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self._stats = folder / "stats.jsonl"
        self._forget_after(images)
        self._handler = logging.FileHandler(folder / "log.txt")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(self._handler)
        self._board = SummaryWriter(str(folder), purge_step=images)
        self._bar: tqdm = tqdm(total=duration, initial=images, unit="img", unit_scale=True, smoothing=0.05)
        self._last = (time.monotonic(), images)

    def advance(self, images: int) -> None:
        """Move the progress bar to `images` seen."""
        self._bar.update(images - self._bar.n)

    def status(self, images: int, values: dict[str, float]) -> None:
        """One status line: the given numbers, and the speed since the last."""
        now = time.monotonic()
        then, before = self._last
        self._last = (now, images)
        rate = (images - before) / max(now - then, 1e-9)
        record: dict[str, Any] = {"images": images, **values, "images_per_second": round(rate, 2), "time": time.time()}
        with self._stats.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, images)
        self._board.add_scalar("images_per_second", rate, images)
        text = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        _log.info("images %d  %s  images/s %.1f", images, text, rate)
        self._bar.set_postfix_str(text.split("  ")[0], refresh=False)

    def picture(self, name: str, images: int, sheet: Image.Image) -> None:
        self._board.add_image(name, np.asarray(sheet), images, dataformats="HWC")

    def close(self) -> None:
        self._bar.close()
        self._board.close()
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()

    def _forget_after(self, images: int) -> None:
        if not self._stats.exists():
            return
        lines = self._stats.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["images"] <= images]
        if kept != lines:
            with atomic_path(self._stats) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept))
