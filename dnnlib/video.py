"""Moving pictures, written frame by frame, so that memory does not grow with their length: GIF and MP4.

GIF needs Pillow alone. MP4 needs PyAV, an optional package whose wheels carry the encoder: no ffmpeg to install.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import cast

import numpy as np
from PIL import GifImagePlugin, Image

from dnnlib.util import UserError, atomic_path

AddFrame = Callable[[np.ndarray], None]  # takes uint8 [H, W, 3]; all frames of a video have one size

_LEGIBLE_SIDE = 256  # pixels; smaller frames are enlarged by a whole factor to at least this
_SHORTEST_DELAY = 2  # hundredths of a second: players take a frame of less for one of ten
_MP4_CODECS = {"libx264": {"crf": "18"}, "mpeg4": {"qscale": "3"}}  # the first that PyAV's build has; mpeg4 always


@contextmanager
def gif_writer(path: str | os.PathLike[str], fps: float) -> Iterator[AddFrame]:
    """An animated GIF that repeats for ever, with a palette of 256 colours for each frame, at most 50 of them a second.

    Yields a function that adds a frame. The file appears, whole, on leaving; not at all when the body raises.
    """
    check_fps(fps)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        count = shown = 0  # frames, and the hundredths of a second that they take together

        def add(frame: np.ndarray) -> None:
            nonlocal count, shown
            count += 1
            delay = max(round(100 * count / fps) - shown, _SHORTEST_DELAY)  # right on average
            shown += delay
            image = Image.fromarray(_legible(frame)).quantize(256)
            if file.tell() == 0:  # GIF89a specification: header, no common palette, repeat without end
                file.write(b"GIF89a" + b"".join(side.to_bytes(2, "little") for side in image.size) + bytes(3))
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")
            # Image.save would keep all frames in memory.
            for block in GifImagePlugin.getdata(image, duration=10 * delay, include_color_table=True):
                file.write(block)

        yield add
        file.write(b";")


@contextmanager
def mp4_writer(path: str | os.PathLike[str], fps: float) -> Iterator[AddFrame]:
    """H.264 in MP4, with the pixel format that every player and browser reads; otherwise like `gif_writer`.

    Raises UserError, with a hint, where PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("an MP4 needs PyAV: pip install av") from None
    codec = next(name for name in _MP4_CODECS if name in av.codecs_available)
    rate = Fraction(check_fps(fps)).limit_denominator(1000)
    with atomic_path(path) as temporary, av.open(av_path(temporary), "w", format="mp4") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=_MP4_CODECS[codec]))
        stream.pix_fmt = "yuv420p"

        def add(frame: np.ndarray) -> None:
            frame = _even(_legible(frame))
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

        yield add
        container.mux(stream.encode(None))


def av_path(path: str | os.PathLike[str]) -> str:
    """A path as PyAV takes it: in a relative one, what comes before a colon would be a protocol."""
    return os.path.abspath(path)


def check_fps(fps: float) -> float:
    """The speed of a video, in frames a second; UserError for one that no player keeps."""
    if not 0.1 <= fps <= 100:  # GIF counts in hundredths of a second
        raise UserError(f"{fps:g} frames a second is no speed for a video; choose between 0.1 and 100")
    return fps


def _legible(frame: np.ndarray) -> np.ndarray:
    factor = -(-_LEGIBLE_SIDE // max(frame.shape[:2]))
    return np.ascontiguousarray(frame.repeat(factor, axis=0).repeat(factor, axis=1))


def _even(frame: np.ndarray) -> np.ndarray:
    """Sides made even by repeating the last row or column: the encoder halves them for colour."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
