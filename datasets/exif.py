"""What EXIF tells of the lens of a photograph, in any of the three ways that cameras write it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

from dnnlib.imaging import open_image

_IFD = 0x8769
_MAKE, _MODEL = 0x010F, 0x0110
_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_X_RESOLUTION, _RESOLUTION_UNIT = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # inch, centimetre, and, beyond the standard, mm and µm
_FILM_DIAGONAL_MM = math.hypot(36, 24)  # what "35 mm equivalent" refers to (CIPA DCG-001)
_FOV_LIMITS_DEG = (1.0, 170.0)

# Crop factors by maker and model, for cameras that write the focal length alone: the first that fits.
_CROP_FACTORS = (
    (r"canon.*eos[- ](1ds|1d x|5d|6d|r3|r5|r6|r8|r1|rp|r)\b|canon.*eos 1d x", 1.0),
    (r"canon.*eos[- ]1d\b", 1.29),
    (r"canon.*eos", 1.61),
    (r"nikon (d3s?|d3x|d4s?|d5|d6|d6[01]0|d700|d750|d780|d8[0-9]{2}[ea]?|df|z ?[5-9](ii|_2|_3)?|z ?f)\b", 1.0),
    (r"nikon (1 |j[1-5]\b|v[1-3]\b)", 2.7),
    (r"nikon (d[0-9]|z)", 1.53),
    (r"sony (ilce-(1|7|9)|ilme-fx3|dsc-rx1r?\b|slt-a99|dslr-a(850|900))", 1.0),
    (r"sony dsc-rx(100|10)", 2.73),
    (r"sony (ilce|nex|slt|dslr|zv-e10)", 1.53),
    (r"fujifilm gfx", 0.79),
    (r"fujifilm x", 1.53),
    (r"(olympus|om digital).*(e-|om-)", 2.0),
    (r"panasonic (dc|dmc)-(s[159])", 1.0),
    (r"panasonic (dc|dmc)-g", 2.0),
    (r".*pentax k-1\b", 1.0),
    (r".*pentax k", 1.53),
    (r"ricoh gr", 1.53),
)  # fmt: skip


def exif_fov_deg(file: str | PathLike, width: int, height: int) -> float | None:
    """Field of view of the shorter side, in degrees; None where EXIF tells none, or nonsense.

    From the focal length in 35 mm film, which is by diagonal: f_px = f_35 * diagonal_px / 43.3 mm; else from the focal
    length and the sensor's pixels a length; else from the focal length and the crop factor of the camera's model.
    """
    with open_image(file) as image:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(_IFD)}
    diagonal = math.hypot(width, height)
    film, focal = _number(tags, _FOCAL_35MM), _number(tags, _FOCAL_MM)
    if film:
        focal_px = film * diagonal / _FILM_DIAGONAL_MM
    elif focal and (density := _pixels_per_mm(tags, max(width, height))):
        focal_px = focal * density
    elif focal and (factor := crop_factor(str(tags.get(_MAKE, "")), str(tags.get(_MODEL, "")))):
        focal_px = focal * factor * diagonal / _FILM_DIAGONAL_MM
    else:
        return None
    fov = math.degrees(2 * math.atan(0.5 * min(width, height) / focal_px))
    return fov if _FOV_LIMITS_DEG[0] <= fov <= _FOV_LIMITS_DEG[1] else None


def crop_factor(make: str, model: str) -> float | None:
    """Return how many times the diagonal of 35 mm film is that of a camera's sensor; None for unknown models."""
    make, model = make.strip(" \0").lower(), model.strip(" \0").lower()
    name = model if make and model.startswith(make.split()[0]) else f"{make} {model}"
    name = name.replace("nikon corporation", "nikon")
    return next((factor for pattern, factor in _CROP_FACTORS if re.match(pattern, name)), None)


def _pixels_per_mm(tags: Mapping[int, Any], longer_side: int) -> float | None:
    """Return the sensor's pixels per millimetre, of the picture as it is: it may have been made smaller since."""
    density = _number(tags, _X_RESOLUTION)
    if not density:
        return None
    stored = max(_number(tags, _WIDTH) or 0, _number(tags, _HEIGHT) or 0) or longer_side
    return density / _UNIT_MM.get(tags.get(_RESOLUTION_UNIT, 0), 25.4) * longer_side / stored


def _number(tags: Mapping[int, Any], tag: int) -> float | None:
    """A positive number, or None for what is none: EXIF writes 0, and 0/0, for unknown."""
    try:
        value = float(tags.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if 0 < value < math.inf else None
