"""Cameras: the one place that knows the convention.

Axes are OpenCV's: x right, y down, z forward. Extrinsics are world-to-camera, ``x_cam = R x_world + t``, in the
unit of the reconstruction they come from. Intrinsics are in pixels; pixel (0, 0) covers [0, 1] x [0, 1], so its
centre is at (0.5, 0.5) and the principal point of an uncropped camera is usually at (width/2, height/2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from dnnlib.util import UserError

_ROTATION_TOLERANCE = 1e-3  # camera files carry 9 digits; products of a few rotations stay far below this


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

    @property
    def is_centered(self) -> bool:
        """Whether the principal point is within a pixel of the middle of the frame that the camera was read from."""
        pixel = min(self.width, self.height) / self.frame_side  # at most
        middle = torch.tensor([self.width / 2, self.height / 2], dtype=torch.float64)
        return bool(((self.intrinsics[..., :2, 2] - middle).abs() <= pixel).all())

    def square_box(self) -> tuple[int, int, int, int]:
        """(left, top, side, side) of the largest square around the principal point.

        The networks take the principal point to be in the middle. One that is within a pixel of the frame's middle
        gives the central square of the shorter side (docs/method.md, section 2.1). Raises UserError where the square
        would have less than half of that side, and ValueError for a batch whose principal points differ.
        """
        size, shorter = (self.width, self.height), min(self.width, self.height)
        if self.is_centered:
            return center_box(*size)
        pixel = shorter / self.frame_side
        columns = tuple(zip(*self.intrinsics[..., :2, 2].reshape(-1, 2).tolist(), strict=True))
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
