"""Cameras: the one place that knows the convention.

Axes are OpenCV's: x right, y down, z forward. Extrinsics are world-to-camera, ``x_cam = R x_world + t``, in the
unit of the reconstruction they come from. Intrinsics are in pixels; pixel (0, 0) covers [0, 1] x [0, 1], so its
centre is at (0.5, 0.5) and the principal point of an uncropped camera is usually at (width/2, height/2).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F

from dnnlib.util import UserError, check_regular

# Statistics of (relative pose [12], source fx fy cx cy, target fx fy cx cy) at 64x64 on RealEstate10K: docs/method.md,
# section 2.2.
GEOMETRY_DIM = 20
_STATS_RESOLUTION = 64
_GEOMETRY_MEAN = (
    9.6681e-01, -1.6038e-04, -3.7034e-05, -1.6904e-03,
    -8.7718e-05, 9.9869e-01, 3.1288e-03, -1.0794e-03,
    1.0653e-05, 3.0997e-03, 9.6691e-01, 1.2561e-02,
    57.708, 57.704, 32.0, 32.0,
    57.708, 57.704, 32.0, 32.0,
)  # fmt: skip
_GEOMETRY_STD = (
    0.1104, 0.0346, 0.2279, 0.4930,
    0.0347, 0.0091, 0.0367, 0.2208,
    0.2279, 0.0368, 0.1088, 1.0751,
    6.6464, 6.6511, 0.0, 0.0,
    6.6464, 6.6511, 0.0, 0.0,
)  # fmt: skip

REALESTATE10K_COLUMNS = 19  # of a line of a camera file
_ROTATION_TOLERANCE = 1e-3  # camera files carry 9 digits; products of a few rotations stay far below this
_PUBLISHED_RESOLUTIONS = (256, 64)  # the sizes through which the published code sends K, one after the other


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera, or a batch of them with one image size. Immutable: every method returns a new camera.

    Attributes:
        intrinsics: float64 [..., 3, 3], pixels.
        extrinsics: float64 [..., 3, 4], world-to-camera [R | t].
        width, height: size of the image in pixels.
        frame_side: shorter side, in pixels, of the frame the camera was read from. Crop and resize keep it;
            only the published code's intrinsics (see `geometry_vector`) depend on it.
    """

    intrinsics: torch.Tensor
    extrinsics: torch.Tensor
    width: int
    height: int
    frame_side: int = 0

    def __post_init__(self) -> None:
        if self.intrinsics.shape[-2:] != (3, 3) or self.extrinsics.shape[-2:] != (3, 4):
            raise ValueError(
                f"a camera needs intrinsics [..., 3, 3] and extrinsics [..., 3, 4], "
                f"not {list(self.intrinsics.shape)} and {list(self.extrinsics.shape)}"
            )
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a camera needs a positive image size, not {self.width}x{self.height}")
        object.__setattr__(self, "intrinsics", self.intrinsics.to(torch.float64))
        object.__setattr__(self, "extrinsics", self.extrinsics.to(torch.float64))
        object.__setattr__(self, "frame_side", self.frame_side or min(self.width, self.height))

    @classmethod
    def from_normalized(cls, values: torch.Tensor, width: int, height: int) -> Camera:
        """The 18 numbers of RealEstate10K, ``fx fy cx cy 0 0 r11 .. t3``, [..., 18], for an image of this size.

        fx and cx are fractions of the width, fy and cy of the height. Raises ValueError where the numbers are not
        finite, the focal length is not positive or the left 3x3 of the extrinsics is not a rotation.
        """
        values = torch.as_tensor(values, dtype=torch.float64)
        if values.shape[-1:] != (18,):
            raise ValueError(f"a camera has 18 numbers, not {list(values.shape)}")
        if not bool(torch.isfinite(values).all()):
            raise ValueError("a camera has numbers that are not finite")
        if not bool((values[..., :2] > 0).all()):
            raise ValueError("a camera has a focal length that is not positive")
        extrinsics = values[..., 6:].unflatten(-1, (3, 4))
        check_rotation(extrinsics[..., :3])
        fx, fy, cx, cy = values[..., :4].unbind(-1)
        return cls(intrinsics_matrix(fx * width, fy * height, cx * width, cy * height), extrinsics, width, height)

    @classmethod
    def from_fov(cls, fov_deg: float, width: int, height: int, extrinsics: torch.Tensor | None = None) -> Camera:
        """A centred camera with square pixels whose **shorter** side spans `fov_deg` degrees."""
        focal = torch.tensor(0.5 * min(width, height) / math.tan(math.radians(fov_deg) / 2), dtype=torch.float64)
        matrix = intrinsics_matrix(focal, focal, torch.tensor(width / 2), torch.tensor(height / 2))
        return cls(matrix, torch.eye(3, 4) if extrinsics is None else extrinsics, width, height)

    def to_normalized(self) -> torch.Tensor:
        """The inverse of `from_normalized`: float64 [..., 18]."""
        fx, fy, cx, cy = self.focal_and_center.unbind(-1)
        zero = torch.zeros_like(fx)
        head = torch.stack([fx / self.width, fy / self.height, cx / self.width, cy / self.height, zero, zero], dim=-1)
        return torch.cat([head, self.extrinsics.flatten(-2)], dim=-1)

    @property
    def focal_and_center(self) -> torch.Tensor:
        """(fx, fy, cx, cy) in pixels, float64 [..., 4]."""
        k = self.intrinsics
        return torch.stack([k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]], dim=-1)

    @property
    def rotation(self) -> torch.Tensor:
        """World-to-camera rotation, float64 [..., 3, 3]."""
        return self.extrinsics[..., :3]

    @property
    def translation(self) -> torch.Tensor:
        """World-to-camera translation, float64 [..., 3]."""
        return self.extrinsics[..., 3]

    @property
    def center(self) -> torch.Tensor:
        """Position of the camera in the world, -R^T t, float64 [..., 3]."""
        return -(self.rotation.mT @ self.translation[..., None])[..., 0]

    def crop(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of the sub-image whose upper left corner is the pixel (left, top)."""
        shift = torch.zeros(3, 3, dtype=torch.float64)
        shift[0, 2], shift[1, 2] = left, top
        return replace(self, intrinsics=self.intrinsics - shift, width=width, height=height)

    def crop_center(self, width: int | None = None, height: int | None = None) -> Camera:
        """The central width x height pixels; by default the central square of the shorter side."""
        return self._crop(*center_box(self.width, self.height, width, height))

    def square(self, resolution: int | None = None) -> Camera:
        """Cropped to the `square_box`, then resized to resolution x resolution: what the networks see."""
        camera = self._crop(*self.square_box())
        return camera if resolution is None else camera.resize(resolution)

    def _crop(self, *box: int) -> Camera:
        return self if box == (0, 0, self.width, self.height) else self.crop(*box)

    def square_box(self) -> tuple[int, int, int, int]:
        """(left, top, side, side) of the largest square around the principal point.

        The networks take the principal point to be in the middle. One that is within a pixel of the frame's middle
        gives the central square of the shorter side (docs/method.md, section 2.1). Raises UserError where the square
        would have less than half of that side, and ValueError for a batch whose principal points differ.
        """
        size, shorter = (self.width, self.height), min(self.width, self.height)
        pixel = shorter / self.frame_side  # of the frame that the camera was read from, at most
        columns = tuple(zip(*self.intrinsics[..., :2, 2].reshape(-1, 2).tolist(), strict=True))
        if all(abs(value - n / 2) <= pixel for values, n in zip(columns, size, strict=True) for value in values):
            return center_box(*size)
        if any(max(values) - min(values) > pixel for values in columns):
            raise ValueError("the principal points of a batch of cameras differ: crop one after the other")
        center = tuple(sum(values) / len(values) for values in columns)
        side = min(shorter, *(round(2 * min(c, n - c)) for c, n in zip(center, size, strict=True)))
        if side < shorter / 2:
            raise UserError(
                "the principal point ({:.0f}, {:.0f}) of a frame of {}x{} is so far from its middle that the square "
                "around it would have less than half of the frame's side".format(*center, *size)
            )
        left, top = (min(max(round(c - side / 2), 0), n - side) for c, n in zip(center, size, strict=True))
        return left, top, side, side

    def resize(self, width: int, height: int | None = None) -> Camera:
        """The camera of the image resized to width x height (default: a square)."""
        height = width if height is None else height
        scale = torch.tensor([width / self.width, height / self.height, 1.0], dtype=torch.float64)
        return replace(self, intrinsics=self.intrinsics * scale[:, None], width=width, height=height)

    def project(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """World points [..., N, 3] to pixels [..., N, 2] and z-depths [..., N]. Points with z <= 0 are behind."""
        local = points.to(torch.float64) @ self.rotation.mT + self.translation[..., None, :]
        homogeneous = local @ self.intrinsics.mT
        return homogeneous[..., :2] / homogeneous[..., 2:], local[..., 2]

    def unproject(self, pixels: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """Pixels [..., N, 2] at z-depths [..., N] to world points, float64 [..., N, 3]."""
        local = self._local_rays(pixels) * depth.to(torch.float64)[..., None]
        return (local - self.translation[..., None, :]) @ self.rotation

    def rays(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """World rays through pixels [..., N, 2]: origins [..., N, 3] and unit directions [..., N, 3]."""
        directions = F.normalize(self._local_rays(pixels) @ self.rotation, dim=-1)
        return self.center[..., None, :].expand_as(directions), directions

    def _local_rays(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels.to(torch.float64)
        homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
        return homogeneous @ torch.linalg.inv(self.intrinsics).mT


@dataclass(frozen=True, eq=False)
class View:
    """An image and the camera that took it; crop and resize move both. Immutable like its camera.

    Attributes:
        image: uint8 [3, H, W], RGB.
        camera: unbatched camera of the same size.
        depth: z-depth in the unit of the extrinsics, float32 [H, W], or None. Not positive or not finite: unknown.
    """

    image: torch.Tensor
    camera: Camera
    depth: torch.Tensor | None = None

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if self.image.dtype != torch.uint8 or tuple(self.image.shape) != (3, *size):
            raise ValueError(
                f"a view needs a uint8 image [3, {size[0]}, {size[1]}] to fit its camera, "
                f"not {self.image.dtype} {list(self.image.shape)}"
            )
        if self.depth is not None and tuple(self.depth.shape) != size:
            raise ValueError(f"a view needs depth {list(size)} to fit its camera, not {list(self.depth.shape)}")

    def crop_center(self, width: int | None = None, height: int | None = None) -> View:
        """The central width x height pixels; by default the central square of the shorter side."""
        return self._crop(*center_box(self.camera.width, self.camera.height, width, height))

    def _crop(self, left: int, top: int, width: int, height: int) -> View:
        if (width, height) == (self.camera.width, self.camera.height):
            return self
        rows, columns = slice(top, top + height), slice(left, left + width)
        return View(
            self.image[:, rows, columns],
            self.camera.crop(left, top, width, height),
            None if self.depth is None else self.depth[rows, columns],
        )

    def resize(self, width: int, height: int | None = None) -> View:
        """Resized to width x height (default: a square). Depth takes the nearest value: depths do not mix."""
        height = width if height is None else height
        if (width, height) == (self.camera.width, self.camera.height):
            return self
        depth = self.depth
        if depth is not None:
            depth = F.interpolate(depth[None, None], size=(height, width), mode="nearest-exact")[0, 0]
        return View(resize_image(self.image, width, height), self.camera.resize(width, height), depth)

    def square(self, resolution: int) -> View:
        """Cropped and resized like its camera: what the networks see (docs/method.md, section 2.1)."""
        return self._crop(*self.camera.square_box()).resize(resolution)


def center_box(
    image_width: int, image_height: int, width: int | None = None, height: int | None = None
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a centred box; the corner is rounded down. Default: the largest square."""
    side = min(image_width, image_height)
    width, height = width or side, height or width or side
    if width > image_width or height > image_height:
        raise ValueError(f"cannot crop {width}x{height} from an image of {image_width}x{image_height}")
    return (image_width - width) // 2, (image_height - height) // 2, width, height


def resize_image(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Antialiased bilinear resize of [C, H, W] or [B, C, H, W], uint8 (rounded) or floating point."""
    # These strides say that a picture lies pixel by pixel, as files give it, so that it is not turned around and back.
    batch = image if image.ndim == 4 else image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized if image.ndim == 4 else resized[0]


def pixels_to_float(image: torch.Tensor) -> torch.Tensor:
    """uint8 to the range of the networks: float32, x/127.5 - 1."""
    return image.to(torch.float32) / 127.5 - 1


def pixels_to_uint8(image: torch.Tensor) -> torch.Tensor:
    """Network range [-1, 1] to uint8: clip(127.5 x + 128, 0, 255), truncated."""
    return (image.to(torch.float32) * 127.5 + 128).clip(0, 255).to(torch.uint8)


def pixel_centers(width: int, height: int) -> torch.Tensor:
    """Centres (x, y) of all pixels, row by row: float64 [height * width, 2]."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).to(torch.float64)


def intrinsics_matrix(fx: torch.Tensor, fy: torch.Tensor, cx: torch.Tensor, cy: torch.Tensor) -> torch.Tensor:
    """[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] from numbers of one shape [...]: [..., 3, 3]."""
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def homogeneous(extrinsics: torch.Tensor) -> torch.Tensor:
    """[..., 3, 4] to [..., 4, 4] by the row 0 0 0 1."""
    row = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=extrinsics.dtype, device=extrinsics.device)
    return torch.cat([extrinsics, row.expand(*extrinsics.shape[:-2], 1, 4)], dim=-2)


def relative_pose(source: Camera, target: Camera) -> torch.Tensor:
    """Target camera to source camera, E_src E_tgt^-1: float64 [..., 4, 4].

    A true inverse, not (R^T | -R^T t): the two differ where a file's rotation is one to few digits only.
    """
    return homogeneous(source.extrinsics) @ torch.linalg.inv(homogeneous(target.extrinsics))


def check_rotation(matrix: torch.Tensor) -> None:
    """Raise ValueError unless every [..., 3, 3] is a rotation: orthonormal to 1e-3, determinant +1."""
    matrix = matrix.to(torch.float64)
    if not matrix.numel():
        return
    error = float((matrix @ matrix.mT - torch.eye(3, dtype=torch.float64)).abs().max())
    determinant = float(torch.linalg.det(matrix).min())
    if not (error <= _ROTATION_TOLERANCE and determinant > 0):
        raise ValueError(f"not a rotation: determinant {determinant:.4f}, R R^T differs from 1 by {error:.2g}")


def read_realestate10k_text(path: str | PathLike) -> str:
    """The text of a camera file, of whose first line nothing is needed: that may be in any encoding.

    Raises OSError, and UnicodeDecodeError for what is no text.
    """
    check_regular(path)
    head, newline, rest = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    return (head.decode("utf-8", errors="replace") if newline else head.decode()) + newline.decode() + rest.decode()


def parse_realestate10k(text: str) -> tuple[str, list[int], torch.Tensor]:
    """A RealEstate10K clip file: its URL, the timestamps in microseconds and the cameras, float64 [N, 18].

    A line a frame: ``timestamp fx fy cx cy 0 0 r11 r12 r13 t1 r21 .. t3``. A first line that is no frame is the URL,
    whatever it holds; where it is missing the URL is empty. Raises ValueError that names the line.
    """
    lines = text.splitlines()
    url = lines[0].strip() if lines and not _is_frame(lines[0]) else ""
    numbers, timestamps, rows = [], [], []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or (number == 1 and not _is_frame(line)):
            continue
        if len(fields) != REALESTATE10K_COLUMNS:
            raise ValueError(f"line {number}: {len(fields)} columns where {REALESTATE10K_COLUMNS} are expected")
        try:
            timestamps.append(_timestamp(fields[0]))
            rows.append([float(field) for field in fields[1:]])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        numbers.append(number)
    cameras = torch.tensor(rows, dtype=torch.float64).reshape(-1, 18)
    try:
        Camera.from_normalized(cameras, 1, 1)  # all at once, twenty times faster than one by one
    except ValueError:
        for number, camera in zip(numbers, cameras, strict=True):
            try:
                Camera.from_normalized(camera, 1, 1)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return url, timestamps, cameras


def _is_frame(line: str) -> bool:
    """Whether a first line is meant as a frame: numbers alone, and about as many."""
    fields = line.split()
    return len(fields) > REALESTATE10K_COLUMNS // 2 and all(_is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


def _timestamp(text: str) -> int:
    """``"33367"`` or ``"33367.0"`` to a number of microseconds; ValueError for what is none."""
    with suppress(ValueError):
        return int(text)
    if not _is_number(text) or not math.isfinite(float(text)):
        raise ValueError(f"{text!r} is no timestamp")
    return round(float(text))


def format_realestate10k(url: str, timestamps: list[int], cameras: torch.Tensor) -> str:
    """The inverse of `parse_realestate10k`, with the nine digits of the published files."""
    lines = [url]
    for timestamp, row in zip(timestamps, cameras.tolist(), strict=True):
        lines.append(" ".join([str(timestamp), *(f"{number:.9f}" for number in row)]))
    return "\n".join(lines) + "\n"


def geometry_vector(
    source: Camera, target: Camera, resolution: int, published_intrinsics: bool = False
) -> torch.Tensor:
    """What the networks are told about a pair of views: normalised pose and intrinsics, float32 [..., 20].

    The relative pose row by row, then (fx, fy, cx, cy) of source and target in pixels at resolution x resolution,
    as (g - mean) / std (docs/method.md, section 2.2). Cameras of any size are accepted: they are cropped to the
    central square and resized first, which changes nothing where that has happened already.

    With `published_intrinsics`, the intrinsics are those of the published code, which crops and resizes K twice,
    to 256 and from there to 64, and uses the result at every resolution: f (256/s) (64/s), s = `Camera.frame_side`.
    """

    def intrinsics(camera: Camera) -> torch.Tensor:
        square = camera.square()
        if published_intrinsics:
            first, second = _PUBLISHED_RESOLUTIONS
            square = square.resize(second)
            return square.focal_and_center * (first / camera.frame_side)
        return square.resize(resolution).focal_and_center

    pose = relative_pose(source, target)[..., :3, :].flatten(-2)
    return normalize_geometry(torch.cat([pose, intrinsics(source), intrinsics(target)], dim=-1), resolution)


def normalize_geometry(geometry: torch.Tensor, resolution: int) -> torch.Tensor:
    """(g - mean)/std, 0 where std is 0: [..., 20] in plain numbers to float32 [..., 20]."""
    mean, std = _geometry_statistics(resolution, geometry)
    return torch.where(std > 0, (geometry - mean) / torch.where(std > 0, std, 1), 0).to(torch.float32)


def denormalize_geometry(geometry: torch.Tensor, resolution: int) -> torch.Tensor:
    """g std + mean in the dtype of `geometry`. The principal point, whose std is 0, comes back as the centre."""
    mean, std = _geometry_statistics(resolution, geometry)
    return geometry * std + mean


def resize_geometry(geometry: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """The geometry vector at `old` pixels a side, as it is at `new`: float32 [..., 20]."""
    plain = denormalize_geometry(geometry.to(torch.float64), old)
    scale = torch.ones_like(plain)
    scale[..., 12:] = new / old
    return normalize_geometry(plain * scale, new)


def split_geometry(geometry: torch.Tensor, resolution: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Geometry vectors [B, 20] back to cameras: pose target-to-source [B, 4, 4], K_src and K_tgt [B, 3, 3].

    In the dtype of `geometry`; the networks pass float32, since the numbers that follow amplify rounding.
    """
    plain = denormalize_geometry(geometry, resolution)
    pose = homogeneous(plain[..., :12].unflatten(-1, (3, 4)))
    return pose, intrinsics_matrix(*plain[..., 12:16].unbind(-1)), intrinsics_matrix(*plain[..., 16:].unbind(-1))


def _geometry_statistics(resolution: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std at a resolution. The std of the intrinsics grows with the square: a quirk of released weights."""
    scale = resolution / _STATS_RESOLUTION
    exponents = torch.tensor([0.0] * 12 + [1.0] * 8, dtype=like.dtype, device=like.device)
    mean = torch.tensor(_GEOMETRY_MEAN, dtype=like.dtype, device=like.device)
    std = torch.tensor(_GEOMETRY_STD, dtype=like.dtype, device=like.device)
    return mean * scale**exponents, std * scale ** (2 * exponents)
