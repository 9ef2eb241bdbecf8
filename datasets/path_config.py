"""Which path a camera takes: one typed value, and the one door that opens it. Nothing heavy is imported before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datasets.config import DATA, DataConfig
from dnnlib.settings import Settings, setting
from dnnlib.util import UserError

if TYPE_CHECKING:
    from datasets.user_image import Photograph
    from torch_utils.cameras import Camera, View

_log = logging.getLogger(__name__)
PHOTOGRAPHS, PATHS = "Own photographs, instead of data", "Paths, of photographs and clips"


@dataclass(frozen=True)
class PathConfig(Settings):
    """The path of a clip of the data, or one for each of one's own photographs.

    Attributes:
        clip: name or number of the clip.
        images: photographs, or folders of them.
        trajectory: a path of `datasets.trajectories.PATHS`, or a file that `datasets.path_plans.plan_path` reads.
        amount: how far a named path goes; scene_scale: factor on its translations.
        fov: degrees that the shorter side of a photograph spans; None: as EXIF, the path's file or a default say.
        crop: see `datasets.user_image.Photograph.cropped`.
        keys: instead of `trajectory`, key frames as `datasets.key_frames.parse_keys` reads them.
        convention, pose: see `read_trajectory`, for files of plain matrices.
        frames: how many.
    """

    clip: str | None = setting(
        None, "Instead of pairs: follow this clip from its first frame.", section=DATA, metavar="NAME|NUMBER"
    )
    images: tuple[str, ...] = setting(
        (),
        "Photograph, or a folder of them; more than once if need be.",
        option="--image",
        section=PHOTOGRAPHS,
        multiple=True,
        metavar="FILE|DIR",
    )
    trajectory: str = setting(
        "orbit",
        "orbit, pan, tilt, roll, dolly, zoom, truck, pedestal, spiral, shake, or the file of a path or of key frames.",
        section=PHOTOGRAPHS,
        metavar="NAME|FILE",
    )
    amount: float | None = setting(
        None, "How far a named path goes, in its own unit.", section=PHOTOGRAPHS, type=float, within="(-inf, inf)"
    )
    scene_scale: float = setting(
        1.0, "Factor on distances travelled (see docs/trajectories.md).", section=PHOTOGRAPHS, within="(-inf, inf)"
    )
    fov: float | None = setting(
        None,
        "Degrees that the shorter side spans.  [default: EXIF, the path's, or 58]",
        section=PHOTOGRAPHS,
        type=float,
        within="(0, 180)",
    )
    crop: tuple[float, float] | None = setting(
        None,
        "What the square that the networks see is taken around, fractions of width and height.  [default: 0.5,0.5]",
        section=PHOTOGRAPHS,
        kind="point",
        within="[0, 1]",
        metavar="X,Y",
    )
    keys: tuple[str, ...] = setting(
        (),
        "Instead of a path: key frames to go through, as pan=10,truck=0.5; again for each.",
        option="--key",
        section=PHOTOGRAPHS,
        multiple=True,
        metavar="MOVES",
    )
    convention: Literal["opencv", "opengl"] | None = setting(
        None, "Axes of a file of plain matrices.", section=PHOTOGRAPHS, choices=("opencv", "opengl")
    )
    pose: Literal["c2w", "w2c"] | None = setting(
        None, "Camera-to-world matrices, or world-to-camera.", section=PHOTOGRAPHS, choices=("c2w", "w2c")
    )
    frames: int | None = setting(
        None, "How many; of a file or clip, evenly spaced.  [default: 24, or all of a file]", section=PATHS, type=int
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images and self.clip is not None:
            raise UserError("`images` are for one's own photographs, `clip` for a data set: give one of them")

    @property
    def is_given(self) -> bool:
        """Whether there is a path to follow."""
        return bool(self.images) or self.clip is not None


@dataclass(frozen=True)
class ViewPath:
    """Where a path begins, and its cameras.

    Attributes:
        photograph: the view all begins with; cameras: in its world.
        truth: what the cameras really saw, [3, R, R] each; empty where it is not known.
        details: where it is from, for `trajectory.json`.
    """

    photograph: Photograph
    cameras: Sequence[Camera]
    truth: Sequence[View] = ()
    details: dict[str, Any] = field(default_factory=dict)


def open_paths(
    config: PathConfig, data: DataConfig, resolution: int, typical_depth: float | None = None
) -> dict[str, Callable[[], ViewPath]]:
    """Return, by name, what opens each photograph or the one clip with its path; pictures are read only then.

    `resolution` is that of true views; `typical_depth` the network's, see `unit_of_paths`.
    """
    if config.clip is not None:
        return {config.clip: lambda: _clip(config, data, resolution)}
    from datasets.user_image import photograph_files

    return {
        name: partial(_photograph, file, config, typical_depth)
        for name, file in photograph_files(config.images).items()
    }


def _photograph(file: Path, config: PathConfig, typical_depth: float | None) -> ViewPath:
    from datasets.key_frames import parse_keys
    from datasets.path_plans import plan_path
    from datasets.user_image import read_photograph

    plan = plan_path(
        read_photograph(file, config.fov, config.crop),
        parse_keys(config.keys) if config.keys else config.trajectory,
        config.frames,
        config.amount,
        config.scene_scale,
        config.convention,
        config.pose,
        typical_depth,
    )
    names = ("keys",) if config.keys else ("trajectory", "amount")
    details = {name: getattr(config, name) for name in (*names, "scene_scale")}
    for note in plan.notes:
        _log.warning("%s: %s", config.trajectory, note)
    return ViewPath(plan.photograph, plan.cameras, details={**details, "typical_depth": typical_depth})


def _clip(config: PathConfig, data: DataConfig, resolution: int) -> ViewPath:
    from datasets.clip_path import clip_path, open_clip
    from datasets.realestate10k import open_split

    clips = open_split(data.data, data.split, depth=data.stored_depth)
    source, positions, truth = clip_path(*open_clip(clips, str(config.clip)), config.frames, resolution)
    details = {"data": data.data, "split": data.split, "clip": source.name, "positions": positions}
    return ViewPath(source, [view.camera for view in truth], truth, details)
