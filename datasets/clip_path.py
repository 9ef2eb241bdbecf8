"""The path of a clip: its first frame is the source view, its own cameras are the path, its frames are the truth."""

from __future__ import annotations

from typing import NamedTuple

from datasets.clips import Clip, Clips
from datasets.trajectories import DEFAULT_FRAMES, thin_out
from datasets.user_image import Photograph, shorter_fov_deg
from dnnlib.util import UserError
from torch_utils.cameras import View

_NAMES_SHOWN = 3  # in an error


class ClipPath(NamedTuple):
    """A path whose pictures are known.

    Attributes:
        source: the clip's first frame, as it is stored, in the clip's world.
        positions: of the frames in the clip, ascending, beginning with the source's own.
        truth: those frames, cropped and resized to [3, R, R], with their cameras.
    """

    source: Photograph
    positions: list[int]
    truth: list[View]


def open_clip(clips: Clips, wanted: str) -> tuple[str, Clip]:
    """The clip of this name, or else of this number among the sorted names; its name, and the clip opened.

    Raises UserError that says what there is, and UnusableClip.
    """
    names = sorted(clips.names)
    name = wanted
    if wanted not in names and wanted.isdecimal() and int(wanted) < len(names):
        name = names[int(wanted)]
    if name not in names:
        some = ", ".join(names[:_NAMES_SHOWN]) + (", .." if len(names) > _NAMES_SHOWN else "")
        raise UserError(f"there is no clip {wanted!r}: give a number from 0 to {len(names) - 1}, or a name: {some}")
    return name, clips.open(list(clips.names).index(name))


def clip_path(name: str, clip: Clip, frames: int | None, resolution: int) -> ClipPath:
    """`frames` frames of a clip, evenly spaced, with the first and the last; by default 24, or all of fewer.

    Raises UserError where the clip has not as many, or a frame cannot be read.
    """
    positions = thin_out(list(clip.frames), min(DEFAULT_FRAMES, len(clip.frames)) if frames is None else frames)
    view = clip.view(positions[0])
    source = Photograph(name, view, shorter_fov_deg(view.camera), "clip")
    return ClipPath(source, positions, [clip.view(position).square(resolution) for position in positions])
