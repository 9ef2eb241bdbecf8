"""Does the new view fit its pose? The thresholded symmetric epipolar distance, TSED (Yu et al. 2023, section 4.1).

Points matched between source and new view must lie on each other's epipolar lines. A pair is consistent when it has at
least 10 matches and their median symmetric epipolar distance is below a threshold; TSED is the share of such pairs.
"""

from __future__ import annotations

import numpy as np

from torch_utils.cameras import Camera
from torch_utils.matching import Keypoints, match, symmetric_epipolar_distance

MIN_MATCHES = 10  # Yu et al. 2023
THRESHOLD_PX, THRESHOLD_SIDE = 2.0, 256  # one of their thresholds, at their resolution; other sizes are scaled to it


def median_epipolar_distance(source_points: Keypoints, points: Keypoints, source: Camera, target: Camera) -> float:
    """Median symmetric epipolar distance, in pixels, of the matches between a source view and a view from `target`.

    Infinite below `MIN_MATCHES` matches: such a pair is not consistent at any threshold.
    """
    pairs = match(source_points, points)
    if len(pairs) < MIN_MATCHES:
        return float("inf")
    pixels = source_points.pixels[pairs[:, 0]], points.pixels[pairs[:, 1]]
    return float(np.median(symmetric_epipolar_distance(*pixels, source, target)))
