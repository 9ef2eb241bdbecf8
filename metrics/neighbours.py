"""Do the frames of a path hang together? Each is compared with the one before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange

from metrics.geometry import THRESHOLD_PX, THRESHOLD_SIDE, median_epipolar_distance
from metrics.image import finite_mean, psnr
from torch_utils.cameras import Camera, View
from torch_utils.matching import Keypoints, sift
from torch_utils.warping import same_place, turned_view


@dataclass
class NeighbourReport:
    """TSED of neighbouring frames, and PSNR where the camera only turned or zoomed in between.

    There a frame can be warped exactly to the next one's camera; PSNR is over what both show. Of all frames only the
    newest is kept.
    """

    _previous: tuple[View, Keypoints] | None = None
    _distances: list[float] = field(default_factory=list)  # medians, in pixels of a picture of 256 pixels a side
    _psnrs: list[float] = field(default_factory=list)

    def add(self, image: torch.Tensor, camera: Camera) -> None:
        """The next frame: uint8 [3, R, R] and its camera."""
        view, keypoints = View(image, camera), sift(rearrange(image, "c h w -> h w c").numpy())
        if self._previous is not None:
            before, keypoints_before = self._previous
            distance = median_epipolar_distance(keypoints_before, keypoints, before.camera, camera)
            self._distances.append(distance * THRESHOLD_SIDE / camera.width)
            if same_place(before.camera, camera):
                warped, inside = turned_view(before, camera)
                if inside.any():
                    self._psnrs.append(float(psnr(image[None], warped[None], inside[None, None])))
        self._previous = view, keypoints

    def summary(self) -> dict[str, Any]:
        """`tsed`: of the pairs with matches enough, the share with a median below 2 pixels at 256; `psnr_db`: mean.

        None where there is no such pair.
        """
        consistent = [distance < THRESHOLD_PX for distance in self._distances if not math.isinf(distance)]
        return {
            "neighbours": {
                "pairs": len(self._distances),
                "too_few_matches": sum(math.isinf(distance) for distance in self._distances),
                "tsed": sum(consistent) / len(consistent) if consistent else None,
                "psnr_db": finite_mean(self._psnrs),
            }
        }

    def __str__(self) -> str:
        found = self.summary()["neighbours"]
        if not found["pairs"]:
            return "one frame: no neighbours to compare"
        untold = found["too_few_matches"]
        told = found["pairs"] - untold
        if not told:
            pairs = "1 pair" if untold == 1 else f"{untold} pairs"
            text = f"neighbouring frames have too few matches to tell whether they fit the camera's way ({pairs})"
        else:
            fit = round(found["tsed"] * told)
            text = f"{fit} of {told} pairs of neighbouring frames fit the camera's way (TSED {found['tsed']:.2f})"
            text += f"; {untold} more {'has' if untold == 1 else 'have'} too few matches to tell" if untold else ""
        turned = (
            "" if found["psnr_db"] is None else f"; where it only turns they agree to {found['psnr_db']:.1f} dB (PSNR)"
        )
        return text + turned
