"""Camera paths for one's own photograph: single moves in the words of film, and named paths made of them.

Every path begins where the photograph was taken. `datasets.path_plans` chooses between these, key frames and files; the
conventions are told in docs/trajectories.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch

from dnnlib.util import UserError
from torch_utils.cameras import Camera, homogeneous, relative_pose
from torch_utils.warping import euler_rotation

DEFAULT_FRAMES = 24

# Distance of what `orbit` and `spiral` look at, in units of named paths and moves. These are RealEstate10K's: there the
# median depth of a frame, from points matched under the published poses, is 3.3 to 4.2 in five clips of six.
_SUBJECT = 3.5
_MOST_FRAMES = 100_000
_FARTHEST = 1e6  # units; the networks compute in float32
_LARGEST_ZOOM = 1000
_T = TypeVar("_T")


@dataclass(frozen=True)
class Move:
    """Where a camera goes from the place and direction of the photograph.

    Attributes:
        pan_deg, tilt_deg, roll_deg: it turns right, up, clockwise; pan about the upright of the photograph, then tilt,
            then roll about the line of sight.
        right, up, forward: it goes along the axes of the photograph's camera, in units of a path.
        zoom: factor on the focal length.
    """

    pan_deg: float = 0.0
    tilt_deg: float = 0.0
    roll_deg: float = 0.0
    right: float = 0.0
    up: float = 0.0
    forward: float = 0.0
    zoom: float = 1.0

    def __post_init__(self) -> None:
        values = vars(self)
        for name, value in values.items():
            if not math.isfinite(value):
                raise UserError(f"{name} of a camera move is {value}; it must be a finite number")
        if self.zoom <= 0:
            raise UserError(f"the zoom of a camera move is {self.zoom:g}; it must be positive, 1 for none")

    def camera(self, photograph: Camera, scene_scale: float = 1.0) -> Camera:
        """The photograph's camera after the move; `scene_scale` multiplies how far it goes."""
        rotation = euler_rotation(-self.roll_deg, 0, -self.tilt_deg) @ euler_rotation(0, -self.pan_deg, 0)
        position = torch.tensor([self.right, -self.up, self.forward], dtype=torch.float64)
        pose = torch.cat([rotation, -(rotation @ position)[:, None]], dim=1)
        return _move(photograph, pose, scene_scale, torch.tensor([self.zoom, self.zoom]))


def unit_of_paths(typical_depth: float | None) -> float:
    """Return how long a unit of named paths and moves is, in the unit that a network learned.

    The subject is as far away as what the network has usually seen (`typical_depth`, see `datasets.typical_depth`);
    where that is not known, the network's unit is taken to be RealEstate10K's, and this is 1.
    """
    return 1.0 if typical_depth is None else typical_depth / _SUBJECT


class _Path(NamedTuple):
    """A named path: how far it goes by default, in what, and its move at time t in [0, 1]."""

    amount: float
    unit: str
    closed: bool  # it ends where it begins, and is made to be repeated
    move: Callable[[float, float], Move]  # (amount, t)


def _look_at_subject(x: float, y: float, z: float) -> Move:
    """Return the move to (x, y, z), OpenCV axes, with a look at the subject, straight ahead of the photograph."""
    ahead = _SUBJECT - z
    pan = math.degrees(math.atan2(-x, ahead))
    tilt = math.degrees(math.atan2(y, math.hypot(x, ahead)))
    return Move(pan, tilt, 0, x, -y, z)


def _orbit(amount: float, t: float) -> Move:
    angle = math.radians(amount) * math.sin(2 * math.pi * t)
    return _look_at_subject(_SUBJECT * math.sin(angle), 0, _SUBJECT * (1 - math.cos(angle)))


def _spiral(amount: float, t: float) -> Move:
    radius, angle = amount * math.sin(math.pi * t), 4 * math.pi * t
    return _look_at_subject(radius * math.cos(angle), radius * math.sin(angle), 0)


def _shake(amount: float, t: float) -> Move:
    pan, tilt, roll = (math.sin(2 * math.pi * turns * t) for turns in (2, 3, 5))
    return Move(amount * pan, amount * tilt, amount * roll / 2)


PATHS = {
    "orbit":    _Path(15.0, "degrees to each side",    True,  _orbit),
    "pan":      _Path(15.0, "degrees to the right",    False, lambda amount, t: Move(pan_deg=amount * t)),
    "tilt":     _Path(10.0, "degrees up",              False, lambda amount, t: Move(tilt_deg=amount * t)),
    "roll":     _Path(20.0, "degrees clockwise",       False, lambda amount, t: Move(roll_deg=amount * t)),
    "dolly":    _Path(1.00, "units forward",           False, lambda amount, t: Move(forward=amount * t)),
    "zoom":     _Path(1.50, "times the focal length",  False, lambda amount, t: Move(zoom=amount**t)),
    "truck":    _Path(0.75, "units to the right",      False, lambda amount, t: Move(right=amount * t)),
    "pedestal": _Path(0.50, "units up",                False, lambda amount, t: Move(up=amount * t)),
    "spiral":   _Path(0.50, "units, largest radius",   True,  _spiral),
    "shake":    _Path(2.00, "degrees to each side",    True,  _shake),
}  # fmt: skip


def named_path(
    name: str, photograph: Camera, frames: int, amount: float | None = None, scene_scale: float = 1.0
) -> list[Camera]:
    """`frames` cameras along a path of `PATHS`, the first being the photograph's.

    Args:
        amount: how far, in the unit that `PATHS` names; None for its default. Negative goes the other way.
        scene_scale: multiplies all translations (docs/trajectories.md).

    Raises UserError for an unknown name, fewer than one frame, or an amount that makes no sense.
    """
    if name not in PATHS:
        raise UserError(f"there is no camera path {name!r}; known are {', '.join(PATHS)}, or give the file of a path")
    check_frames(frames)
    path = PATHS[name]
    amount = path.amount if amount is None else amount
    if name == "zoom" and not amount > 0:
        raise UserError(f"the amount of zoom is {amount:g}; it is a factor and must be positive")
    steps = frames if path.closed else max(frames - 1, 1)
    times = [k / steps for k in range(frames)]
    if path.closed and frames == 2:  # half of the way is where it began
        times = [0, 1 / 4]
    return [path.move(amount, t).camera(photograph, scene_scale) for t in times]


def follow(path: Sequence[Camera], photograph: Camera, scene_scale: float = 1.0) -> list[Camera]:
    """The cameras that stand to the photograph's as those of `path` do to its first.

    Poses are taken relative to the first one, and so are focal lengths: a path that zooms by two does so from
    whatever focal length the photograph has. `scene_scale` multiplies translations.
    """
    first = path[0]
    return [
        _move(photograph, relative_pose(camera, first)[:3], scene_scale, _focal_fractions(camera, first))
        for camera in path
    ]


def thin_out(path: Sequence[_T], frames: int | None) -> list[_T]:
    """`frames` frames of a path, evenly spaced, with the first and the last; None keeps all."""
    if frames is None:
        return list(path)
    check_frames(frames)
    if frames > len(path):
        raise UserError(f"the path has {len(path)} frames, {frames} were asked for; ask for {len(path)} or fewer")
    return [path[round(k * (len(path) - 1) / max(frames - 1, 1))] for k in range(frames)]


def check_frames(frames: int) -> None:
    """Raises UserError unless there is at least one frame, and a number of them that can be meant."""
    if frames < 1:
        raise UserError(f"a path of {frames} frames shows nothing; ask for 1 or more")
    if frames > _MOST_FRAMES:
        raise UserError(f"a path of {frames} frames is a slip of the pen; ask for {_MOST_FRAMES} or fewer")


def _focal_fractions(camera: Camera, first: Camera) -> torch.Tensor:
    """Return by how much the focal lengths (x, y) changed since the first camera; image sizes may differ."""

    def relative(camera: Camera) -> torch.Tensor:
        return camera.focal_and_center[:2] / min(camera.width, camera.height)

    return relative(camera) / relative(first)


def _move(photograph: Camera, pose: torch.Tensor, scene_scale: float, zoom: torch.Tensor) -> Camera:
    """The photograph's camera moved by `pose` [3, 4], photograph's camera to new one, with its focal lengths zoomed.

    Raises UserError where no picture could come of it.
    """
    if not 0 < scene_scale < math.inf:
        raise UserError(f"the scene scale is {scene_scale:g}; it multiplies distances and must be positive and finite")
    pose = torch.cat([pose[:, :3], pose[:, 3:] * scene_scale], dim=1)
    if not (distance := float(pose[:, 3].norm())) <= _FARTHEST:
        raise UserError(f"the camera would go {distance:g} units away; make its path shorter")
    if not 1 / _LARGEST_ZOOM <= float(zoom.min()) <= float(zoom.max()) <= _LARGEST_ZOOM:
        raise UserError(
            f"the focal length would be {float(zoom[0]):g} times the photograph's; "
            f"a zoom is from 1/{_LARGEST_ZOOM} to {_LARGEST_ZOOM}"
        )
    intrinsics = photograph.intrinsics.clone()
    intrinsics[[0, 1], [0, 1]] *= zoom
    return replace(photograph, intrinsics=intrinsics, extrinsics=pose @ homogeneous(photograph.extrinsics))
