"""The folder of a training run: kept to one run, checked before anything is computed, gone on from."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dnnlib.locks import sole_user
from dnnlib.text_files import read_json
from dnnlib.util import UserError, atomic_path, format_bytes, one_line, writable_directory
from training.checkpoint import load_newest_state, remove_leftovers
from training.config import TrainingConfig

if TYPE_CHECKING:
    from training.training_loop import Trainer

_BYTES_PER_PARAMETER = 4 * (1 + 2 + 2)  # of a checkpoint: weights, two moments of Adam, two averages


@contextlib.contextmanager
def own_folder(config: TrainingConfig, outdir: Path, trainer: Trainer) -> Iterator[None]:
    """Keep the folder to this run within the block, and refuse what would go wrong later.

    That is an unwritable folder, a full disk, another run's folder, and one that a run is at work in.
    """
    problem = ""
    with contextlib.ExitStack() as stack:
        if trainer.processes.is_main:
            try:
                stack.enter_context(sole_user(writable_directory(outdir), "training"))
                _check_folder(config, outdir, trainer)
                remove_leftovers(outdir)
            except UserError as error:
                problem = str(error)
        problem = trainer.processes.gather([problem])[0]
        if problem:
            raise UserError(problem)
        yield


def _check_folder(config: TrainingConfig, outdir: Path, trainer: Trainer) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.net.parameters())
    needed, free = 3 * _BYTES_PER_PARAMETER * parameters, shutil.disk_usage(outdir).free
    if free < needed:
        raise UserError(
            f"{outdir} has {format_bytes(free)} left and checkpoints need {format_bytes(needed)}: "
            f"make room or choose another `outdir`"
        )
    options = outdir / "training_options.json"
    if options.exists():
        try:
            different = config.differences(read_json(options))
        except (UserError, AttributeError, TypeError):
            raise UserError(f"{options} is damaged: choose another `outdir`") from None
        if different:
            raise UserError(f"{outdir} holds a run with other options ({different[0]}): choose another `outdir`")
    with atomic_path(options) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")


def resume(trainer: Trainer, outdir: Path) -> None:
    """Bring the trainer to the newest state in the folder, the same one on every process."""
    state = load_newest_state(outdir)
    if state is not None:
        try:
            trainer.load_state_dict(state)
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            reason = one_line(str(error).partition("\n")[0] or type(error).__name__)
            raise UserError(
                f"the training state of {state['images']} images in {outdir} does not fit this run ({reason}): "
                f"move it away or choose another `outdir`"
            ) from None
    seen = trainer.processes.gather([trainer.images])
    if len(set(seen)) > 1:
        raise UserError(
            f"processes find states of {min(seen)} to {max(seen)} images in {outdir}: "
            f"give an `outdir` that all machines see"
        )
