"""Lenses: focal length and principal point, camera models by their names, and what of them a pinhole leaves out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dnnlib.text_files import number
from torch_utils.cameras import Camera, intrinsics_matrix

# Of the coefficients of a lens. Frames of a lens that bends more have to be undistorted: straight lines are off by
# pixels.
MAX_DISTORTION = 0.01
_MOST_SIDE = 1 << 24  # pixels


class Model(NamedTuple):
    """A camera model of COLMAP: focal lengths (one or two), cx, cy, then coefficients of distortion.

    Attributes:
        coefficients: their values for no distortion.
    """

    focals: int
    coefficients: tuple[float, ...] = ()
    fisheye: bool = False


# In the order of COLMAP's numbers, which its binary files have (src/colmap/sensor/models.h, version 4.2).
MODELS = {
    "SIMPLE_PINHOLE":             Model(1),
    "PINHOLE":                    Model(2),
    "SIMPLE_RADIAL":              Model(1, (0,)),
    "RADIAL":                     Model(1, (0,) * 2),
    "OPENCV":                     Model(2, (0,) * 4),
    "OPENCV_FISHEYE":             Model(2, (0,) * 4, fisheye=True),
    "FULL_OPENCV":                Model(2, (0,) * 8),
    "FOV":                        Model(2, (0,)),
    "SIMPLE_RADIAL_FISHEYE":      Model(1, (0,), fisheye=True),
    "RADIAL_FISHEYE":             Model(1, (0,) * 2, fisheye=True),
    "THIN_PRISM_FISHEYE":         Model(2, (0,) * 8, fisheye=True),
    "RAD_TAN_THIN_PRISM_FISHEYE": Model(2, (0,) * 12, fisheye=True),
    "SIMPLE_DIVISION":            Model(1, (0,)),
    "DIVISION":                   Model(2, (0,)),
    "SIMPLE_FISHEYE":             Model(1, fisheye=True),
    "FISHEYE":                    Model(2, fisheye=True),
    "EUCM":                       Model(2, (0, 1)),
    "EQUIRECTANGULAR":            None,
}  # fmt: skip
_NERFSTUDIO_COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


@dataclass(frozen=True)
class Lens:
    """Intrinsics in pixels of a picture of some size.

    Attributes:
        size: width and height of that picture; None where the file does not tell.
        distortion: the largest coefficient, as a difference from none.

    Raises ValueError unless the focal lengths are positive, all numbers finite and the picture has a size.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[float, float] | None
    model: str = "PINHOLE"
    distortion: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy)
        if not (all(map(math.isfinite, numbers)) and self.fx > 0 and self.fy > 0):
            raise ValueError("a lens of {:g} {:g} {:g} {:g}: focal lengths must be positive".format(*numbers))
        if self.size is not None and not all(0 < side <= _MOST_SIDE for side in self.size):
            raise ValueError("a picture of {:g}x{:g} pixels, which there is not".format(*self.size))
        half_deg = math.degrees(max(self.cx / self.fx, self.cy / self.fy)) if self.fisheye else 0.0
        if half_deg >= 90:
            raise ValueError(
                f"{self.model} sees {half_deg:.0f} degrees aside, which no pinhole does: make it one first"
            )

    @property
    def fisheye(self) -> bool:
        return check_model(self.model).fisheye

    @property
    def distorted(self) -> bool:
        """Whether pictures have to be undistorted before they can be used."""
        return self.fisheye or self.distortion > MAX_DISTORTION

    def fractions(self, width: float, height: float) -> list[float]:
        """fx, fy, cx, cy as fractions of the sides; width and height are used where the lens has no size."""
        width, height = self.size or (width, height)
        return [self.fx / width, self.fy / height, self.cx / width, self.cy / height]

    def camera(self, extrinsics: torch.Tensor, width: int, height: int) -> Camera:
        """The pinhole of this lens and pose; width and height are used where the lens has no size."""
        width, height = map(round, self.size or (width, height))
        numbers = torch.tensor([self.fx, self.fy, self.cx, self.cy], dtype=torch.float64)
        return Camera(intrinsics_matrix(*numbers), extrinsics, width, height)


def check_model(name: str) -> Model:
    """A camera model by name; ValueError for those that are unknown, or no pinholes even where they do not distort."""
    if name not in MODELS:
        raise ValueError(f"there is no camera model {name!r}; known are {', '.join(MODELS)}")
    model = MODELS[name]
    if model is None:
        raise ValueError(f"{name} is a panorama, which no pinhole can show: cut perspective pictures from it first")
    return model


def colmap_lens(name: str, width: int, height: int, numbers: Sequence[float]) -> Lens:
    """A camera of COLMAP. Raises ValueError for models that cannot be, and where there are too few or many numbers."""
    model = check_model(name)
    expected = model.focals + 2 + len(model.coefficients)
    if len(numbers) != expected:
        raise ValueError(f"{len(numbers)} numbers for {name}, which has {expected}")
    fx, fy = numbers[0], numbers[model.focals - 1]
    cx, cy, *coefficients = numbers[model.focals :]
    if not all(map(math.isfinite, coefficients)):
        raise ValueError("numbers that are not finite")
    bent = [abs(value - none) for value, none in zip(coefficients, model.coefficients, strict=True)]
    return Lens(fx, fy, cx, cy, (width, height), name, max(bent, default=0.0))


def focal_px(side: float, angle: float) -> float:
    """The focal length with which a side of a picture spans an angle in radians; ValueError where none does."""
    if not 0 < angle < math.pi:
        raise ValueError(f"an angle of view of {math.degrees(angle):g} degrees; it must be between 0 and 180")
    return side / 2 / math.tan(angle / 2)


def nerfstudio_lens(
    values: Mapping[str, Any], size: tuple[float, float] | None, like: tuple[float, float] = (1, 1)
) -> Lens | None:
    """The lens that the keys of nerfstudio, Blender and instant-ngp tell; None where they tell none.

    Args:
        values: those of the file, and of the frame above them.
        size: of the frame's picture, where that is there to be asked.
        like: size of the picture that an angle of view is taken to span where no other size is known.

    Raises ValueError for a model that is no pinhole, an angle that is none, and what is no number.
    """
    model = "OPENCV_FISHEYE" if values.get("is_fisheye") else str(values.get("camera_model", "OPENCV"))
    check_model(model)
    if "w" in values and "h" in values:
        size = number(values["w"], "w"), number(values["h"], "h")
    elif size is None and "cx" in values and "cy" in values:
        size = round(2 * number(values["cx"], "cx")), round(2 * number(values["cy"], "cy"))
    if "fl_x" in values:
        fx = number(values["fl_x"], "fl_x")
    elif "camera_angle_x" in values:
        size = size or like
        fx = focal_px(size[0], number(values["camera_angle_x"], "camera_angle_x"))
    else:
        return None
    width, height = size or like
    center = number(values.get("cx", width / 2), "cx"), number(values.get("cy", height / 2), "cy")
    bent = max(abs(number(values.get(key, 0.0), key)) for key in _NERFSTUDIO_COEFFICIENTS)
    return Lens(fx, number(values.get("fl_y", fx), "fl_y"), *center, size, model, bent)
