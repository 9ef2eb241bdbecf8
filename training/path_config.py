"""How a path is rendered: a typed value that the command line makes of its options; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasets.path_config import PATHS, PHOTOGRAPHS
from dnnlib.settings import Settings, setting

Condition = Literal["first", "chain", "stochastic"]


@dataclass(frozen=True)
class RenderConfig(Settings):
    """How the frames of a path are made, and what is written beside them.

    Attributes:
        condition: what a frame is conditioned on: "first", the photograph; "chain", the newest key frame; "stochastic",
            at every evaluation of the network another view of the photograph and the key frames so far.
        key_every: every so many frames one becomes a key frame. Each sample has its own.
        samples: answers for each frame, with the first seeds.
        fresh_noise: other noise for every frame; otherwise all frames share it.
        known_pixels: what one's own photograph shows of a view is kept, in key frames too: see
            `torch_utils.known_pixels`.
        baseline: "homography" writes what the photograph shows where the camera has only turned or zoomed.
        export: formats of `trajectory_files.FORMATS` to write the path in, too.
        fps: frames a second of the videos.
    """

    condition: Condition = setting(
        "first",
        "Frames follow from the first view, the newest key frame, or random earlier ones.",
        section=PATHS,
        choices=("first", "chain", "stochastic"),
    )
    key_every: int = setting(
        4, "For chain and stochastic: every so many frames, a key frame.", section=PATHS, within="[1, inf)"
    )
    samples: int = setting(
        1,
        "Answers per frame, with the first of --seeds, and a map of their spread.",
        section=PATHS,
        within="[1, inf)",
    )
    fresh_noise: bool = setting(False, "Other noise for every frame.", section=PATHS, is_flag=True)
    known_pixels: bool = setting(
        True,
        "Keep what the photograph shows of a view.",
        section=PHOTOGRAPHS,
        option="--known-pixels/--no-known-pixels",
    )
    baseline: Literal["homography"] | None = setting(
        None, "Write what is known where the camera only turns.", section=PATHS, choices=("homography",)
    )
    export: tuple[str, ...] = setting(
        (),
        "Write the path in this format, too.",
        section=PATHS,
        choices=("realestate10k", "colmap", "matrices"),
        multiple=True,
    )
    fps: float = setting(12.0, "Frames a second of the videos.", section=PATHS, within="(0, inf)")
