"""dnnlib.imaging: every kind of picture becomes the 8-bit RGB it shows; sheets are crisp."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from dnnlib import imaging
from dnnlib.imaging import contact_sheet, picture_formats, read_image, save_png
from dnnlib.util import UserError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
GREY16[0, :2] = 0, 65535


def write(folder: Path, image: Image.Image, name: str = "a.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def same_in_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def test_rgb_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(path, PICTURE)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, PICTURE)
    assert list(tmp_path.iterdir()) == [path]


def test_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(path, PICTURE[..., 0])
    np.testing.assert_array_equal(read_image(path), same_in_rgb(PICTURE[..., 0]))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    path = write(tmp_path, Image.fromarray(np.dstack([PICTURE, alpha])))
    weight = alpha[..., None] / 255
    np.testing.assert_allclose(read_image(path), PICTURE * weight + 255 * (1 - weight), atol=1)


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1, 1, 0])
    path = write(tmp_path, image, transparency=1)
    np.testing.assert_array_equal(read_image(path)[0], [[10, 20, 30], [255] * 3, [255] * 3, [10, 20, 30]])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, Image.fromarray(GREY16), name)
    np.testing.assert_array_equal(read_image(path), same_in_rgb(np.round(GREY16 / 257).astype(np.uint8)))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_deeper_pixels_are_refused(tmp_path: Path, dtype: type) -> None:
    path = write(tmp_path, Image.fromarray((GREY16 * 2.0).astype(dtype)), "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: .* not supported"):
        read_image(path)


def test_cmyk(tmp_path: Path) -> None:
    path = write(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(path), np.full((8, 8, 3), [255, 0, 0]), atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    # What a camera held that way stores, written with numpy (EXIF 2.3, tag 0x0112).
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](PICTURE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(read_image(path), PICTURE)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = write(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(path)[0, 0].tolist() == [255, 0, 0]


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<!doctype html>")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("page.png", "empty.png"):
        with pytest.raises(UserError, match=f"{name} is not a whole image"):
            read_image(tmp_path / name)
    for path in (tmp_path, tmp_path / "missing.png"):
        with pytest.raises(UserError, match=f"cannot read the image {path}: "):
            read_image(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text.jpg", "is not a whole image (it is none of PNG, JPEG, "),
        ("pipe.png", "is a device, a pipe or the like, where a file is expected"),
    ],
)
def test_what_is_wrong_with_a_file_names_it_once(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError) as error:
        read_image(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name} {said}")
    assert str(error.value).count(name) == 1


def test_a_picture_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PICTURE.size // 3 // 2 - 1)  # Pillow refuses twice as many
    with pytest.raises(UserError, match="too many pixels"):
        read_image(write(tmp_path, Image.fromarray(PICTURE)))


def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A few hundred bytes that claim 90 million pixels, or 2 ** 60, cost nothing."""
    for side in (9500, 2**30):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserError, match="too many pixels to be a photograph"):
                read_image(tmp_path / "bomb.png")


PROGRAMS = {"PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "GRIB": b"GRIB" + bytes(40)}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo"])
def test_only_pictures_are_opened_whatever_they_are_called(
    name: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript would run Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / name).write_bytes(PROGRAMS[program])
    with pytest.raises(UserError, match="is not a whole image"):
        read_image(tmp_path / name)
    assert not {"EPS", "WMF", "PDF", "SPIDER", "FPX", "MIC", "HDF5", "GRIB", "BUFR"} & set(picture_formats())


def test_heic_is_read_where_there_is_a_reader_and_named_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(12) + b"mif1heic")
    monkeypatch.setattr(imaging, "picture_formats", lambda: ("PNG",))
    with pytest.raises(UserError, match=r"IMG_1\.HEIC is HEIC, .* to be read: pip install pillow-heif"):
        read_image(tmp_path / "IMG_1.HEIC")
    monkeypatch.undo()
    heif = pytest.importorskip("pillow_heif")
    picture_formats.cache_clear()
    heif.from_pillow(Image.new("RGB", (32, 32), (200, 100, 50))).save(tmp_path / "IMG_1.HEIC", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "IMG_1.HEIC"), np.full((32, 32, 3), [200, 100, 50]), atol=3)


def profile(primaries: list[tuple[float, float, float]], gamma: float = 2.2) -> bytes:
    """An ICC profile, version 2: matrix of D50-adapted primaries and a gamma."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white = (0.9642, 1.0, 0.8249)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"none" + bytes(4), b"wtpt": xyz(white)}
    tags |= {colour + b"XYZ": xyz(values) for colour, values in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {colour + b"TRC": curve for colour in (b"r", b"g", b"b")}
    body, table, offset = b"", struct.pack(">I", len(tags)), 132 + 12 * len(tags)
    for name, content in tags.items():
        value = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + xyz(white)[8:] + bytes(48)
    return head + table + body


DISPLAY_P3 = profile([(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)])
ADOBE_RGB = profile([(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)])


@pytest.mark.parametrize(
    ("icc", "stored", "shown"),
    [
        (DISPLAY_P3, (234, 51, 35), (255, 0, 0)),  # the reddest of sRGB
        (ADOBE_RGB, (219, 0, 0), (255, 0, 0)),
        (DISPLAY_P3, (128, 128, 128), (128, 128, 128)),
        (b"no profile", (234, 51, 35), (234, 51, 35)),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), (234, 51, 35), (234, 51, 35)),
    ],
    ids=["P3", "Adobe", "grey", "none", "sRGB"],
)
@pytest.mark.parametrize("kind", ["png", "tif", "webp", "rgba", "palette"])
def test_colours_of_profiles_become_srgb(
    kind: str, icc: bytes, stored: tuple[int, int, int], shown: tuple[int, int, int], tmp_path: Path
) -> None:
    image = Image.new("RGB", (8, 8), stored)
    if kind == "rgba":
        image.putalpha(255)
    if kind == "palette":
        image = image.quantize(4)
    name = f"a.{kind}" if kind in ("tif", "webp") else "a.png"
    options = {"lossless": True} if kind == "webp" else {}
    pixels = read_image(write(tmp_path, image, name, icc_profile=icc, **options))
    np.testing.assert_allclose(pixels, np.full((8, 8, 3), shown), atol=3)


def test_profiles_of_other_channels_are_ignored_and_posed_frames_are_converted_alike(tmp_path: Path) -> None:
    path = write(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100, icc_profile=DISPLAY_P3)
    np.testing.assert_allclose(read_image(path), np.full((8, 8, 3), [255, 0, 0]), atol=3)
    path = write(tmp_path, Image.new("RGB", (8, 8), (234, 51, 35)), icc_profile=DISPLAY_P3)
    np.testing.assert_array_equal(read_image(path), read_image(path, upright=False))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_truncated(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole, kind)
    (tmp_path / "cut").write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 3])
    with pytest.raises(UserError, match="cut is not a whole image"):
        read_image(tmp_path / "cut")


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is wrong with the file
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"]),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_a_damaged_file_is_an_image_or_one_line(tmp_path: Path, kind: str, edits: list[tuple[int, int]]) -> None:
    whole = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(whole, kind, exif=exif)
    damaged = bytearray(whole.getvalue())
    for place, value in edits:
        damaged[place % len(damaged)] = value
    (tmp_path / "damaged").write_bytes(damaged)
    try:
        pixels = read_image(tmp_path / "damaged")
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
    else:
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)


def test_save_png_refuses_floats_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float64"):
        save_png(tmp_path / "a.png", PICTURE / 255)
    assert not list(tmp_path.iterdir())


def find(sheet: np.ndarray, block: np.ndarray) -> tuple[int, int] | None:
    """Where a block of pixels stands in the sheet: (y, x)."""
    height, width = block.shape[:2]
    for y, x in np.argwhere((sheet == block[0, 0]).all(-1)):
        if np.array_equal(sheet[y : y + height, x : x + width], block):
            return int(y), int(x)
    return None


def enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(pixels, factor, 0), factor, 1)


def test_contact_sheet_is_a_grid_of_crisp_images() -> None:
    images = [[RNG.integers(0, 200, (64, 64, 3), dtype=np.uint8) for _ in range(3)] for _ in range(2)]
    sheet = np.asarray(contact_sheet(images, ["source", "sample", "target"], ["seed 3 · gap 41", "seed 12 · gap 7"]))
    places = np.array([[find(sheet, enlarged(image, 2)) for image in row] for row in images])  # 64 -> 128
    assert (places[:, :, 0] == places[:, :1, 0]).all()  # rows are level
    assert (places[:, :, 1] == places[:1, :, 1]).all()  # columns upright
    assert (np.diff(places[:, :, 1], axis=1) > 128).all()
    assert (np.diff(places[:, :, 0], axis=0) > 128).all()
    top, left = places[0, 0]
    assert sheet[: top - 1, left:].min() < 100  # titles above
    assert sheet[top:, : left - 1].min() < 100  # labels at the left
    assert (sheet[-1] == 255).all()
    assert (sheet[:, -1] == 255).all()


def test_contact_sheet_centres_and_shrinks_and_leaves_places_empty() -> None:
    wide = RNG.integers(0, 200, (10, 30, 3), dtype=np.uint8)
    large = np.full((300, 200, 3), 90, np.uint8)
    sheet = np.asarray(contact_sheet([[wide, None, large]], ["a", "b", "c"], [""], cell=96))
    y, x = find(sheet, enlarged(wide, 3))  # 30 -> 90 is the largest whole multiple within 96
    tall_y, _ = find(sheet, np.full((96, 64, 3), 90, np.uint8))
    assert y - tall_y == (96 - 30) // 2
    empty = sheet[tall_y : tall_y + 96, x + 96 : x + 2 * 96]
    assert (empty == 255).all()


def test_contact_sheet_has_columns_of_other_widths() -> None:
    wide = RNG.integers(0, 200, (96, 150, 3), dtype=np.uint8)
    square = RNG.integers(0, 200, (96, 96, 3), dtype=np.uint8)
    sheet = np.asarray(contact_sheet([[wide, square]], ["a", "b"], [""], cell=96, columns=[150, 96]))
    (y, x), (other_y, other_x) = find(sheet, wide), find(sheet, square)
    assert y == other_y
    assert other_x > x + 150


def test_contact_sheet_makes_room_for_long_titles_and_labels() -> None:
    def size(title: str, label: str) -> tuple[int, int]:
        return contact_sheet([[np.zeros((128, 128, 3), np.uint8)]], [title], [label]).size

    width, height = size("a", "b")
    assert size("a title far wider than its column is", "b")[0] > width
    assert size("a", "a label far longer than the other one")[0] > width
    assert size("a", "b\n" * 12)[1] > height


def test_contact_sheet_has_room_for_a_thread() -> None:
    """What is thousands of times as wide as high is a pixel high there."""
    thread = np.zeros((8, 20000, 3), np.uint8)
    sheet = np.asarray(contact_sheet([[thread]], ["thread"], [""], cell=128))
    assert ((sheet == 0).all(axis=-1).sum(axis=1) == 128).any()


def test_contact_sheet_refuses_a_ragged_grid() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for rows, titles, labels in (([[image]], ["a", "b"], [""]), ([[image], [image]], ["a"], [""])):
        with pytest.raises(ValueError, match="one label per row"):
            contact_sheet(rows, titles, labels)
