"""Training states on disk: never half-written, the last two kept, a damaged one passed over aloud."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import atomic_path

_KEPT = 2
_NAME = re.compile(r"training-state-(\d+)\.pt")
_log = logging.getLogger(__name__)


def save_state(folder: Path, images: int, state: dict[str, Any]) -> Path:
    """Write `training-state-<kimg>.pt`, durable before it gets its name, then remove all but the last two."""
    path = folder / f"training-state-{images // 1000:07d}.pt"
    with atomic_path(path) as temporary:
        torch.save({**state, "images": images}, temporary)
    for old in _states(folder)[:-_KEPT]:
        old.unlink()
    return path


def load_newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest state that can be read, on the CPU, or None. Nothing in it is executed."""
    for path in reversed(_states(folder)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            _log.warning("%s is damaged and left out: %s", path, reason)
    return None


def _states(folder: Path) -> list[Path]:
    """All states, oldest first."""
    numbered = {
        int(match[1]): path for path in folder.glob("training-state-*.pt") if (match := _NAME.fullmatch(path.name))
    }
    return [numbered[number] for number in sorted(numbered)]
