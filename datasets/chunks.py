"""The chunks of pixelSplat: files of several clips each, with JPEG frames, and an index."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from datasets.clips import UnusableClip, view_from_row
from dnnlib.imaging import read_image
from dnnlib.text_files import is_plain_name, read_json
from dnnlib.util import UserError, one_line
from torch_utils.cameras import Camera, View
from torch_utils.tensor_files import load_tensor_file

CHUNK_INDEX = "index.json"


@dataclass(frozen=True, eq=False)
class ChunkClip:
    """A clip of a chunk; see `datasets.layouts.StoredClip`."""

    name: str
    cameras: torch.Tensor
    timestamps: Sequence[int]
    images: list[torch.Tensor]  # uint8 [bytes of a JPEG or PNG file]

    @property
    def frames(self) -> Sequence[int]:
        return range(len(self.images))

    def read(self, position: int) -> bytes:
        return self.images[position].numpy().tobytes()

    def view(self, position: int) -> View:
        try:
            image = read_image(io.BytesIO(self.read(position)), upright=False)
        except UserError:
            raise UserError(f"frame {position} of clip {self.name} is not a whole image; replace its chunk") from None
        return view_from_row(image, self.cameras[position])


class ChunkClips:
    """index.json maps each clip to the file that holds it and others."""

    def __init__(self, folder: Path) -> None:
        _read_chunk.cache_clear()  # files may have changed since another data set read them
        path = folder / CHUNK_INDEX
        content = read_json(path)
        if not isinstance(content, dict) or not all(is_plain_name(file) for file in content.values()):
            raise UserError(f"{path} is not an index of chunks; it maps clip names to .torch files beside it")
        index = {name: folder / file for name, file in content.items()}
        self.names = sorted(index, key=lambda name: (index[name], name))  # chunk by chunk
        self._folder, self._index = folder, index

    def open(self, number: int) -> ChunkClip:
        name = self.names[number]
        chunk = _read_chunk(self._index[name])
        try:
            entry = chunk[name]
            cameras, images = entry["cameras"].to(torch.float64), list(entry["images"])
            if not all(isinstance(image, torch.Tensor) and image.dtype == torch.uint8 for image in images):
                raise ValueError("images that are no bytes")
            if len(cameras) != len(images):
                raise ValueError(f"{len(cameras)} cameras for {len(images)} images")
            Camera.from_normalized(cameras, 1, 1)  # for its checks; the size is not known yet
            timestamps = torch.as_tensor(entry.get("timestamps", range(len(images)))).tolist()
            if len(timestamps) != len(images):
                raise ValueError(f"{len(timestamps)} timestamps for {len(images)} images")
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            reason = one_line(f"no {error}" if isinstance(error, KeyError) else error)
            raise UnusableClip("damaged clip", f"{name} in {self._index[name].name}: {reason}") from None
        return ChunkClip(name, cameras, timestamps, images)

    def audit(self) -> Iterator[tuple[str, str]]:
        files = set(self._index.values())
        for file in sorted(self._folder.glob("*.torch")):
            if file not in files:
                yield "chunk that the index lacks", file.name
                continue
            try:
                lost = sorted(name for name in _read_chunk(file) if self._index.get(name) != file)
            except UnusableClip:
                continue  # is reported where its clips are opened
            if lost:
                yield "clips that the index lacks", f"{file.name}: {len(lost)}, such as {lost[0]}"


@lru_cache(maxsize=16)  # a chunk is mapped, not read: it costs some 2 MB for its thousands of tensors
def _read_chunk(path: Path) -> dict[str, dict]:
    try:
        return {entry["key"]: entry for entry in load_tensor_file(path)}
    except FileNotFoundError:
        raise UnusableClip("missing chunk", str(path)) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnusableClip("unreadable chunk", f"{path.name}: {one_line(error)}") from None
