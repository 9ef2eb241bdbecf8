"""Camera paths drawn by a few key frames, as one draws them in a viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from datasets.trajectories import Move, check_frames
from dnnlib.text_files import json_document
from dnnlib.util import UserError
from torch_utils.cameras import Camera

_MOST_KEYS = 1000
_LARGEST = 1e300  # of numbers that are floats
_SHORTEST = 1e-9  # from one key frame to the next, of the whole time


@dataclass(frozen=True)
class KeyFrame:
    """Where the camera is at a time, in any unit: only the proportions of times count."""

    time: float
    move: Move


# How a key frame is written: the words of named paths, as fields of `Move`.
_WORDS = {
    "pan": "pan_deg",
    "tilt": "tilt_deg",
    "roll": "roll_deg",
    "truck": "right",
    "pedestal": "up",
    "dolly": "forward",
    "zoom": "zoom",
}
_TIME = "time"
_LIST = "key_frames"  # of a JSON file


def parse_keys(texts: Sequence[str]) -> list[KeyFrame]:
    """Key frames from ``"pan=10,truck=0.5"``, in the words and units of named paths.

    The photograph is the first, at time 0; the others follow at 1, 2, .. unless ``time=T`` says otherwise. Raises
    UserError for what is no such text.
    """
    keys = [KeyFrame(0.0, Move())]
    for number, text in enumerate(texts, start=1):
        values: dict[str, float] = {}
        for part in text.split(","):
            word, _, value = part.partition("=")
            word = word.strip()
            if word in values:
                raise UserError(f"{text!r} is no key frame: it says {word} twice")
            _check_word(word, repr(text))
            try:
                values[word] = float(value)
            except ValueError:
                raise UserError(f"{text!r} is no key frame: {part.strip()!r} lacks a number, as in pan=10") from None
        keys.append(_key_frame(values, number, repr(text)))
    return keys


def read_keys(path: str | PathLike) -> list[KeyFrame] | None:
    """Key frames from a JSON file: ``{"key_frames": [{"pan": 10, "truck": 0.5}, {"dolly": 1, "time": 3}]}``.

    Words, units and times are those of `parse_keys`. None for any other file. Raises UserError for JSON that is
    damaged, and names the key frame where one is no such thing.
    """
    path = Path(path)
    document = json_document(path)
    if not isinstance(document, dict) or _LIST not in document:
        return None
    if not isinstance(document[_LIST], list):
        raise UserError(f'{path}: "{_LIST}" is a list, as in {{"{_LIST}": [{{"pan": 10}}]}}')
    keys = [KeyFrame(0.0, Move())]
    for number, values in enumerate(document[_LIST], start=1):
        place = f"{path}: key frame {number}"
        if not isinstance(values, dict):
            raise UserError(f'{place} is no object of words and numbers, as {{"pan": 10}}')
        for word, value in values.items():
            _check_word(word, place)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{place}: {word} is no number")
        keys.append(_key_frame(values, number, place))
    return keys


def _check_word(word: str, place: str) -> None:
    if word not in (*_WORDS, _TIME):
        raise UserError(f"{place} is no key frame: write {', '.join(_WORDS)} or {_TIME}, once each, not {word!r}")


def _key_frame(values: Mapping[str, float], number: int, place: str) -> KeyFrame:
    """The key frame of known words; the photograph is that with the number 0."""
    for word, value in values.items():
        if not abs(value) <= _LARGEST:
            raise UserError(f"{place}: {word} is no number that could be meant")
    time = float(values.get(_TIME, number))
    if not time > 0:
        raise UserError(f"{place}: the photograph is the key frame at time 0; give a later time")
    return KeyFrame(time, Move(**{_WORDS[word]: float(value) for word, value in values.items() if word != _TIME}))


def key_frame_path(keys: Sequence[KeyFrame], photograph: Camera, frames: int, scene_scale: float = 1.0) -> list[Camera]:
    """`frames` cameras, evenly spaced in time, from the first key frame to the last; they go through all of them.

    Positions and the logarithm of the focal length follow monotone cubics (PCHIP; Fritsch and Butland 1984): between
    two key frames nothing goes beyond either. The camera turns from one direction to the next by the shortest way
    (slerp), its pace a monotone cubic of the angle that was turned so far.

    `scene_scale` multiplies distances. Raises UserError for fewer than two key frames, or two at one time.
    """
    check_frames(frames)
    keys = sorted(keys, key=lambda key: key.time)
    times = np.array([key.time for key in keys])
    if not 2 <= len(keys) <= _MOST_KEYS:
        raise UserError(f"{len(keys)} key frames make no path: give 2 or more")
    times = times / times[-1] if 0 < times[-1] < np.inf else times  # their proportions count
    if not np.isfinite(times).all() or not (np.diff(times) > _SHORTEST).all():
        raise UserError("two key frames are at the same time: give each a time of its own")
    at = np.linspace(times[0], times[-1], frames)
    cameras = [key.move.camera(photograph, scene_scale) for key in keys]
    rotations = _turn([camera.rotation.numpy() for camera in cameras], times, at)
    centers = _follow(np.stack([camera.center.numpy() for camera in cameras]), times, at)
    zooms = np.exp(_follow(np.log([key.move.zoom for key in keys]), times, at))
    path = []
    for rotation, center, zoom in zip(rotations, centers, zooms, strict=True):
        intrinsics = photograph.intrinsics.clone()
        intrinsics[[0, 1], [0, 1]] *= float(zoom)
        pose = torch.from_numpy(np.concatenate([rotation, -(rotation @ center)[:, None]], axis=1))
        path.append(Camera(intrinsics, pose, photograph.width, photograph.height, photograph.frame_side))
    return path


def _follow(values: np.ndarray, times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values [K] or [K, D] at `times` [K], interpolated to `at` [N]."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(times, values)(at)


def _turn(rotations: Sequence[np.ndarray], times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rotations [3, 3] at `times` [K], interpolated to `at` [N]: [N, 3, 3]."""
    from scipy.spatial.transform import Rotation

    known = Rotation.from_matrix(np.stack(rotations))
    steps = (known[:-1].inv() * known[1:]).as_rotvec()
    angles = np.concatenate([[0.0], np.cumsum(np.linalg.norm(steps, axis=1))])
    turned = _follow(angles, times, at)
    segment = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(steps) - 1)
    lengths = np.diff(angles)[segment]
    share = np.divide(turned - angles[segment], lengths, out=np.zeros_like(turned), where=lengths > 0)
    return (known[segment] * Rotation.from_rotvec(share[:, None] * steps[segment])).as_matrix()
