"""How near do the frames of a path come to the true ones, where there are some?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from metrics.image import finite_mean, psnr
from torch_utils.cameras import Camera, View


@dataclass
class TruthReport:
    """PSNR of the frames of a clip's path, beside that of the source view, which answers every camera with itself.

    Attributes:
        truth: the true frames, [3, R, R] each; the first is the source view, so no novel view, and does not count.
    """

    truth: Sequence[View]
    _psnrs: list[tuple[float, float]] = field(default_factory=list)  # of the frame and of the source view, in dB

    def add(self, image: torch.Tensor, camera: Camera) -> None:
        """The next frame: uint8 [3, R, R] and its camera."""
        true = self.truth[len(self._psnrs)].image
        sample, copy = psnr(torch.stack([image, self.truth[0].image]), true.expand(2, -1, -1, -1)).tolist()
        self._psnrs.append((sample, copy))

    def summary(self) -> dict[str, Any]:
        """Means in dB over the frames after the first: `psnr_db`, `copy_source_psnr_db`; None where there is none."""
        samples, copies = zip(*self._psnrs[1:], strict=True) if self._psnrs[1:] else ((), ())
        return {"truth": {"psnr_db": finite_mean(samples), "copy_source_psnr_db": finite_mean(copies)}}

    def __str__(self) -> str:
        found = {name: "-" if value is None else f"{value:.2f}" for name, value in self.summary()["truth"].items()}
        return "PSNR against the true frames {psnr_db} dB, of the source view {copy_source_psnr_db} dB".format(**found)
