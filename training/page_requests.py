"""What the page of view_images.py may ask for: JSON objects from a browser become typed values, or are refused.

Nothing in a request is believed. What is refused is said in words of the page, by the labels that it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, overload

from datasets.camera_files.poses import Axes, Direction
from datasets.key_frames import KeyFrame
from datasets.trajectories import PATHS, Move
from dnnlib.util import UserError
from training.path_config import Condition

MOST_FRAMES, MOST_SAMPLES = 600, 8
DEFAULT_FRAMES, DEFAULT_KEY_FRAMES = 12, 24  # of a named path, and of one through key frames
_LARGEST_NUMBER = 2**53  # that a browser counts exactly
_UNKNOWN = "this is no request that the page sends: load it again"
_MOVES = tuple(vars(Move()))
_WISHES = ("move", "path", "path_file", "keys")
# What messages of the library call by the names of parameters.
_LABELS = {
    "amount": "Amount",
    "convention": "Axes",
    "pose": "Matrices are",
    "fov": "Field of view",
    "fov_deg": "Field of view",
    "frames": "Frames",
    "scene_scale": "Scene scale",
    "trajectory": "Path",
}
_T = TypeVar("_T", bound=str)


@dataclass(frozen=True)
class NamedPath:
    """A path of `datasets.trajectories.PATHS`; `amount`: None for its own."""

    name: str
    frames: int
    amount: float | None


@dataclass(frozen=True)
class FilePath:
    """A path that a visitor brought in a file: all of it where `frames` is None."""

    frames: int | None
    convention: Axes | None
    pose: Direction | None


@dataclass(frozen=True)
class KeyPath:
    """A path through key frames."""

    keys: tuple[KeyFrame, ...]
    frames: int


@dataclass(frozen=True)
class ViewRequest:
    """A request of the page.

    Attributes:
        wish: where the camera goes.
        fov_deg: of the photograph's shorter side; None: what is known of it.
        center, crop: points of the photograph, fractions of its sides: the principal point that goes with `fov_deg`,
            and what the square is taken around; None for the middle.
        scene_scale: factor on distances.
        seed, samples, condition: how it is rendered.
        preview: a draft of a move is wanted, at once.
    """

    wish: Move | NamedPath | FilePath | KeyPath
    fov_deg: float | None
    center: tuple[float, float] | None
    crop: tuple[float, float] | None
    scene_scale: float
    seed: int
    samples: int
    condition: Condition
    preview: bool

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ViewRequest:
        """Make it from a JSON object: the fields of this class, `fov` for `fov_deg`, and one of

        `move`, the fields of a `Move`; `path`, a name, with `frames` and `amount`; `path_file`, with `frames`,
        `convention` and `pose`; `keys`, moves with a `time` each, with `frames`.

        All but that one may be left out. Raises UserError for anything else.
        """
        return cls(
            wish=_wish(values),
            fov_deg=_number(values, "fov", None),
            center=_point(values, "center"),
            crop=_point(values, "crop"),
            scene_scale=_number(values, "scene_scale", 1.0),
            seed=_whole(values, "seed", 0, _LARGEST_NUMBER, 0),
            samples=_whole(values, "samples", 1, MOST_SAMPLES, 1),
            condition=_choice(values, "condition", get_args(Condition)) or "first",
            preview=bool(values.get("preview")),
        )


def in_words_of_the_page(text: str) -> str:
    """A message with the page's labels for parameters."""
    return re.sub(r"`([a-z_]+)`", lambda match: _label(match[1]), text)


def _wish(values: Mapping[str, Any]) -> Move | NamedPath | FilePath | KeyPath:
    kinds = [kind for kind in _WISHES if values.get(kind) is not None]
    if len(kinds) != 1:
        raise UserError(_UNKNOWN)
    wish = values[kinds[0]]
    if kinds == ["move"]:
        return _move(wish)
    if kinds == ["path"]:
        if not (isinstance(wish, str) and wish in PATHS):
            raise UserError(f"there is no such path: choose {', '.join(PATHS)}, or the file of one")
        frames = _whole(values, "frames", 1, MOST_FRAMES, DEFAULT_FRAMES)
        return NamedPath(wish, frames, _number(values, "amount", None))
    if kinds == ["keys"]:
        if not isinstance(wish, list):
            raise UserError(_UNKNOWN)
        keys = tuple(KeyFrame(_number(_mapping(key), "time", 0.0), _move(key)) for key in wish)
        return KeyPath(keys, _whole(values, "frames", 2, MOST_FRAMES, DEFAULT_KEY_FRAMES))
    return FilePath(
        _whole(values, "frames", 1, MOST_FRAMES, None),
        _choice(values, "convention", get_args(Axes)),
        _choice(values, "pose", get_args(Direction)),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(_UNKNOWN)
    return value


def _move(values: object) -> Move:
    fields = _mapping(values)
    return Move(**{name: _number(fields, name, getattr(Move(), name)) for name in _MOVES})


def _point(values: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    value = values.get(name)
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2):
        raise UserError(_UNKNOWN)
    x, y = (_number({name: part}, name, -1.0) for part in value)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UserError("the square is not around a point of the photograph")
    return x, y


@overload
def _number(values: Mapping[str, Any], name: str, default: float) -> float: ...
@overload
def _number(values: Mapping[str, Any], name: str, default: None) -> float | None: ...
def _number(values: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise UserError(f"{_label(name)} is no number that could be meant")
    return float(value)


@overload
def _whole(values: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int: ...
@overload
def _whole(values: Mapping[str, Any], name: str, low: int, high: int, default: None) -> int | None: ...
def _whole(values: Mapping[str, Any], name: str, low: int, high: int, default: int | None) -> int | None:
    value = _number(values, name, default)
    if value is not None and not (value == int(value) and low <= value <= high):
        raise UserError(f"{_label(name)} is {value:g}: give a whole number from {low} to {high}")
    return None if value is None else int(value)


def _choice(values: Mapping[str, Any], name: str, choices: tuple[_T, ...]) -> _T | None:
    value = values.get(name)
    if value in (None, ""):
        return None
    if value not in choices:
        raise UserError(f"{_label(name)} can be {' or '.join(choices)}, or left out")
    return value


def _label(name: str) -> str:
    return _LABELS.get(name, name.removesuffix("_deg").capitalize())
