"""Which metrics to compute where nobody says: those that can be had here, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dnnlib import UserError
from metrics.definitions import FEATURE_METRICS, TSED
from metrics.detectors import INCEPTION_DIM
from metrics.runner import Evaluation

IMAGE_DEFAULTS = ("psnr", "ssim", "lpips")
GENERATIVE_DEFAULTS = ("fid", "fd_efficientnet")  # the first needs a download, the second a package


def default_metrics(
    has_cameras: bool, count: int, allow_few: bool, weights: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Names, and for each that is left out a line that says why."""
    names = [*IMAGE_DEFAULTS, *([TSED] if has_cameras else []), *GENERATIVE_DEFAULTS]
    left_out = [] if has_cameras else [f"left out: {TSED} needs run.json of generate_images, which tells the cameras"]
    usable, why = usable_metrics(names, count, allow_few, weights)
    return usable, [*left_out, *why]


def usable_metrics(
    names: Iterable[str], count: int, allow_few: bool = False, weights: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Return those that can be computed here of `count` images, and for each other one a line that says why not.

    Networks that are published somewhere are fetched, unless the images are too few for them anyway.
    """
    usable, left_out = [], []
    for name in names:
        try:
            metric = FEATURE_METRICS.get(name)
            if metric is not None and metric.detector == "inception":
                replace(metric, allow_few=allow_few).check_count(count, INCEPTION_DIM)
            Evaluation([name], weights=weights, allow_few=allow_few).check_count(count)
        except UserError as error:
            left_out.append(f"left out: {error}" if str(error).startswith(name) else f"left out: {name}, {error}")
        else:
            usable.append(name)
    return usable, left_out
