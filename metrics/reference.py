"""Saved statistics of real images, to compare generated ones with: an npz file of moments and what they are of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnnlib import UserError
from dnnlib.text_files import parse_json
from dnnlib.util import ZIP_DAMAGE, atomic_path
from metrics.definitions import FEATURE_METRICS
from metrics.detectors import Detector, DetectorInfo
from metrics.frechet import Moments

_FORMAT = 1
_JOINT = "joint_"  # before the name of a detector: each feature is followed by that of the image's source view


@dataclass
class Reference:
    """Moments of features of real images.

    Attributes:
        moments: by detector name, or ``joint_`` and detector name. detectors: by name.
    """

    moments: dict[str, Moments] = field(default_factory=dict)
    detectors: dict[str, DetectorInfo] = field(default_factory=dict)

    def moments_for(self, name: str, detector: DetectorInfo) -> Moments:
        """The moments under a name. Raises UserError where there are none, or another network made them."""
        if name not in self.moments:
            known = ", ".join(self.moments) or "nothing"
            raise UserError(f"the reference has no statistics of {name} features, only of {known}: make one that has")
        theirs = self.detectors[detector.name]
        if theirs != detector:
            raise UserError(
                f"the reference is of another detector ({theirs}) than the one at hand ({detector}): make it again"
            )
        return self.moments[name]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file, whole or not at all."""
        about = {"format": _FORMAT, "detectors": {name: info.to_dict() for name, info in self.detectors.items()}}
        arrays: dict[str, Any] = {
            f"{name}.{part}": np.asarray(getattr(moments, part))
            for name, moments in self.moments.items()
            for part in ("count", "mean", "scatter")
        }
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)


def load_reference(path: str | os.PathLike[str]) -> Reference:
    """Read what `Reference.save` wrote. Raises UserError for anything else."""
    path = Path(path)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = parse_json(str(file["about"]), path)
            names = [key.removesuffix(".count") for key in file.files if key.endswith(".count")]
            moments = {
                name: Moments(int(file[f"{name}.count"]), file[f"{name}.mean"], file[f"{name}.scatter"])
                for name in names
            }
            detectors = {name: DetectorInfo(**info) for name, info in about["detectors"].items()}
    except FileNotFoundError:
        raise UserError(f"there is no reference file {path}; make one with: calculate_metrics.py ref") from None
    except (*ZIP_DAMAGE, OSError, KeyError, TypeError, AttributeError, MemoryError):
        raise UserError(f"{path} is no reference file; make one with: calculate_metrics.py ref") from None
    return Reference(moments, detectors)


def detectors_of(metrics: Iterable[str]) -> dict[str, str]:
    """The detector's name under each name that `build_reference` gives statistics, for metrics that take a reference.

    Raises UserError for metrics that take none.
    """
    takes = {name: metric for name, metric in FEATURE_METRICS.items() if not metric.keeps_features}
    wrong = [name for name in metrics if name not in takes]
    if wrong:
        raise UserError(f"there are no statistics for {', '.join(wrong)}; known are {', '.join(takes)}")
    return {takes[name].reference_name: takes[name].detector for name in metrics}


def build_reference(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor | None]], detectors: Mapping[str, Detector]
) -> Reference:
    """Statistics of real images.

    Args: batches: of images and their source views, uint8 [N, 3, H, W]; None: no source views. detectors: by the name
    of what to save, as `FeatureMetric.reference_name` has it: ``inception``, ``joint_inception`` and so on.
    """
    moments = {name: Moments() for name in detectors}
    for images, source in batches:
        for name, detector in detectors.items():
            rows = detector(images)
            if name.startswith(_JOINT):
                if source is None:
                    raise UserError(f"statistics of {name} features need source views; leave the joint metric out")
                rows = torch.cat([rows, detector(source)], dim=1)
            moments[name].update(rows)
    return Reference(moments, {detector.info.name: detector.info for detector in detectors.values()})
