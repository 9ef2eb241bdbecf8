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
from einops import rearrange

from dnnlib import UserError
from dnnlib.util import present
from metrics.detectors import Detector
from metrics.frechet import Moments, frechet_infinity, moments_distance, moments_of
from metrics.geometry import MIN_MATCHES, THRESHOLD_PX, THRESHOLD_SIDE, median_epipolar_distance
from metrics.image import psnr, ssim
from metrics.kid import kernel_distance
from metrics.lpips import LPIPS
from metrics.views import COPY_SOURCE, GENERATED, TARGET, Values, Views
from torch_utils.matching import Keypoints, sift

T = TypeVar("T")
TSED = "tsed"

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
class Number:
    """A number of the table, and how sure it is.

    Attributes:
        value: NaN where no image has a finite number.
        standard_error: None where it is not known.
        interval: the ends of a bootstrap interval of 95 %, see `FeatureMetric`; None without.
    """

    value: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Score:
    """One line of the table.

    Attributes:
        name: of the metric. higher_is_better: which way is good.
        numbers: by role: of the generated images; what copying the source view would have got; what moving it by its
            depth would have got; what the true targets get, where that is no constant.
        images: how many generated images have a number.
        per_image: of each generated image that has one, by index; empty for a feature metric.
        per_image_name, per_image_higher_is_better: what that number is, and which way is good.
        note: what to know when reading the line, or "".
    """

    name: str
    higher_is_better: bool
    numbers: Mapping[str, Number]
    images: int
    per_image: Mapping[int, float] = field(default_factory=dict)
    per_image_name: str = ""
    per_image_higher_is_better: bool = False
    note: str = ""

    def value(self, role: str) -> float | None:
        """None where the role was not judged."""
        return self.numbers[role].value if role in self.numbers else None

    @property
    def generated(self) -> float:
        """The number of the generated images; NaN where none has one."""
        return self.numbers[GENERATED].value


@dataclass(frozen=True)
class Summary:
    """What the numbers of images come to: the number in the table, how many images it is of, and a remark, or ""."""

    number: Number
    images: int
    note: str = ""


def mean_summary(values: np.ndarray) -> Summary:
    """Mean and its standard error, of the finite ones: equal images have an infinite PSNR, which would be the mean."""
    finite = values[np.isfinite(values)]
    left_out = len(values) - len(finite)
    note = f"{left_out} of {len(values)} equal their target, which has no finite number, and are left out" * bool(
        left_out
    )
    if not len(finite):
        return Summary(Number(float("nan")), 0, note)
    error = float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else None
    return Summary(Number(float(finite.mean()), error), len(finite), note)


def consistent(distance: float) -> bool:
    """Whether a pair with this median epipolar distance, in pixels of an image of 256, fits its poses."""
    return distance < THRESHOLD_PX


def share_summary(distances: np.ndarray) -> Summary:
    """TSED from median epipolar distances, infinite where there are too few matches to tell."""
    consistent, untold = int((distances < THRESHOLD_PX).sum()), int(np.isinf(distances).sum())
    share = consistent / len(distances) if len(distances) else float("nan")
    error = float(np.sqrt(share * (1 - share) / len(distances))) if len(distances) else None
    wrong = len(distances) - consistent - untold
    note = f"{consistent} fit their poses, {wrong} do not, {untold} have too few matches to tell"
    return Summary(Number(share, error), len(distances), note)


@dataclass(frozen=True)
class ImageMetric:
    """A number for each image, and its mean, or another summary, over the images that have one.

    Attributes:
        numbers: of the candidates of a batch, [N] by role; NaN where an image has none.
        needs: the attributes of `Views` that must be there, with words for each.
        summary: of numbers [N], none of them NaN.
        per_image_name, per_image_higher_is_better: as in `Score`.
    """

    name: str
    numbers: Callable[[Views, Tools], Values]
    higher_is_better: bool
    per_image_name: str
    per_image_higher_is_better: bool
    needs: Mapping[str, str] = field(default_factory=dict)
    summary: Callable[[np.ndarray], Summary] = mean_summary
    note: str = ""

    def accumulator(self) -> ByIndex[float]:
        return ByIndex()

    def measure(self, views: Views, tools: Tools) -> Values:
        """Raises UserError where the batch lacks what the metric needs."""
        for attribute, words in {"target": "target images", **self.needs}.items():
            if getattr(views, attribute) is None:
                raise UserError(f"{self.name} needs {words}; leave it out")
        return self.numbers(views, tools)

    def add(self, accumulator: ByIndex[float], indices: Sequence[int], values: torch.Tensor) -> None:
        accumulator.update(indices, values.tolist())

    def compute(self, accumulators: Mapping[str, ByIndex[float]]) -> Score:
        numbers = {
            role: {index: value for index, value in by_index.ordered().items() if not np.isnan(value)}
            for role, by_index in accumulators.items()
        }
        found = {role: self.summary(np.array(list(per_image.values()))) for role, per_image in numbers.items()}
        remarks = [f"{role.replace('_', ' ')}: {summary.note}" for role, summary in found.items() if summary.note]
        return Score(
            self.name,
            self.higher_is_better,
            {role: summary.number for role, summary in found.items()},
            found[GENERATED].images,
            numbers[GENERATED],
            self.per_image_name,
            self.per_image_higher_is_better,
            "; ".join([*([self.note] if self.note else []), *remarks]),
        )


@dataclass(frozen=True)
class FeatureMetric:
    """A distance between the features of the candidates and those of the targets, or of a saved reference.

    Attributes:
        detector: name of the network. joint: each feature is followed by that of the image's source view.
        distance: of what two accumulators hold: `Moments`, or all features, [N, D], where `keeps_features`.
        biased: the distance is too large by about 1/N of the images: below D of them it says little.
        reference: moments in place of the targets'.
        allow_few: compute it all the same, and note it.
        bootstrap: so many resamples of the pairs tell a standard error and an interval of 95 %; 0: none. The interval
            is the basic one, which reflects the resamples about the distance: doubled images bias them upwards.
    """

    name: str
    detector: str
    distance: Callable[[Any, Any], float]
    joint: bool = False
    keeps_features: bool = False
    biased: bool = True
    reference: Moments | None = None
    allow_few: bool = False
    bootstrap: int = 0

    @property
    def reference_name(self) -> str:
        """Under which a file of references holds the moments that this metric compares with."""
        return f"joint_{self.detector}" if self.joint else self.detector

    def accumulator(self) -> Accumulator:
        return ByIndex() if self.keeps_features or self.bootstrap else Moments()

    def measure(self, views: Views, tools: Tools) -> Values:
        if self.joint and views.source is None:
            raise UserError(f"{self.name} needs source views; leave it out")
        detector = tools.detectors[self.detector]
        if self.reference is None and views.target is None:
            raise UserError(f"{self.name} needs target images, or a reference; leave it out")
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
                f"{self.name}: {reason}, which biases it; take more images, leave it out, or allow it (`allow_few`)"
            )
        return f"{reason}: biased upwards, comparable only at the same number of images"

    def compute(self, accumulators: Mapping[str, Accumulator]) -> Score:
        held = {role: _held(accumulator) for role, accumulator in accumulators.items()}
        target = held.pop(TARGET) if self.reference is None else self.reference
        count, width = _shape(held[GENERATED])
        note = self.check_count(count, width // 2 if self.joint else width)
        numbers = {role: self._number(candidates, target) for role, candidates in held.items()}
        return Score(self.name, False, numbers, count, note=note)

    def _number(self, candidates: Moments | np.ndarray, target: Moments | np.ndarray) -> Number:
        if not self.bootstrap:
            return Number(self.distance(candidates, target))
        from scipy.stats import bootstrap

        def of(rows: np.ndarray) -> float:
            pair = [given if isinstance(given, Moments) else given[rows] for given in (candidates, target)]
            return self.distance(*(pair if self.keeps_features else map(moments_of, pair)))

        every = np.arange(_shape(candidates)[0])
        found = bootstrap(
            (every,), of, n_resamples=self.bootstrap, vectorized=False, method="basic", rng=np.random.default_rng(0)
        )
        ends = found.confidence_interval
        return Number(of(every), float(found.standard_error), (float(ends.low), float(ends.high)))


def _held(accumulator: Accumulator) -> Moments | np.ndarray:
    return accumulator if isinstance(accumulator, Moments) else np.stack(list(accumulator.ordered().values()))


def _shape(held: Moments | np.ndarray) -> tuple[int, int]:
    return (held.count, held.dim) if isinstance(held, Moments) else held.shape


def _each(function: Callable[[torch.Tensor, Views, Tools], torch.Tensor]) -> Callable[[Views, Tools], Values]:
    """Turn a function of one set of candidate images into one of all sets."""
    return lambda views, tools: {role: function(images, views, tools) for role, images in views.candidates.items()}


def _lpips(name: str) -> Callable[[torch.Tensor, Views, Tools], torch.Tensor]:
    @torch.no_grad()
    def distances(images: torch.Tensor, views: Views, tools: Tools) -> torch.Tensor:
        batches = zip(images.split(_LPIPS_BATCH), present(views.target).split(_LPIPS_BATCH), strict=True)
        return torch.cat([tools.lpips[name](*(part.to(tools.device) for part in both)).cpu() for both in batches])

    return distances


def _epipolar_distances(views: Views, tools: Tools) -> Values:
    """Median symmetric epipolar distances of candidates and target, in pixels of an image of 256."""

    def points(images: torch.Tensor) -> list[Keypoints]:
        return list(tools.map(sift, rearrange(images, "b c h w -> b h w c").numpy()))

    def distances(candidates: list[Keypoints]) -> torch.Tensor:
        pairs = zip(source, candidates, present(views.cameras), strict=True)
        medians = [median_epipolar_distance(first, second, *cameras) for first, second, cameras in pairs]
        return torch.tensor(medians, dtype=torch.float64) * (THRESHOLD_SIDE / views.size[0])

    source = points(present(views.source))
    images = {**views.candidates, TARGET: present(views.target)}
    return {role: distances(source if role == COPY_SOURCE else points(of)) for role, of in images.items()}


_CAMERAS = {"source": "source views", "cameras": "the cameras of the pairs (run.json of generate_images)"}
_VISIBLE = {"visible": "to know which pixels the source view sees (`depth_model`)"}

IMAGE_METRICS: Mapping[str, ImageMetric] = {
    metric.name: metric
    for metric in (
        ImageMetric("psnr", _each(lambda i, v, _: psnr(i, present(v.target))), True, "PSNR, dB", True),
        ImageMetric("ssim", _each(lambda i, v, _: ssim(i, present(v.target))), True, "SSIM", True),
        ImageMetric("lpips", _each(_lpips("lpips")), False, "LPIPS", False),
        ImageMetric("lpips_vgg", _each(_lpips("lpips_vgg")), False, "LPIPS (VGG16)", False),
        ImageMetric(
            "psnr_visible",
            _each(lambda i, v, _: psnr(i, present(v.target), v.visible)),
            True,
            "visible PSNR, dB",
            True,
            _VISIBLE,
        ),
        ImageMetric(
            "psnr_disoccluded",
            _each(lambda i, v, _: psnr(i, present(v.target), ~present(v.visible))),
            True,
            "disoccluded PSNR, dB",
            True,
            _VISIBLE,
        ),
        ImageMetric(
            TSED,
            _epipolar_distances,
            True,
            f"epipolar distance, px at {THRESHOLD_SIDE}",
            False,
            _CAMERAS,
            share_summary,
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
