"""Images that could not be made: a run goes on with the others, and says at the end which they are and why."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field

from dnnlib.util import IncompleteError, UserError
from torch_utils.distributed import Processes

_SHOWN, _NAMED = 5, 100  # in the line at the end: with the reason, and at all

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


class NotFinite(ArithmeticError):
    """A sample holds NaN or infinity."""

    def __init__(self) -> None:
        super().__init__("the sample is not finite: broken weights, or noise levels or guidance beyond what they bear")


@dataclass
class Failures:
    """What could not be made, and why.

    Attributes:
        reasons: by seed, or by the name of a photograph.
        unexpected: whether one of them is nothing the user's input is to blame for, so perhaps a fault of ours.
    """

    reasons: dict[int | str, str] = field(default_factory=dict)
    unexpected: bool = False

    def add(self, name: int | str, error: Exception) -> None:
        """Note a failure; the traceback of an unexpected one is logged.

        A full disk ends the run: its error is raised again, since what follows would fail, too.
        """
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise error
        self.reasons[name] = str(error).partition("\n")[0]
        if isinstance(error, NotFinite):
            self.unexpected = True
        elif not isinstance(error, UserError | OSError):
            self.reasons[name] = f"{type(error).__name__}: {self.reasons[name]}"
            self.unexpected = True
            _log.error("%s failed", _title(name), exc_info=error)

    def gather(self, processes: Processes) -> None:
        """Add what failed in the other processes, on each of them."""
        for other in processes.gather([self]):
            self.reasons.update(other.reasons)
            self.unexpected |= other.unexpected

    def check(self, total: int) -> None:
        """Say what of `total` failed, if anything did.

        Raises IncompleteError, or UserError where bad input has left nothing to be made.
        """
        if not self.reasons:
            return
        names = sorted(self.reasons, key=lambda name: (isinstance(name, str), name))
        text = "; ".join(f"{_title(name)}: {self.reasons[name]}" for name in names[:_SHOWN])
        if len(names) > _SHOWN:
            text += f"; and {len(names) - _SHOWN} more"
            text += f": {', '.join(map(str, names[_SHOWN:_NAMED]))}{', ..' if len(names) > _NAMED else ''}"
        if len(names) == total and not self.unexpected:
            raise UserError(self.reasons[names[0]] if total == 1 else f"none of {total} could be made: {text}")
        raise IncompleteError(f"{len(names)} of {total} failed: {text}")


def _title(name: int | str) -> str:
    return name if isinstance(name, str) else f"seed {name}"
