"""Packs: clips whose frames are cropped, resized and encoded once, to be read at random and fast.

A pack is a folder of safetensors files, the shards, and an index, ``pack.json``. A shard holds some dozens of clips,
one behind the other, a row for each position of each clip's camera file:

    cameras      float64 [N, 18]  the numbers of RealEstate10K, for the cropped frame
    timestamps   int64 [N]        microseconds
    frame_sides  int32 [N]        shorter side in pixels of the frame before it was resized
    offsets_S    int64 [N + 1]    where the image of each row begins in images_S; no bytes: the frame is missing
    images_S     uint8 [bytes]    image files of at most S pixels a side, one behind the other, for each size S

The index names the shards, their SHA-256, and the clips in each with their numbers of rows. Everything follows from
the source and the recipe alone: who packs, when, and with how many processes cannot be seen in the bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from datasets.clips import UnusableClip, view_from_row
from datasets.workers import in_processes
from dnnlib.imaging import open_image
from dnnlib.text_files import is_plain_name, read_json
from dnnlib.util import UserError, check_regular, file_sha256, one_line
from torch_utils.cameras import Camera, View

PACK_INDEX = "pack.json"
CODECS = ("jpeg", "webp", "png")
_VERSION = 1
_MOST_SIZE, _MOST_ROWS = 1 << 14, 1 << 31


@dataclass(frozen=True)
class Recipe:
    """How frames are stored.

    Attributes:
        sizes: sides of the squares in pixels; smaller frames are not enlarged.
        codec: jpeg, webp (lossless) or png.
        quality: of jpeg, 1 to 100.
        clips_per_shard: how many clips are packed as one file, and made anew where packing was interrupted.

    Raises UserError for what cannot be.
    """

    sizes: tuple[int, ...] = (256, 64)
    codec: str = "jpeg"
    quality: int = 95
    clips_per_shard: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes), reverse=True)))
        if not self.sizes or self.sizes[-1] < 1:
            raise UserError(f"sizes {self.sizes} cannot be packed; name sides in pixels, as in 256,64")
        if self.codec not in CODECS:
            raise UserError(f"there is no codec {self.codec!r}; choose from {', '.join(CODECS)}")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality {self.quality} is not between 1 and 100")

    def to_json(self) -> dict[str, Any]:
        return {"version": _VERSION, **asdict(self), "sizes": list(self.sizes)}


@dataclass(frozen=True, eq=False)
class PackedClip:
    """A clip of a pack: `count` rows of a shard from `start` on; see `datasets.layouts.StoredClip`."""

    name: str
    shard: Path
    start: int
    count: int
    size: int

    @property
    def cameras(self) -> torch.Tensor:
        return torch.from_numpy(self._rows("cameras"))

    @property
    def timestamps(self) -> Sequence[int]:
        return self._rows("timestamps").tolist()

    @property
    def frames(self) -> np.ndarray:
        offsets = _open_table(self.shard, f"offsets_{self.size}")[self.start : self.start + self.count + 1]
        return np.flatnonzero(np.diff(offsets))

    def read(self, position: int) -> bytes:
        row = self.start + position
        begin, end = _open_table(self.shard, f"offsets_{self.size}")[row : row + 2].tolist()
        return _open_table(self.shard, f"images_{self.size}")[begin:end].tobytes()

    def view(self, position: int) -> View:
        try:
            with open_image(io.BytesIO(self.read(position)), CODECS) as file:
                image = np.array(file.convert("RGB"))
        except UserError as error:
            where = f"frame {position} of {one_line(self.name)} in {self.shard}"
            raise UserError(f"{where} is damaged ({one_line(error)}); pack anew") from None
        row = slice(self.start + position, self.start + position + 1)
        camera = _open_table(self.shard, "cameras")[row][0]
        return view_from_row(image, camera, frame_side=int(_open_table(self.shard, "frame_sides")[row][0]))

    def _rows(self, table: str) -> np.ndarray:
        return _open_table(self.shard, table)[self.start : self.start + self.count]


class PackedClips:
    """The clips of a pack. Nothing is held but their names: shards are mapped as they are needed.

    Args:
        folder: where pack.json is.
        resolution: frames are taken from the smallest size that suffices for it; None: from the largest.

    Attributes:
        sizes: the sides in pixels that frames are stored at.
    """

    def __init__(self, folder: Path, resolution: int | None = None) -> None:
        _rows_of.cache_clear()
        _open_table.cache_clear()  # files may have changed since another data set read them
        self._folder, self._index = folder, _read_index(folder)
        self.sizes: list[int] = self._index["recipe"]["sizes"]
        largest = max(self.sizes)
        self._size = min((size for size in self.sizes if size >= (resolution or largest)), default=largest)
        self._places = [
            (shard, start, count)
            for shard in self._index["shards"]
            for start, count in zip(_starts(shard["clips"].values()), shard["clips"].values(), strict=True)
        ]
        self.names = [name for shard in self._index["shards"] for name in shard["clips"]]

    def open(self, number: int) -> PackedClip:
        shard, start, count = self._places[number]
        clip = PackedClip(self.names[number], self._folder / shard["file"], start, count, self._size)
        try:
            if start + count > _rows_of(clip.shard, self._size):
                raise ValueError("fewer rows than the index says")
            Camera.from_normalized(clip.cameras, 1, 1)  # for its checks
        except (OSError, SafetensorError, ValueError) as error:
            raise UnusableClip("unreadable shard", f"{clip.shard.name}: {one_line(error)}") from None
        return clip

    def audit(self) -> Iterator[tuple[str, str]]:
        """Every byte is read: a shard must have the hash that the index tells."""
        known = {shard["file"] for shard in self._index["shards"]}
        for shard in self._index["shards"]:
            path = self._folder / shard["file"]
            if not path.is_file():
                yield "missing shard", shard["file"]
            elif file_sha256(path) != shard["sha256"]:
                yield "wrong checksum", f"{shard['file']}: remove it and pack again, which makes it anew"
        for path in sorted(self._folder.glob("*.safetensors")):
            if path.name not in known:
                yield "shard that the index lacks", path.name


@lru_cache(maxsize=64)  # each is mapped, so that no file stays open
def _open_table(shard: Path, table: str):  # noqa: ANN202  (a slice of safetensors, whose type has no name)
    return safe_open(shard, "numpy").get_slice(table)


@lru_cache(maxsize=64)
def _rows_of(shard: Path, size: int) -> int:
    """Return how many rows a shard has.

    Raises ValueError unless its tables, with the images of one size, are what they should be.
    """
    check_regular(shard)
    with safe_open(shard, "numpy") as file:
        tables = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no dict, but its file)
        found = {name: (table.get_dtype(), table.get_shape()) for name, table in tables.items()}
        rows = found["cameras"][1][0] if "cameras" in found and found["cameras"][1] else 0
        bytes_ = next(iter(found.get(f"images_{size}", ("", [0]))[1]), 0)
        wanted = {
            **{"cameras": ("F64", [rows, 18]), "timestamps": ("I64", [rows]), "frame_sides": ("I32", [rows])},
            **{f"offsets_{size}": ("I64", [rows + 1]), f"images_{size}": ("U8", [bytes_])},
        }
        for name, (dtype, shape) in wanted.items():
            if found.get(name) != (dtype, shape):
                raise ValueError(f"table {name} is {found.get(name, 'missing')}, not {dtype} {shape}")
        offsets = tables[f"offsets_{size}"][:]
        if offsets[0] < 0 or offsets[-1] > bytes_ or (np.diff(offsets) < 0).any():
            raise ValueError(f"offsets_{size} lead outside of images_{size}")
        if not np.isfinite(tables["cameras"][:]).all() or (tables["frame_sides"][:] < 1).any():
            raise ValueError("cameras or sides of frames that are no such")
    return rows


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / PACK_INDEX
    try:
        index = read_json(path)
        if (version := index["recipe"]["version"]) != _VERSION:
            raise ValueError(f"a pack of version {one_line(version, 20)}, and this program reads {_VERSION}")
        if not all(_is_count(size, 1, _MOST_SIZE) for size in index["recipe"]["sizes"]) or not index["recipe"]["sizes"]:
            raise TypeError("sizes that are none")
        for shard in index["shards"]:
            if not is_plain_name(shard["file"]) or not isinstance(shard["sha256"], str):
                raise TypeError("a shard that is no file in the folder of the pack")
            if not isinstance(shard["clips"], dict):
                raise TypeError("a shard without clips")
            if not all(_is_count(count, 0, _MOST_ROWS) for count in shard["clips"].values()):
                raise TypeError("a clip whose length is none")
        return index
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not the index of a pack ({one_line(error)}); pack anew") from None


def _is_count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _starts(counts: Sequence[int]) -> list[int]:
    return np.cumsum([0, *counts])[:-1].tolist()


def verify_pack(folder: Path, workers: int = 1) -> Iterator[str]:
    """Return what is wrong with a pack, after reading every byte and decoding every frame of every size."""
    clips = PackedClips(folder)
    for kind, where in clips.audit():
        yield f"{kind}: {where}"
    for size in clips.sizes:
        for problems in in_processes(partial(_unreadable, PackedClips(folder, size)), range(len(clips.names)), workers):
            yield from problems


def _unreadable(clips: PackedClips, number: int) -> list[str]:
    problems = []
    try:
        clip = clips.open(number)
        for position in clip.frames:
            try:
                clip.view(position)
            except UserError as error:
                problems.append(str(error))
    except (UserError, SafetensorError) as error:
        problems.append(str(error))
    return problems
