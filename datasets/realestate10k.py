"""RealEstate10K, as it is published and as the chunks of pixelSplat."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path

import torch

from datasets.clips import ClipPairs, Clips, UnusableClip, view_from_row
from datasets.image_folder import IMAGE_SUFFIXES
from datasets.pairs import FramePair, FrameRange
from dnnlib.imaging import read_image
from dnnlib.util import UserError
from torch_utils.cameras import Camera, View, parse_realestate10k

_CAMERA_FOLDER = "RealEstate10K"  # where the published tree keeps its camera files
_CHUNK_INDEX = "index.json"


class RealEstate10K(ClipPairs):
    """Pairs of frames of one split of RealEstate10K, or of anything stored like it.

    `root` is a folder in one of two layouts:

    * ``RealEstate10K/<split>/<clip>.txt`` (or ``<split>/<clip>.txt``) holds the cameras and
      ``<split>/<clip>/<timestamp>.png`` (or jpg, webp, ..) the frames, as published. Frames that a camera file lists
      and the disk lacks are not used; the others keep their positions.
    * ``<split>/index.json`` and the ``.torch`` files it names, as in pixelSplat.

    `split` is "train", "test", or what the folder is called; the other arguments are those of `ClipPairs`.
    """

    def __init__(
        self,
        root: str | PathLike,
        split: str,
        range_selection: str | FrameRange = None,
        resolution: int | None = 64,
        *,
        seed: int = 0,
        pairs: Sequence[FramePair] | None = None,
    ) -> None:
        clips = open_clips(Path(root), split)
        try:
            super().__init__(clips, range_selection, resolution, seed=seed, pairs=pairs)
        except UserError as error:
            raise UserError(f"{Path(root, split)}: {error}") from None


def open_clips(root: Path, split: str) -> Clips:
    """The clips of a split, in whichever layout it is. Raises UserError that lists the splits where there is none."""
    if (root / split / _CHUNK_INDEX).is_file():
        return ChunkClips(root / split)
    for camera_folder in (root / _CAMERA_FOLDER / split, root / split):
        if next(camera_folder.glob("*.txt"), None):
            return TreeClips(camera_folder, root / split)
    if not root.is_dir():
        raise UserError(f"there is no data folder {root}; name it with --data")
    patterns = (f"*/{_CHUNK_INDEX}", f"{_CAMERA_FOLDER}/*/*.txt", "*/*.txt")
    found = sorted({path.parent.name for pattern in patterns for path in root.glob(pattern)})
    raise UserError(
        f"{root} has no split {split!r}; "
        + (
            f"it has {', '.join(found)}"
            if found
            else f"expected {_CAMERA_FOLDER}/{split}/<clip>.txt with {split}/<clip>/<timestamp>.png, "
            f"or {split}/{_CHUNK_INDEX} with chunks"
        )
    )


@dataclass(frozen=True, eq=False)
class TreeClip:
    """A clip of the published tree; see `datasets.clips.Clip`."""

    cameras: torch.Tensor
    files: dict[int, str]  # position to file name
    folder: Path

    @property
    def frames(self) -> Sequence[int]:
        return list(self.files)

    def view(self, position: int) -> View:
        return view_from_row(read_image(self.folder / self.files[position]), self.cameras[position])


class TreeClips:
    """The published tree: a text file of cameras and a folder of frames for each clip."""

    def __init__(self, camera_folder: Path, frame_folder: Path) -> None:
        _read_tree_clip.cache_clear()  # files may have changed since another data set read them
        self.names = sorted(path.stem for path in camera_folder.glob("*.txt"))
        self._camera_folder, self._frame_folder = camera_folder, frame_folder

    def open(self, number: int) -> TreeClip:
        name = self.names[number]
        return _read_tree_clip(self._camera_folder / f"{name}.txt", self._frame_folder / name)


@lru_cache(maxsize=256)  # of 40 kB for 280 frames
def _read_tree_clip(camera_file: Path, folder: Path) -> TreeClip:
    try:
        _, timestamps, cameras = parse_realestate10k(camera_file.read_text())
    except (OSError, ValueError) as error:
        raise UnusableClip("unreadable camera file", f"{camera_file.name}: {error}") from None
    stored = {}
    if folder.is_dir():
        stored = {path.stem: path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    names = (stored.get(str(timestamp)) for timestamp in timestamps)
    files = {position: name for position, name in enumerate(names) if name}
    if not files:
        raise UnusableClip("no frames", f"{folder} has none of {len(timestamps)}")
    return TreeClip(cameras, files, folder)


@dataclass(frozen=True, eq=False)
class ChunkClip:
    """A clip of a chunk; see `datasets.clips.Clip`."""

    name: str
    cameras: torch.Tensor
    images: list[torch.Tensor]  # uint8 [bytes of a JPEG or PNG file]

    @property
    def frames(self) -> Sequence[int]:
        return range(len(self.images))

    def view(self, position: int) -> View:
        try:
            image = read_image(io.BytesIO(self.images[position].numpy()))
        except UserError:
            raise UserError(f"frame {position} of clip {self.name} is not a whole image; replace its chunk") from None
        return view_from_row(image, self.cameras[position])


class ChunkClips:
    """pixelSplat's chunks: index.json maps each clip to the file that holds it and others."""

    def __init__(self, folder: Path) -> None:
        _read_chunk.cache_clear()  # files may have changed since another data set read them
        path = folder / _CHUNK_INDEX
        try:
            index = {str(name): folder / file for name, file in json.loads(path.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is not an index of chunks ({error}); it maps clip names to .torch files") from None
        self.names = sorted(index, key=lambda name: (index[name], name))  # chunk by chunk
        self._index = index

    def open(self, number: int) -> ChunkClip:
        name = self.names[number]
        chunk = _read_chunk(self._index[name])
        try:
            entry = chunk[name]
            cameras, images = entry["cameras"].to(torch.float64), entry["images"]
            if len(cameras) != len(images):
                raise ValueError(f"{len(cameras)} cameras for {len(images)} images")
            Camera.from_normalized(cameras, 1, 1)  # for its checks; the size is not known yet
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UnusableClip("damaged clip", f"{name} in {self._index[name].name}: {reason}") from None
        return ChunkClip(name, cameras, images)


@lru_cache(maxsize=16)  # a chunk is mapped, not read: it costs some 2 MB for its thousands of tensors
def _read_chunk(path: Path) -> dict[str, dict]:
    try:
        return {entry["key"]: entry for entry in torch.load(path, map_location="cpu", weights_only=True, mmap=True)}
    except FileNotFoundError:
        raise UnusableClip("missing chunk", str(path)) from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, LookupError, TypeError) as error:
        detail = str(error).partition("\n")[0]
        raise UnusableClip("unreadable chunk", f"{path.name}: {detail}") from None
