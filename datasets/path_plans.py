"""Which cameras a photograph's path has: those of a named path, of key frames, or of a file, placed before it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import NamedTuple

import numpy as np
import torch

from datasets.camera_files.nerfstudio import recall_path
from datasets.camera_files.poses import Axes, Direction
from datasets.key_frames import KeyFrame, key_frame_path, read_keys
from datasets.trajectories import DEFAULT_FRAMES, PATHS, check_frames, follow, named_path, unit_of_paths
from datasets.trajectory_files import describe_path, read_path
from datasets.user_image import DEFAULT_FOV_DEG, Photograph, shorter_fov_deg
from dnnlib.text_files import json_document
from dnnlib.util import UserError
from torch_utils.cameras import Camera


class PathPlan(NamedTuple):
    """A path before a photograph.

    Attributes:
        photograph: with the lens that it is taken through.
        cameras: placed so that the photograph stands at their beginning.
        notes: what is left out of the path's file, a sentence each.
    """

    photograph: Photograph
    cameras: list[Camera]
    notes: tuple[str, ...] = ()


def plan_path(
    photograph: Photograph,
    path: str | Sequence[KeyFrame],
    frames: int | None = None,
    amount: float | None = None,
    scene_scale: float = 1.0,
    convention: Axes | None = None,
    pose: Direction | None = None,
    typical_depth: float | None = None,
) -> PathPlan:
    """The cameras of a path, placed so that the photograph stands at its beginning.

    Args:
        path: a name in `PATHS`, a file (of key frames, or any that `read_path` reads), or key frames.
        frames: how many; None: `DEFAULT_FRAMES`, or all of a file of cameras.
        amount: of a named path.
        scene_scale: multiplies distances.
        convention, pose: of a file of plain matrices.
        typical_depth: of the network, for `unit_of_paths`. Distances of a file of cameras are its own.

    Where nothing else told the photograph's lens, that of the file's first camera is taken. Raises UserError, as
    `named_path`, `key_frame_path`, `read_keys` and `read_path`.
    """
    keys = (read_keys(path) if path not in PATHS else None) if isinstance(path, str) else path
    if keys is None and path not in PATHS:
        if amount is not None:
            raise UserError(f"`amount` is for named paths ({', '.join(PATHS)}); a file is scaled by `scene_scale`")
        return _plan_file(photograph, str(path), frames, scene_scale, convention, pose)
    for value in (convention, pose):
        if value is not None:
            what = f"{path} is a named path" if keys is None else "these are key frames"
            raise UserError(f"{value} is said of a file of plain matrices, but {what}: leave it out")
    camera, unit = photograph.start, scene_scale * unit_of_paths(typical_depth)
    frames = DEFAULT_FRAMES if frames is None else frames
    if keys is None:
        return PathPlan(photograph, named_path(str(path), camera, frames, amount, unit))
    if amount is not None:
        raise UserError(f"`amount` is for named paths ({', '.join(PATHS)}); key frames say how far they go")
    return PathPlan(photograph, key_frame_path(keys, camera, frames, unit))


def describe_file(path: str | PathLike) -> tuple[str, int]:
    """What kind of path a file holds, "key frames" or as `describe_path` says, and how many cameras.

    Raises UserError as those that read it.
    """
    keys = read_keys(path)
    return describe_path(path) if keys is None else ("key frames", len(keys))


def _plan_file(
    photograph: Photograph,
    path: str,
    frames: int | None,
    scene_scale: float,
    convention: Axes | None,
    pose: Direction | None,
) -> PathPlan:
    if not os.path.exists(path):
        raise UserError(f"there is no camera path {path!r}; known are {', '.join(PATHS)}, or give a file")
    if scene_scale == 1 and frames is None and (recalled := _recall(path, photograph)) is not None:
        return recalled
    found = read_path(path, photograph.view.camera, convention, pose)
    cameras = resample(found.cameras, frames)
    notes = list(found.notes)
    if found.has_lens:
        photograph = _with_lens_of(photograph, cameras, path)
        notes += _left_out(photograph, cameras)
    elif photograph.fov_from == "default":
        notes.append(f"no lens, nor has {photograph.name}: it is taken to span {photograph.fov_deg:g} degrees")
    return PathPlan(photograph, follow(cameras, photograph.start, scene_scale), tuple(notes))


def _with_lens_of(photograph: Photograph, cameras: Sequence[Camera], path: str) -> Photograph:
    """The photograph taken through the lens of a path's first camera, where nothing else told its own.

    A principal point off the middle counts where both pictures have the same proportions.
    """
    first, own = cameras[0], photograph.view.camera
    fov_deg, center = shorter_fov_deg(first), None
    if not first.is_centered and _same_shape(first, own):
        center = (first.intrinsics[:2, 2] * own.width / first.width).tolist()
    if photograph.fov_from != "default" or (center is None and fov_deg == DEFAULT_FOV_DEG):
        return photograph
    try:
        return photograph.with_lens(fov_deg, "path", center)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _left_out(photograph: Photograph, cameras: Sequence[Camera]) -> list[str]:
    """What is left out of the principal points of a path's cameras, a sentence each."""
    notes, first = [], cameras[0]
    if not first.is_centered and not photograph.view.camera.is_centered:
        notes.append("the principal point is off the middle: the square is taken around it")
    elif not first.is_centered:
        sources = {"given": "by `fov`", "EXIF": "by EXIF"}
        source = sources.get(photograph.fov_from)
        why = f"the lens is told {source}" if source else "the photograph has other proportions"
        notes.append(f"the principal point is off the middle, which is left out: {why}")
    sides = torch.tensor([[min(camera.width, camera.height)] for camera in cameras])
    middles = torch.tensor([[camera.width / 2, camera.height / 2] for camera in cameras])
    offsets = (torch.stack([camera.intrinsics[:2, 2] for camera in cameras]) - middles) / sides
    if bool(((offsets - offsets[0]).abs() > 1 / sides).any()):
        notes.append("the principal point moves along the path, which is left out: views are centred on it")
    return notes


def _same_shape(first: Camera, second: Camera) -> bool:
    """Whether pictures have the same proportions, to a pixel."""
    return abs(first.width * second.height - second.width * first.height) <= max(first.height, second.height)


def _recall(path: str, photograph: Photograph) -> PathPlan | None:
    """The path that a `trajectory.json` of this project tells to the bit, where it was made for this photograph.

    The lens that it was made with counts, unless another was asked for.
    """
    document = json_document(path)
    lens = document.get("photograph") if isinstance(document, dict) else None
    if not isinstance(lens, dict) or "exact" not in document:
        return None
    try:
        known = photograph.record()
        fov_deg, center, crop = (lens.get(name, known[name]) for name in ("fov_deg", "center", "crop"))
        if photograph.fov_from != "given" and [fov_deg, center] != [known["fov_deg"], known["center"]]:
            photograph = photograph.with_lens(float(fov_deg), "path", [float(value) for value in center])
        if photograph.crop is None and crop is not None:
            x, y = map(float, crop)
            photograph = photograph.cropped((x, y))
        cameras = recall_path(document, photograph.start)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"{path}: damaged ({error})") from None
    return None if cameras is None else PathPlan(photograph, cameras)


def resample(path: Sequence[Camera], frames: int | None) -> list[Camera]:
    """`frames` cameras along a path, evenly spaced by how far it goes and turns; None keeps it as it is.

    The way is measured in shares of all that it goes and of all that it turns. Between the cameras of the path,
    positions and the logarithms of lenses are interpolated linearly, directions by slerp.
    """
    if frames is None or frames == len(path):
        return list(path)
    check_frames(frames)
    if len(path) == 1 or frames == 1:
        return [path[0]] * frames
    from scipy.spatial.transform import Rotation, Slerp

    rotations = Rotation.from_matrix(np.stack([camera.rotation.numpy() for camera in path]))
    centers = np.stack([camera.center.numpy() for camera in path])
    lenses = np.log(np.stack([camera.focal_and_center[:2].numpy() for camera in path]))
    steps = np.zeros(len(path) - 1)
    for way in (
        np.linalg.norm(np.diff(centers, axis=0), axis=1),
        (rotations[:-1].inv() * rotations[1:]).magnitude(),
        np.abs(np.diff(lenses, axis=0)).max(axis=1),
    ):
        steps += way / way.sum() if way.sum() > 1e-9 else 0.0
    along = np.concatenate([[0.0], np.cumsum(steps)])
    if along[-1] == 0:
        return [path[0]] * frames
    at = np.linspace(0, along[-1], frames)
    kept = np.concatenate([[0], 1 + np.flatnonzero(np.diff(along) > 0)])  # where it stands still, nothing lies between
    turned = Slerp(along[kept], rotations[kept])(at).as_matrix()
    position = np.stack([np.interp(at, along, column) for column in centers.T], axis=1)
    focal = np.exp(np.stack([np.interp(at, along, column) for column in lenses.T], axis=1))
    cameras = []
    for rotation, center, (fx, fy) in zip(turned, position, focal, strict=True):
        intrinsics = path[0].intrinsics.clone()
        intrinsics[0, 0], intrinsics[1, 1] = fx, fy
        pose = torch.from_numpy(np.concatenate([rotation, -(rotation @ center)[:, None]], axis=1))
        cameras.append(replace(path[0], intrinsics=intrinsics, extrinsics=pose))
    return [path[0], *cameras[1:-1], path[-1]]
