"""What is judged: new views, beside the true targets and the source views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dnnlib import UserError
from dnnlib.util import present
from metrics.detectors import Detector
from torch_utils.cameras import Camera, View
from torch_utils.warping import turned_view, warp_depth

# Roles of images. All but the last are *candidates* for the new view: the generated image and, as baselines, a mere
# copy of the source view, and the source view moved by its depth or by the rotation alone.
GENERATED, COPY_SOURCE, WARP, TARGET = "generated", "copy_source", "warp", "target"
Values = dict[str, torch.Tensor]  # by role, [N, ...]


@dataclass(frozen=True, eq=False)
class Views:
    """A batch to judge.

    Attributes:
        indices: number of each pair in the whole test; its seed where the images come from `generate_images`.
        generated, target, source: uint8 [N, 3, H, W] on the CPU. Without source there is no baseline; without target
            there is nothing but distances from a saved reference.
        cameras: source and target camera of each pair, at the images' size; None where unknown.
        visible: bool [N, 1, H, W], the target pixels that the source sees; None where unknown.
        warped: the source views moved to the target cameras, uint8 [N, 3, H, W]; None where there are none. See
            `with_depth` and `with_homography`.
        baseline: whether to judge the source views too, as copies.
    """

    indices: Sequence[int]
    generated: torch.Tensor
    target: torch.Tensor | None
    source: torch.Tensor | None = None
    cameras: Sequence[tuple[Camera, Camera]] | None = None
    visible: torch.Tensor | None = None
    warped: torch.Tensor | None = None
    baseline: bool = True
    _features: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        judged = self.generated
        if judged.dtype != torch.uint8 or judged.ndim != 4 or judged.shape[1] != 3:
            raise UserError(f"images to judge are uint8 [N, 3, H, W], not {judged.dtype} {list(judged.shape)}")
        for name, images in (("target", self.target), ("source", self.source)):
            if images is not None and (images.shape != judged.shape or images.dtype != torch.uint8):
                sizes = ("{0} of {3}x{2} pixels".format(*batch.shape) for batch in (judged, images))
                raise UserError(f"generated and {name} images do not fit together: {' and '.join(sizes)}")
        for what, items in (("indices", self.indices), ("cameras", self.cameras), ("masks", self.visible)):
            if items is not None and len(items) != len(judged):
                raise UserError(f"{len(items)} {what} do not fit {len(judged)} images")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images in pixels."""
        return self.generated.shape[-1], self.generated.shape[-2]

    @property
    def candidates(self) -> Values:
        """The images that stand for the new view."""
        copies = {COPY_SOURCE: self.source} if self.baseline and self.source is not None else {}
        warps = {} if self.warped is None else {WARP: self.warped}
        return {GENERATED: self.generated, **copies, **warps}

    def with_depth(self, depth: torch.Tensor) -> Views:
        """The batch with `warped` and `visible`, from the z-depth of the source views, [N, 1, H, W].

        Holes of the warp get the mean colour of the source view, the best constant without knowing more.
        Raises UserError where source views or cameras are missing.
        """
        if self.source is None or self.cameras is None:
            raise UserError("to warp source views takes their cameras (run.json of generate_images)")
        warped, visible = [], []
        for image, z, cameras in zip(self.source.to(torch.float32), depth[:, 0], self.cameras, strict=True):
            moved, seen = warp_depth(image, z, *cameras)
            warped.append(torch.where(seen, moved, image.mean(dim=(1, 2), keepdim=True)).round().to(torch.uint8))
            visible.append(seen[None])
        return replace(self, warped=torch.stack(warped), visible=torch.stack(visible))

    def without_border(self, share: float) -> Views:
        """The batch without that share of height and width at each side, rounded inwards as Flash3D does."""
        width, height = self.size
        left, top = math.ceil(share * width), math.ceil(share * height)
        right, bottom = math.floor((1 - share) * width), math.floor((1 - share) * height)

        def cut(images: torch.Tensor | None) -> torch.Tensor | None:
            return None if images is None else images[..., top:bottom, left:right]

        box = left, top, right - left, bottom - top
        cameras = None if self.cameras is None else [(one.crop(*box), two.crop(*box)) for one, two in self.cameras]
        names = ("generated", "target", "source", "visible", "warped")
        images: dict[str, Any] = {name: cut(getattr(self, name)) for name in names}
        return replace(self, cameras=cameras, **images)

    def with_homography(self) -> Views:
        """The batch with `warped`: source views at infinite depth, by K_tgt R K_src^-1; holes keep the source's pixels.

        Raises UserError where source views or cameras are missing.
        """
        if self.source is None or self.cameras is None:
            raise UserError("to turn source views takes their cameras (run.json of generate_images)")
        turned = []
        for image, (source, target) in zip(self.source, self.cameras, strict=True):
            moved, seen = turned_view(View(image, source), target)
            turned.append(torch.where(seen, moved, image))
        return replace(self, warped=torch.stack(turned))

    def features(self, detector: Detector, role: str) -> torch.Tensor:
        """Features [N, D] of the images of a role, computed once however many metrics want them."""
        key = detector.info.name, role
        if key not in self._features:
            images = {**self.candidates, COPY_SOURCE: self.source, TARGET: self.target}[role]
            self._features[key] = detector(present(images))
        return self._features[key]
