"""The metrics by name: what each measures, how it adds up, what it says in the end.

An `ImageMetric` has a number for each image; a `FeatureMetric` compares two sets of features. Both are stateless:
`measure` gives the values of a batch by role, an `accumulator` for each role takes them, `compute` reads those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from dnnlib import UserError
from metrics.detectors import Detector
from metrics.frechet import Moments, frechet_infinity, moments_distance
from metrics.geometry import MIN_MATCHES, THRESHOLD_PX, THRESHOLD_SIDE, median_epipolar_distance
from metrics.image import psnr, ssim
from metrics.kid import kernel_distance
from metrics.lpips import LPIPS
from metrics.views import COPY_SOURCE, GENERATED, TARGET, WARP, Values, Views
from torch_utils.matching import Keypoints, sift

T = TypeVar("T")

_LPIPS_BATCH = 8  # pairs at a time: the first layers of VGG16 take 34 MB for an image of 256 pixels a side


@dataclass(frozen=True, eq=False)
class Tools:
    """What measuring takes besides images.

    Attributes:
        device: where networks compute. detectors: by name. lpips: by name of the metric.
        map: the built-in one, or that of a pool of processes.
    """

    device: torch.device
    detectors: Mapping[str, Detector] = field(default_factory=dict)
    lpips: Mapping[str, LPIPS] = field(default_factory=dict)
    map: Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]] = map


@dataclass
class ByIndex(Generic[T]):
    """Something for each image, kept by the image's index, so that the order of arrival changes no result."""

    values: dict[int, T] = field(default_factory=dict)

    def update(self, indices: Sequence[int], values: Iterable[T]) -> None:
        self.values.update(zip(indices, values, strict=True))

    def merge(self, other: ByIndex[T]) -> None:
        self.values.update(other.values)

    def ordered(self) -> dict[int, T]:
        return dict(sorted(self.values.items()))


Accumulator = ByIndex[float] | ByIndex[np.ndarray] | Moments


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        name: of the metric. higher_is_better: which way is good.
        generated: the number of the generated images; NaN where none has one.
        copy_source: what copying the source view would have got; None without source views.
        target: what the true targets get, where that is no constant; else None.
        images: how many images have a number.
        per_image: of each generated image that has one, by index; empty for a feature metric.
        per_image_name, per_image_higher_is_better: what that number is, and which way is good.
        note: what to know when reading the line, or "".
        warp: what moving the source view by its depth would have got; None without depth.
    """

    name: str
    higher_is_better: bool
    generated: float
    copy_source: float | None
    target: float | None
    images: int
    per_image: Mapping[int, float] = field(default_factory=dict)
    per_image_name: str = ""
    per_image_higher_is_better: bool = False
    note: str = ""
    warp: float | None = None


@dataclass(frozen=True)
class ImageMetric:
    """A number for each image, and its mean, or another summary, over the images that have one.

    Attributes:
        numbers: of the candidates of a batch, [N] by role; NaN where an image has none.
        needs: the attributes of `Views` that must be there, with words for each.
        summary: numbers [N], none of them NaN, to the one in the table.
        per_image_name, per_image_higher_is_better: as in `Result`.
    """

    name: str
    numbers: Callable[[Views, Tools], Values]
    higher_is_better: bool
    per_image_name: str
    per_image_higher_is_better: bool
    needs: Mapping[str, str] = field(default_factory=dict)
    summary: Callable[[np.ndarray], float] = np.mean
    note: str = ""

    def accumulator(self) -> ByIndex[float]:
        return ByIndex()

    def measure(self, views: Views, tools: Tools) -> Values:
        """Raises UserError where the batch lacks what the metric needs."""
        for attribute, words in self.needs.items():
            if getattr(views, attribute) is None:
                raise UserError(f"{self.name} needs {words}; leave it out")
        return self.numbers(views, tools)

    def add(self, accumulator: ByIndex[float], indices: Sequence[int], values: torch.Tensor) -> None:
        accumulator.update(indices, values.tolist())

    def compute(self, accumulators: Mapping[str, ByIndex[float]]) -> Result:
        numbers = {
            role: {index: value for index, value in by_index.ordered().items() if not np.isnan(value)}
            for role, by_index in accumulators.items()
        }
        table = {role: self._summary(list(per_image.values())) for role, per_image in numbers.items()}
        return Result(
            self.name,
            self.higher_is_better,
            table[GENERATED],
            table.get(COPY_SOURCE),
            table.get(TARGET),
            len(numbers[GENERATED]),
            numbers[GENERATED],
            self.per_image_name,
            self.per_image_higher_is_better,
            self.note,
            table.get(WARP),
        )

    def _summary(self, numbers: list[float]) -> float:
        return float(self.summary(np.array(numbers))) if numbers else float("nan")


@dataclass(frozen=True)
class FeatureMetric:
    """A distance between the features of the candidates and those of the targets, or of a saved reference.

    Attributes:
        detector: name of the network. joint: each feature is followed by that of the image's source view.
        distance: of what two accumulators hold: `Moments`, or all features, [N, D], where `keeps_features`.
        biased: the distance is too large by about 1/N of the images: below D of them it says little.
        reference: moments in place of the targets'.
        allow_few: compute it all the same, and note it.
    """

    name: str
    detector: str
    distance: Callable[[Any, Any], float]
    joint: bool = False
    keeps_features: bool = False
    biased: bool = True
    reference: Moments | None = None
    allow_few: bool = False

    @property
    def reference_name(self) -> str:
        """Under which a file of references holds the moments that this metric compares with."""
        return f"joint_{self.detector}" if self.joint else self.detector

    def accumulator(self) -> Accumulator:
        return ByIndex() if self.keeps_features else Moments()

    def measure(self, views: Views, tools: Tools) -> Values:
        if self.joint and views.source is None:
            raise UserError(f"{self.name} needs source views; leave it out")
        detector = tools.detectors[self.detector]
        roles = [*views.candidates, *([] if self.reference else [TARGET])]
        features = {role: views.features(detector, role) for role in roles}
        if not self.joint:
            return features
        source = views.features(detector, COPY_SOURCE)
        return {role: torch.cat([rows, source], dim=1) for role, rows in features.items()}

    def add(self, accumulator: Accumulator, indices: Sequence[int], values: torch.Tensor) -> None:
        if isinstance(accumulator, Moments):
            accumulator.update(values)
        else:
            accumulator.update(indices, values.numpy())  # rows of an array, unlike of a tensor, are sent on their own

    def check_count(self, count: int, dim: int) -> str:
        """A note for the table, or "". `dim`: of the detector. Raises UserError where so few images say nothing."""
        dim *= 2 if self.joint else 1
        if count < 2:
            raise UserError(f"{self.name} compares sets of images: it needs two or more, not {count}")
        if not self.biased or count >= dim:
            return ""
        reason = f"{count} images are fewer than the {dim} features"
        if not self.allow_few:
            raise UserError(
                f"{self.name}: {reason}, which biases it; take more images, leave it out, or allow it (--allow-few)"
            )
        return f"{reason}: biased upwards, comparable only at the same number of images"

    def compute(self, accumulators: Mapping[str, Accumulator]) -> Result:
        held = {role: _held(accumulator) for role, accumulator in accumulators.items()}
        target = held[TARGET] if self.reference is None else self.reference
        count, width = _shape(held[GENERATED])
        note = self.check_count(count, width // 2 if self.joint else width)
        generated, copy_source, warp = (
            self.distance(held[role], target) if role in held else None for role in (GENERATED, COPY_SOURCE, WARP)
        )
        return Result(self.name, False, generated, copy_source, None, count, note=note, warp=warp)


def _held(accumulator: Accumulator) -> Moments | np.ndarray:
    return accumulator if isinstance(accumulator, Moments) else np.stack(list(accumulator.ordered().values()))


def _shape(held: Moments | np.ndarray) -> tuple[int, int]:
    return (held.count, held.dim) if isinstance(held, Moments) else held.shape


def _each(function: Callable[[torch.Tensor, Views, Tools], torch.Tensor]) -> Callable[[Views, Tools], Values]:
    """From a function of one set of candidate images to one of all sets."""
    return lambda views, tools: {role: function(images, views, tools) for role, images in views.candidates.items()}


def _lpips(name: str) -> Callable[[torch.Tensor, Views, Tools], torch.Tensor]:
    @torch.no_grad()
    def distances(images: torch.Tensor, views: Views, tools: Tools) -> torch.Tensor:
        batches = zip(images.split(_LPIPS_BATCH), views.target.split(_LPIPS_BATCH), strict=True)
        return torch.cat([tools.lpips[name](*(part.to(tools.device) for part in both)).cpu() for both in batches])

    return distances


def _epipolar_distances(views: Views, tools: Tools) -> Values:
    """Median symmetric epipolar distances of candidates and target, in pixels of an image of 256."""

    def points(images: torch.Tensor) -> list[Keypoints]:
        return list(tools.map(sift, images.permute(0, 2, 3, 1).numpy()))

    def distances(candidates: list[Keypoints]) -> torch.Tensor:
        pairs = zip(source, candidates, views.cameras, strict=True)
        medians = [median_epipolar_distance(first, second, *cameras) for first, second, cameras in pairs]
        return torch.tensor(medians, dtype=torch.float64) * (THRESHOLD_SIDE / views.target.shape[-1])

    source = points(views.source)
    images = {**views.candidates, TARGET: views.target}
    return {role: distances(source if role == COPY_SOURCE else points(of)) for role, of in images.items()}


def _share_consistent(distances: np.ndarray) -> float:
    return float(np.mean(distances < THRESHOLD_PX))


_CAMERAS = {"source": "source views", "cameras": "the cameras of the pairs (run.json of generate_images)"}
_VISIBLE = {"visible": "to know which pixels the source view sees (--depth-model)"}

IMAGE_METRICS: Mapping[str, ImageMetric] = {
    metric.name: metric
    for metric in (
        ImageMetric("psnr", _each(lambda i, v, _: psnr(i, v.target)), True, "PSNR, dB", True),
        ImageMetric("ssim", _each(lambda i, v, _: ssim(i, v.target)), True, "SSIM", True),
        ImageMetric("lpips", _each(_lpips("lpips")), False, "LPIPS", False),
        ImageMetric("lpips_vgg", _each(_lpips("lpips_vgg")), False, "LPIPS (VGG16)", False),
        ImageMetric(
            "psnr_visible",
            _each(lambda i, v, _: psnr(i, v.target, v.visible)),
            True,
            "visible PSNR, dB",
            True,
            _VISIBLE,
        ),
        ImageMetric(
            "psnr_disoccluded",
            _each(lambda i, v, _: psnr(i, v.target, ~v.visible)),
            True,
            "disoccluded PSNR, dB",
            True,
            _VISIBLE,
        ),
        ImageMetric(
            "tsed",
            _epipolar_distances,
            True,
            f"epipolar distance, px at {THRESHOLD_SIDE}",
            False,
            _CAMERAS,
            _share_consistent,
            note=f"share of pairs with {MIN_MATCHES} matches or more whose median epipolar distance is below "
            f"{THRESHOLD_PX:g} px at {THRESHOLD_SIDE}",
        ),
    )
}

FEATURE_METRICS: Mapping[str, FeatureMetric] = {
    metric.name: metric
    for detector, name, kid in (
        ("inception", "fid", "kid"),
        ("dinov2", "fd_dinov2", "kid_dinov2"),
        ("efficientnet", "fd_efficientnet", "kid_efficientnet"),
    )
    for metric in (
        FeatureMetric(name, detector, moments_distance),
        FeatureMetric(f"joint_{name}", detector, moments_distance, joint=True),
        FeatureMetric(f"{name}_inf", detector, frechet_infinity, keeps_features=True),
        FeatureMetric(kid, detector, kernel_distance, keeps_features=True, biased=False),
    )
}
