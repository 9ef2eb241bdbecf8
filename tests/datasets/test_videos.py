"""Frames cut from videos are exactly those of the timestamps, whatever the container, codec and order."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.camera_files.realestate10k import format_realestate10k
from datasets.layouts import open_clips
from datasets.pack import main
from datasets.pack_writer import open_sources, write_pack
from datasets.packed import Recipe
from datasets.realestate10k import RealEstate10K
from datasets.videos import VideoClips, VideoReader, video_id
from dnnlib.util import UserError
from tests.scripts import invoke

av = pytest.importorskip("av")

FRAMES, WIDTH, HEIGHT = 90, 64, 48
NTSC = Fraction(30000, 1001)
CAMERA = torch.tensor([0.9, 1.2, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], dtype=torch.float64)


def write_video(path: Path, codec: str, rate: Fraction = NTSC, start: int = 0) -> None:
    """A grey video whose frame i shows i in its 8 vertical stripes, as bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = 24
        for number in range(FRAMES):
            bits = np.array([(number >> bit) & 1 for bit in range(8)], np.uint8).repeat(WIDTH // 8)
            image = np.broadcast_to(bits[None, :, None] * 160 + 40, (HEIGHT, WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number + start, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def number_in(image: np.ndarray) -> int:
    stripes = image.reshape(HEIGHT, 8, WIDTH // 8, 3).mean(axis=(0, 2, 3))
    return int(((stripes > 120) << np.arange(8)).sum())


def time_us(number: int, rate: Fraction = NTSC) -> int:
    """As in the camera files: whole microseconds, of which the last two digits are 0."""
    return int(number / rate * 10_000) * 100


@pytest.fixture(scope="module", params=[("mp4", "libx264", 0), ("mkv", "libx264", 7), ("webm", "libvpx-vp9", 0)],
                ids=lambda param: f"{param[0]}-{param[2]}")  # fmt: skip
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix, codec, start = request.param
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV lacks {codec}")
    path = tmp_path_factory.mktemp("video") / f"abc.{suffix}"
    write_video(path, codec, start=start)
    return path


def test_every_frame_forward_backward_and_at_random(video: Path) -> None:
    reader = VideoReader(video)
    order = [*range(FRAMES), *range(FRAMES - 1, -1, -11), *np.random.default_rng(0).permutation(FRAMES)[:30].tolist()]
    assert [number_in(reader.frame(time_us(number))) for number in order] == order


def test_a_time_without_a_frame_is_refused(video: Path) -> None:
    reader = VideoReader(video)
    with pytest.raises(UserError, match=r"no frame at 9\.000 s; is it another cut"):
        reader.frame(9_000_000)
    assert number_in(reader.frame(time_us(50))) == 50  # and the reader goes on


def test_what_is_no_video_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "abc.mp4").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match="not a video"):
        VideoReader(tmp_path / "abc.mp4")


@pytest.mark.parametrize(
    "url", ["https://www.youtube.com/watch?v=a-b_C", "https://youtu.be/a-b_C", "https://x.org/watch?t=3&v=a-b_C"]
)
def test_video_id(url: str) -> None:
    assert video_id(url) == "a-b_C"


def test_packing_without_videos_fails_and_goes_on_when_they_are_there(tmp_path: Path) -> None:
    videos, cameras, pack = tmp_path / "videos", tmp_path / "cameras/RealEstate10K/train", tmp_path / "pack"
    videos.mkdir()
    cameras.mkdir(parents=True)
    text = format_realestate10k("https://youtu.be/abc", [time_us(number) for number in range(4)], CAMERA.expand(4, -1))
    (cameras / "one.txt").write_text(text)
    arguments = [*map(str, (tmp_path / "cameras", pack, "--from-videos", videos)), "--workers=1", f"--size={HEIGHT}"]
    result = invoke(main, *arguments)
    assert result.exit_code == 2
    assert result.stderr == f"Error: no clip could be packed into {pack / 'train'}\n"
    write_video(videos / "abc.mp4", "mpeg4")
    assert invoke(main, *arguments).exit_code == 0
    assert RealEstate10K(pack, "train").names == ["one"]


def test_videos_need_camera_files(chunks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no camera files"):
        open_sources(chunks, from_videos=tmp_path)


def test_without_pyav_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not as a reason for which each single frame is left out."""
    (tmp_path / "one.txt").write_text(format_realestate10k("https://youtu.be/abc", [0], CAMERA[None]))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="pip install av"):
        VideoClips(tmp_path, tmp_path)


def test_packing_from_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/abc.mp4", "mpeg4")
    cameras = tmp_path / "cameras/RealEstate10K/train"
    cameras.mkdir(parents=True)
    chosen = {"one": [3, 9, 12, 80], "two": [40, 41, 42, 300], "gone": [1, 2, 3, 4]}
    for name, numbers in chosen.items():
        url = f"https://www.youtube.com/watch?v={'abc' if name != 'gone' else 'xyz'}"
        text = format_realestate10k(url, [time_us(number) for number in numbers], CAMERA.expand(4, -1))
        (cameras / f"{name}.txt").write_text(text)
    (clips,) = open_sources(tmp_path / "cameras", from_videos=tmp_path / "videos").values()
    skipped = write_pack(clips, tmp_path / "pack/train", Recipe((HEIGHT,)))
    assert set(skipped) == {"gone", "two, 1 frames"}
    assert "needs xyz.mp4" in skipped["gone"]
    assert RealEstate10K(tmp_path / "pack", "train").names == ["one", "two"]
    packed = open_clips(tmp_path / "pack", "train")
    for name, number in ((name, number) for number, name in enumerate(packed.names)):
        clip = packed.open(number)
        assert clip.timestamps == [time_us(number) for number in chosen[name]]
        for position in clip.frames:
            square = clip.view(int(position)).image  # the middle 48 of 64 columns: bits 1 to 6
            bits = square.float().mean(dim=(0, 1)).reshape(6, 8).mean(dim=1) > 120
            assert int((bits << torch.arange(1, 7)).sum()) == chosen[name][position] & 0b1111110


def test_frames_are_shown_as_the_video_asks(tmp_path: Path) -> None:
    """A phone held upright stores lying frames and how to turn them (ISO/IEC 14496-12, matrix of the track header)."""
    write_video(tmp_path / "a.mp4", "mpeg4")
    lying = VideoReader(tmp_path / "a.mp4").frame(time_us(5))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    place = data.find(b"tkhd") + 4 + 40
    assert struct.unpack_from(">9i", data, place) == (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    struct.pack_into(">9i", data, place, 0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000)  # clockwise
    (tmp_path / "b.mp4").write_bytes(data)
    upright = VideoReader(tmp_path / "b.mp4").frame(time_us(5))
    assert upright.shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(upright, np.rot90(lying, -1))
