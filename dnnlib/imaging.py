"""Pictures in and out: reading any image as 8-bit RGB, writing PNG files, labelled contact sheets."""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from dnnlib.util import UserError, atomic_path, check_regular

_PAPER, _INK = (255, 255, 255), (34, 34, 34)
MOST_PIXELS = 89_478_485  # beyond which Pillow warns: 256 MiB of RGB
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_LEGIBLE_CELL = 128  # pixels; smaller images are enlarged at least to this


@contextmanager
def open_image(
    source: str | os.PathLike[str] | BinaryIO, formats: Sequence[str] | None = None
) -> Iterator[Image.Image]:
    """A picture, opened but not yet decoded; the only place of the project that asks Pillow to open a file.

    Pillow also knows formats that are programs, such as PostScript: only those of `picture_formats` are tried,
    whatever the file is called. What goes wrong in the body, in decoding, is reported likewise.

    Args:
        source: a path, or a file open for reading.
        formats: the only ones to accept, by Pillow's names.

    Raises UserError where the file is missing, no such picture, damaged, or has more than `MOST_PIXELS`.
    """
    name = getattr(source, "name", "the picture") if hasattr(source, "read") else os.fspath(source)
    if not hasattr(source, "read") and not Path(source).is_dir():
        check_regular(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pictures, which are refused below where they are too odd
            image = Image.open(source, formats=tuple(formats or picture_formats()))
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read the image {name}: {error.strerror}") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{name} has too many pixels to be a photograph (more than {MOST_PIXELS // 10**6} million); "
            f"make it smaller first"
        ) from None
    # What Pillow raises on broken files depends on the format and on where it breaks.
    except (
        OSError,
        SyntaxError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        struct.error,
    ) as error:
        if _is_heif(source) and "HEIF" not in picture_formats():
            raise UserError(f"{name} is HEIC, which needs a package to be read: pip install pillow-heif") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(formats or picture_formats())}"
        raise UserError(f"{name} is not a whole image ({reason}); replace or remove it") from None


@cache
def picture_formats() -> tuple[str, ...]:
    """Pillow's names of the formats of pictures that are read: HEIF among them where pillow-heif is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in (*_FORMATS, "HEIF") if name in Image.OPEN)


def _is_heif(source: str | os.PathLike[str] | BinaryIO) -> bool:
    """Whether a file says that it is HEIC, as iPhones write it (ISO/IEC 23008-12: its brand)."""
    try:
        if not isinstance(source, str | os.PathLike):
            source.seek(0)
            head = source.read(12)
        else:
            with open(source, "rb") as file:
                head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def read_image(source: str | os.PathLike[str] | BinaryIO, *, upright: bool = True) -> np.ndarray:
    """The picture in a file as uint8 [H, W, 3] in sRGB.

    Transparency is laid over white, 16-bit grey is scaled to 8 bits, of an animation the first frame is taken, and
    colours of another profile (Display P3, Adobe RGB, CMYK) are converted.

    Args:
        source: a path, or a file open for reading.
        upright: turn it as EXIF says. Frames that have a camera are read as they are stored, since that is what
            their cameras were computed on.

    Raises UserError as `open_image`.
    """
    with open_image(source) as image:
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        return np.array(to_rgb(_to_srgb(image)))


def image_size(source: str | os.PathLike[str] | BinaryIO) -> tuple[int, int]:
    """Width and height of a picture as it is stored, from its header. Raises UserError as `open_image`."""
    with open_image(source) as image:
        return image.size


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours of an embedded profile converted to sRGB, transparency kept; without a profile, the same image."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode in ("P", "PA", "LA", "La", "RGBa"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        colours = image.convert("RGB") if image.mode == "RGBA" else image
        converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return image  # a damaged profile, or one for other channels: viewers ignore it, too
    if converted is None:
        return image
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; transparency is laid over white, 16-bit grey is scaled to 8 bits.

    Raises UserError for floating-point and 32-bit images.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise UserError("32-bit images are not supported; convert it to 8 or 16 bits per channel")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    elif image.mode == "F":
        raise UserError("floating-point images are not supported; convert it to 8 or 16 bits per channel")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def save_png(
    path: str | os.PathLike[str], pixels: np.ndarray | Image.Image, text: Mapping[str, str] | None = None
) -> None:
    """Write uint8 [H, W, 3] (or [H, W]), or a Pillow image, as a PNG file that appears whole or not at all.

    `text` goes into the file by keyword, as PNG's compressed text.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(_check(pixels))
    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        chunks.add_text(keyword, value, zip=True)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def png_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the text that `save_png` was told to write; empty where it is another picture or a broken one."""
    with suppress(UserError), open_image(path, formats=["PNG"]) as image:
        return dict(getattr(image, "text", {}))
    return {}


def _check(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"an image is uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}")
    return np.ascontiguousarray(pixels)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    column_titles: Sequence[str],
    row_labels: Sequence[str],
    cell: int | None = None,
    columns: Sequence[int] | None = None,
) -> Image.Image:
    """A grid of images with a title above every column and a label left of every row, on white.

    Args:
        rows: rows of uint8 [H, W, 3] images, all rows as long as `column_titles`; None leaves a place empty. Sizes may
            differ: each image is centred in its cell, enlarged by a whole factor without smoothing, or shrunk.
        column_titles: one line each.
        row_labels: one per row; may have several lines.
        cell: side of a cell in pixels; by default the smallest whole multiple of the largest image that can be
            judged by eye, at least 128.
        columns: widths of the columns in pixels, where they are not `cell`.
    """
    if len(rows) != len(row_labels) or any(len(row) != len(column_titles) for row in rows):
        raise ValueError("a contact sheet needs one label per row, and one title for every image of a row")
    if cell is None:
        largest = max((max(image.shape[:2]) for row in rows for image in row if image is not None), default=1)
        cell = largest * -(-_LEGIBLE_CELL // largest)

    columns = columns or [cell] * len(column_titles)
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=max(12, cell // 10)))
    ascent, descent = font.getmetrics()
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    label_sizes = [ruler.multiline_textbbox((0, 0), label, font=font)[2:] for label in row_labels]
    gap = max(4, cell // 24)
    top = ascent + descent + 3 * gap
    pitch = max([cell, *(math.ceil(height) for _, height in label_sizes)]) + gap
    widths = [
        max(column, math.ceil(font.getlength(title))) + gap
        for column, title in zip(columns, column_titles, strict=True)
    ]
    edges = list(accumulate(widths, initial=math.ceil(max((width for width, _ in label_sizes), default=0)) + 3 * gap))

    sheet = Image.new("RGB", (edges[-1] + gap, top + len(rows) * pitch + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for left, width, title in zip(edges, widths, column_titles, strict=False):
        draw.text((left + (width - gap) / 2, top - gap - descent), title, fill=_INK, font=font, anchor="ms")
    for index, (row, label) in enumerate(zip(rows, row_labels, strict=True)):
        middle = top + index * pitch + (pitch - gap) // 2
        draw.multiline_text((edges[0] - gap, middle), label, fill=_INK, font=font, anchor="rm", align="right")
        for left, width, column, pixels in zip(edges, widths, columns, row, strict=False):
            if pixels is None:
                continue
            image = _fit(Image.fromarray(_check(pixels)), column, cell)
            sheet.paste(image, (left + (width - gap - image.width) // 2, middle - image.height // 2))
    return sheet


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image at the largest size in a cell that adds no blur: whole factors up, antialiased down."""
    factor = min(width // image.width, height // image.height)
    if factor >= 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return fit_within(image, width, height)


def fit_within(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image antialiased to the largest size within width x height, each side a pixel at least."""
    scale = min(width / image.width, height / image.height)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.LANCZOS)
