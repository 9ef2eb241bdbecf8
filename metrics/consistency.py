"""Do the frames of a path show one scene? Neighbours warped by true depth, and a return to where the path has been.

The idea of MEt3R (Asim et al. 2024) without a network: where depth is known, what one frame shows is moved to the next
one's camera and compared with what that shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dnnlib.util import present
from metrics.image import finite_mean, psnr
from metrics.neighbours import NeighbourReport
from metrics.truth import TruthReport
from torch_utils.cameras import Camera, View, relative_pose
from torch_utils.warping import same_place, warp_depth

_SAME_AXES = 1e-4  # largest difference of two rotations that look the same way
_SAME_FOCAL = 1e-4  # relative


def path_reports(truth: Sequence[View] = ()) -> list[Any]:
    """All that can be said of a path whose cameras saw `truth`, which may be empty."""
    known = [TruthReport(truth)] if truth else []
    with_depth = truth and all(view.depth is not None for view in truth)
    return [NeighbourReport(), *known, *([DepthReport(truth)] if with_depth else []), LoopReport()]


@dataclass
class DepthReport:
    """PSNR between each frame and the one before it, moved by true depth; beside that of the true frames.

    The true frames are not perfect either: surfaces shine, and warping resamples.

    Attributes:
        truth: the true frames, with depth, [3, R, R] each.
    """

    truth: Sequence[View]
    _previous: torch.Tensor | None = None
    _psnrs: list[tuple[float, float]] = field(default_factory=list)  # of the frames and of the true ones, dB
    _count: int = 0

    def add(self, image: torch.Tensor, camera: Camera) -> None:
        """The next frame: uint8 [3, R, R] and its camera."""
        if self._previous is not None:
            before, now = self.truth[self._count - 1], self.truth[self._count]
            pairs = ((self._previous, image), (before.image, now.image))
            found, true = (self._agreement(first, second, before, camera) for first, second in pairs)
            if found is not None and true is not None:
                self._psnrs.append((found, true))
        self._previous, self._count = image, self._count + 1

    def summary(self) -> dict[str, Any]:
        """Means in dB: `psnr_db`, `true_frames_psnr_db`; None where no two neighbours see a common surface."""
        frames, true = zip(*self._psnrs, strict=True) if self._psnrs else ((), ())
        means = {"psnr_db": finite_mean(frames), "true_frames_psnr_db": finite_mean(true)}
        return {"depth_consistency": {"pairs": len(self._psnrs), **means}}

    def __str__(self) -> str:
        found = self.summary()["depth_consistency"]
        if found["psnr_db"] is None or found["true_frames_psnr_db"] is None:
            return "no neighbours to move by depth"
        text = "neighbours moved by true depth agree to {psnr_db:.2f} dB, true frames to {true_frames_psnr_db:.2f} dB"
        return text.format(**found)

    @staticmethod
    def _agreement(first: torch.Tensor, second: torch.Tensor, before: View, camera: Camera) -> float | None:
        moved, seen = warp_depth(first.to(torch.float32), present(before.depth), before.camera, camera)
        if not seen.any():
            return None
        return float(psnr(second[None], moved.round().clip(0, 255)[None], seen[None, None]))


@dataclass
class LoopReport:
    """Where a path comes back to its first camera, is it the same picture? PSNR of the two. Only the first is kept."""

    _first: tuple[torch.Tensor, Camera] | None = None
    _count: int = 0
    _returns: list[tuple[int, float]] = field(default_factory=list)  # frame, PSNR with the first in dB

    def add(self, image: torch.Tensor, camera: Camera) -> None:
        """The next frame: uint8 [3, R, R] and its camera."""
        if self._first is None:
            self._first = image, camera
        elif same_view(self._first[1], camera):
            self._returns.append((self._count, float(psnr(image[None], self._first[0][None]))))
        self._count += 1

    def summary(self) -> dict[str, Any]:
        """`frames` that are back at the start; how many of them are `equal` to it; `psnr_db`: mean of the others."""
        values = [value for _, value in self._returns]
        equal = sum(math.isinf(value) for value in values)
        return {
            "loop_closure": {"frames": [k for k, _ in self._returns], "equal": equal, "psnr_db": finite_mean(values)}
        }

    def __str__(self) -> str:
        found = self.summary()["loop_closure"]
        if not found["frames"]:
            return "the path does not return to its start"
        count = len(found["frames"])
        parts = [f"back at the start: {count} {'frame' if count == 1 else 'frames'}"]
        parts += [f"{found['equal']} equal to the first"] if found["equal"] else []
        parts += [] if found["psnr_db"] is None else [f"PSNR {found['psnr_db']:.2f} dB with the first"]
        return ", ".join(parts)


def same_view(first: Camera, second: Camera) -> bool:
    """Whether two cameras stand in one place, look the same way and have the same lens, to rounding."""
    turn = relative_pose(first, second)[:3, :3] - torch.eye(3, dtype=torch.float64)
    lens = (first.to_normalized()[:4] - second.to_normalized()[:4]).abs().max()
    return same_place(first, second) and float(turn.abs().max()) <= _SAME_AXES and float(lens) <= _SAME_FOCAL
