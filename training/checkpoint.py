"""Training states on disk: never half-written, the last two kept, a damaged one passed over aloud."""

from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import ZIP_DAMAGE, UserError, atomic_path, one_line
from torch_utils.tensor_files import load_tensor_file, tensors_in

_KEPT = 2
_NAME = re.compile(r"training-state-(\d+(?:\.\d+)?)\.pt")
_log = logging.getLogger("training")


def kimg_name(images: int) -> str:
    """Thousands of images as files are named by them: exact, and in order of size when sorted as text."""
    return f"{images / 1000:011.3f}"


def save_state(folder: Path, images: int, state: dict[str, Any]) -> Path:
    """Write `training-state-<kimg>.pt`, durable before it gets its name, then remove all but the last two.

    Raises UserError where it cannot be written; the states before it stay.
    """
    path = folder / f"training-state-{kimg_name(images)}.pt"
    try:
        with atomic_path(path) as temporary:
            torch.save({**state, "images": images}, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError, in words of its own
        reason = one_line(str(error).partition("\n")[0])
        raise UserError(f"cannot write {path}, the disk may be full ({reason}); make room and start again") from None
    for old in _states(folder)[:-_KEPT]:
        old.unlink()
    return path


def load_newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest state that is whole, on the CPU, or None. Nothing in it is executed."""
    for path in reversed(_states(folder)):
        try:
            state = load_tensor_file(path)
            _check_sums(path)
            if not isinstance(state, dict) or not isinstance(state.get("images"), int) or state["images"] < 0:
                raise ValueError("no state of a training")
            if not all(bool(tensor.isfinite().all()) for tensor in tensors_in(state)):
                raise ValueError("it holds numbers that are not finite")
            return state
        except (OSError, ValueError) as error:
            _log.warning("%s is damaged and passed over: %s", path, one_line(error))
    return None


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless what an optimizer remembers of a parameter has its shape, which torch takes on trust."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {list(value.shape)} for a weight of {list(parameter.shape)}")


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process was writing when it ended: temporary files of `atomic_path`."""
    for path in folder.glob(".*.tmp.*"):
        path.unlink(missing_ok=True)


def _check_sums(path: Path) -> None:
    """Raise ValueError unless every record of the archive has its checksum, which torch itself does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except ZIP_DAMAGE as error:
        raise ValueError(str(error)) from None
    if broken:
        raise ValueError(f"wrong checksum of {broken}")


def _states(folder: Path) -> list[Path]:
    """All states, oldest first."""
    found = [(match, path) for path in folder.glob("training-state-*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: float(item[0][1]))]
