"""Settings: fields of frozen dataclasses that know their help, their bounds and the option that sets them.

What a run does is a value. A field made by `setting` says once what the setting is; `Settings` checks it wherever the
value is made, and `dnnlib.cli.settings_options` makes the options of a command line of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dnnlib.util import UserError

_Settings = TypeVar("_Settings", bound="Settings")
Kind = Literal["count", "list", "range", "point"]  # 4Ki; 16,8; mid, long or 3-8; 0.3,0.5


@dataclass(frozen=True)
class Interval:
    """``Interval("(0, inf)")``: the numbers x with 0 < x < inf; square brackets include their end. NaN is in none."""

    text: str

    def __contains__(self, value: float) -> bool:
        low, high = (float(end) for end in self.text[1:-1].split(","))
        above = value >= low if self.text[0] == "[" else value > low
        return above and (value <= high if self.text[-1] == "]" else value < high)

    def __str__(self) -> str:
        return self.text


def setting(
    default: Any,
    help: str | None = None,
    *,
    option: str | None = None,
    section: str = "Options",
    kind: Kind | None = None,
    within: str | None = None,
    choices: Sequence[str] | None = None,
    **click_arguments: Any,
) -> Any:
    """A field of a `Settings` class.

    Args:
        default, help: as an option shows them; without help there is no option.
        option: its name on the command line, where that is not ``--`` and the field's with ``-`` for ``_``.
        section: the title it stands under in the help.
        kind: how people write it, where Python's own types do not say: see `dnnlib.cli`.
        within: the `Interval` of a number, or of each of several; choices: the texts it may be.
        click_arguments: more for the option, such as type and metavar.
    """
    interval = None if within is None else Interval(within)
    metadata: dict[str, Any] = dict(help=help, option=option, section=section, kind=kind, choices=choices)
    metadata |= {"within": interval, "click": click_arguments}
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """Base of frozen dataclasses whose fields are settings. Making one checks each: UserError names the field."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            check_setting(field.name, getattr(self, field.name), field.metadata)

    @classmethod
    def of(cls: type[_Settings], options: Mapping[str, Any], **values: Any) -> _Settings:
        """Make it from a mapping that may hold more than the fields, such as options; `values` go before it."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        return cls(**{**{name: options[name] for name in names if name in options}, **values})


def check_setting(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise UserError where a value is not within the bounds or choices that a field's metadata state."""
    choices, interval = metadata.get("choices"), metadata.get("within")
    for one in value if isinstance(value, (list, tuple)) else [] if value is None else [value]:
        if choices is not None and one not in choices:
            raise UserError(f"`{name}` is one of {', '.join(choices)}, not {one!r}")
        if interval is not None and one not in interval:
            raise UserError(f"`{name}` must be in {interval}, but is {one}")


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples as lists, and numbers that JSON lacks as text."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
