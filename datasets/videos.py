"""Frames cut from videos at the timestamps of camera files: what RealEstate10K is made of.

The frames of RealEstate10K are not published, only their cameras: the first line of a camera file is the address of a
video, and each other line is about its frame at a timestamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch

from datasets.clips import UnusableClip, view_from_row
from datasets.frame_files import read_cameras
from dnnlib.util import UserError
from dnnlib.video import av_path
from torch_utils.cameras import View

_SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi"})
_SEEK_S = 2.0  # a frame so much later is faster found by a jump than by decoding all before it


@dataclass(frozen=True, eq=False)
class VideoClip:
    """A clip whose frames are in a video; fast where frames are asked for in order. See `datasets.clips.Clip`."""

    cameras: torch.Tensor
    timestamps: Sequence[int]
    video: Path

    @property
    def frames(self) -> Sequence[int]:
        return range(len(self.timestamps))

    def view(self, position: int) -> View:
        image = _open_video(self.video).frame(self.timestamps[position])
        return view_from_row(image, self.cameras[position])


class VideoClips:
    """Camera files and a folder of videos, each named by its YouTube id; see `datasets.clips.Clips`."""

    def __init__(self, camera_folder: Path, video_folder: Path) -> None:
        try:
            import av  # noqa: F401
        except ImportError:
            raise UserError("cutting frames from videos needs PyAV: pip install av") from None
        if not video_folder.is_dir():
            raise UserError(f"there is no folder of videos {video_folder}")
        self._camera_folder = camera_folder
        self.names = sorted(path.stem for path in camera_folder.glob("*.txt"))
        if not self.names:
            raise UserError(f"there are no camera files in {camera_folder}; they say which frames to cut")
        videos = (path for path in video_folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        self._videos = {path.stem: path for path in videos}

    def open(self, number: int) -> VideoClip:
        file = self._camera_folder / f"{self.names[number]}.txt"
        url, timestamps, cameras = read_cameras(file)
        video = self._videos.get(video_id(url))
        if video is None:
            raise UnusableClip("no video", f"{file.name} needs {video_id(url)}.mp4, of {url}")
        return VideoClip(cameras, timestamps, video)


def video_id(url: str) -> str:
    """The name of a video: the v of ``watch?v=..``, or else the last part of the path."""
    parts = urlsplit(url)
    return parse_qs(parts.query).get("v", [Path(parts.path).name])[0]


class VideoReader:
    """Frames of a video by time, exact to the frame: every one is found by its own time stamp, not by counting.

    Raises UserError where the file is no video.
    """

    def __init__(self, path: Path) -> None:
        import av

        try:
            self._container = av.open(av_path(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise UserError(f"{path} is not a video that can be read ({error}); fetch it again") from None
        self._path = path
        self._tick_s = float(self._stream.time_base or 0)
        self._start = self._stream.start_time or 0
        self._tolerance_s = 0.5 / float(self._stream.average_rate or 25) + 1e-3  # containers round to 1 ms
        self._before: Any = None  # the newest frames decoded
        self._after: Any = None

    def frame(self, timestamp_us: int) -> np.ndarray:
        """The frame nearest to a time, uint8 [H, W, 3]. Raises UserError where it is more than half a frame away."""
        import av

        wanted = timestamp_us * 1e-6
        try:
            if self._before is None or not self._time(self._before) <= wanted < self._time(self._after) + _SEEK_S:
                self._jump(wanted)
            while self._time(self._after) < wanted and (following := next(self._decoder, None)) is not None:
                self._before, self._after = self._after, following
        except (av.FFmpegError, StopIteration) as error:
            self._before = self._after = None
            raise UserError(f"{self._path} cannot be decoded at {wanted:.3f} s ({error}); fetch it again") from None
        nearest = min((self._before, self._after), key=lambda frame: abs(self._time(frame) - wanted))
        if abs(self._time(nearest) - wanted) > self._tolerance_s:
            raise UserError(f"{self._path} has no frame at {wanted:.3f} s; is it another cut of the video?")
        turns = round(getattr(nearest, "rotation", 0) / 90)  # anticlockwise, as the file asks players to show it
        return np.ascontiguousarray(np.rot90(nearest.to_ndarray(format="rgb24"), turns))

    def _jump(self, wanted: float) -> None:
        """Decode from the key frame before a time; from the beginning where a container's index is of no use."""
        for target in (wanted, 0.0):
            self._container.seek(self._start + int(target / self._tick_s), stream=self._stream)
            self._decoder = self._container.decode(self._stream)
            self._before = self._after = next(self._decoder)
            if self._time(self._before) <= wanted:
                return

    def _time(self, frame) -> float:  # noqa: ANN001
        return (frame.pts - self._start) * self._tick_s


@lru_cache(maxsize=2)
def _open_video(path: Path) -> VideoReader:
    return VideoReader(path)
