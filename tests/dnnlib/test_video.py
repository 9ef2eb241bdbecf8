"""Videos are read back by Pillow and by PyAV's decoder."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib import UserError
from dnnlib.video import av_path, gif_writer, mp4_writer


def frames(count: int, width: int = 48, height: int = 32) -> list[np.ndarray]:
    """Smooth gradients that move."""
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([(x * 4 + k * 9) % 256, y * 6, np.full_like(x, 25 * k)], axis=-1).astype(np.uint8)
        for k in range(count)
    ]


def write(writer: AbstractContextManager, pictures: list[np.ndarray]) -> None:
    with writer as add:
        for picture in pictures:
            add(picture)


def test_gif(tmp_path: Path) -> None:
    pictures = frames(5)
    write(gif_writer(tmp_path / "a.gif", 10), pictures)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (5, (288, 192), 0)
        for k, picture in enumerate(pictures):
            image.seek(k)
            assert image.info["duration"] == 100
            shown = np.asarray(image.convert("RGB")).astype(int)[::6, ::6]
            assert np.abs(shown - picture).mean() < 4  # 256 colours


@pytest.mark.parametrize(
    ("fps", "delays"),
    [(10, {100}), (12, {80, 90}), (15, {60, 70}), (30, {30, 40}), (50, {20}), (60, {20}), (100, {20}), (0.1, {10000})],
)
def test_gif_delays_are_right_on_average_and_none_is_taken_for_another(
    fps: float, delays: set[int], tmp_path: Path
) -> None:
    """GIF counts in hundredths of a second; browsers show a frame of one hundredth for ten."""
    write(gif_writer(tmp_path / "a.gif", fps), [np.full((16, 16, 3), k, np.uint8) for k in range(60)])
    with Image.open(tmp_path / "a.gif") as image:
        shown = [(image.seek(k), image.info["duration"])[1] for k in range(60)]
    assert set(shown) == delays
    assert np.mean(shown) == pytest.approx(max(1000 / fps, 20), abs=10 / 60)


def test_a_colon_in_a_relative_path_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    folder = Path("2026-11-25T01:40")
    folder.mkdir()
    write(mp4_writer(folder / "video.mp4", 12), frames(3))
    assert [path.name for path in folder.iterdir()] == ["video.mp4"]
    with av.open(av_path(folder / "video.mp4")) as container:
        assert container.streams.video[0].frames == 3


@pytest.mark.parametrize("size", [(48, 32), (33, 31), (256, 144)])
def test_mp4(size: tuple[int, int], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    pictures = frames(5, *size)
    write(mp4_writer(tmp_path / "a.mp4", 12), pictures)
    factor = -(-256 // size[0])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.pix_fmt) == (12, 5, "yuv420p")
        for shown, picture in zip(container.decode(video=0), pictures, strict=True):
            pixels = shown.to_ndarray(format="rgb24").astype(int)[::factor, ::factor][: size[1], : size[0]]
            assert np.abs(pixels - picture).mean() < 12  # half the colour resolution, and compressed


@pytest.mark.parametrize("writer", [gif_writer, mp4_writer])
def test_a_failed_video_leaves_nothing(writer: type, tmp_path: Path) -> None:
    if writer is mp4_writer:
        pytest.importorskip("av")
    with pytest.raises(AttributeError):
        write(writer(tmp_path / "video", 10), [*frames(1), None])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="0 frames a second"), writer(tmp_path / "video", 0):
        pass


def test_without_pyav_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="pip install av"), mp4_writer(tmp_path / "a.mp4", 10):
        pass


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    picture = frames(1, 256, 256)[0]

    def peak(count: int) -> int:
        tracemalloc.start()
        with gif_writer(tmp_path / "a.gif", 10) as add:
            for _ in range(count):
                add(picture)
                gc.collect()  # Pillow's encoder leaves cycles
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(8) < peak(2) + 50_000  # a frame's indices alone are 65536 bytes
