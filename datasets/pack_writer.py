"""Writing packs (see `datasets.packed`): shard by shard, with any number of processes, to be resumed at will."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from datasets.clips import Clip, Clips, UnusableClip
from datasets.layouts import camera_folder, find_splits
from datasets.packed import PACK_INDEX, Recipe
from datasets.photographs import PhotographClips
from datasets.videos import VideoClips
from datasets.workers import in_processes
from dnnlib.imaging import open_image
from dnnlib.locks import sole_user
from dnnlib.text_files import parse_json
from dnnlib.util import UserError, atomic_path, check_regular, file_sha256, one_line, writable_directory
from torch_utils.cameras import Camera, resize_image

_ENCODERS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True, "method": 0},
    "png": {"format": "PNG", "compress_level": 1},
}
_METADATA = "vivid"  # one key: safetensors does not keep the order of several


def open_sources(
    source: Path, splits: Sequence[str] = (), from_videos: Path | None = None, photographs: bool = False
) -> dict[str, Clips]:
    """Return what there is to pack, by the name of its folder in the pack; photographs have none.

    Args:
        source: a data folder in any layout, or one of photographs.
        splits: only these.
        from_videos: the folder of the videos that the camera files in `source` are about.

    Raises UserError where there is nothing of the kind.
    """
    if photographs:
        if splits or from_videos:
            raise UserError("photographs have no splits and no videos: leave `splits` and `from_videos` out")
        return {"": PhotographClips(source)}
    found = {split.name: split for split in find_splits(source)}
    if unknown := [name for name in splits if name not in found]:
        raise UserError(f"{source} has no split {unknown[0]!r}; it has {', '.join(found)}")
    chosen = [found[name] for name in splits or found]
    if from_videos is None:
        return {split.name: split.open() for split in chosen}
    return {split.name: VideoClips(camera_folder(split.root, split.name), from_videos) for split in chosen}


def write_pack(
    clips: Clips,
    folder: Path,
    recipe: Recipe,
    workers: int = 1,
    progress: Callable[..., Iterator] = lambda iterator, **_: iterator,
) -> dict[str, str]:
    """Pack all clips into a folder. Shards that are there already stay as they are.

    Args:
        clips: to be sent to other processes where there is more than one worker.
        folder: made where it is missing.
        workers: processes.
        progress: wraps an iterator over the shards that are missing, as tqdm does.

    Returns what was left out, and why: clips, and ``<clip>, 3 frames``.

    Raises UserError where the folder holds a pack of other clips or by another recipe.
    """
    folder = writable_directory(folder)
    with sole_user(folder, "packing"):
        return _write_missing(clips, folder, recipe, workers, progress)


def _write_missing(
    clips: Clips, folder: Path, recipe: Recipe, workers: int, progress: Callable[..., Iterator]
) -> dict[str, str]:
    """Write the shards that are not there, then the index."""
    step = recipe.clips_per_shard
    parts = [range(first, min(first + step, len(clips.names))) for first in range(0, len(clips.names), step)]
    shards = [folder / f"{number:06d}.safetensors" for number in range(len(parts))]
    missing = []
    for path, numbers in zip(shards, parts, strict=True):
        if not path.exists():
            missing.append((path, numbers))
        elif (content := _read_metadata(path))["recipe"] != recipe.to_json() or content["names"] != [
            clips.names[number] for number in numbers
        ]:
            raise UserError(f"{folder} holds a pack of other clips or by another recipe; choose another folder")
        elif not content["clips"]:  # all was left out; perhaps it is there now, such as videos that were fetched since
            missing.append((path, numbers))
    written = in_processes(partial(_write_shard, clips, recipe), missing, workers)
    for _ in progress(written, total=len(missing)):
        pass
    for stale in folder.glob(".*.tmp.safetensors"):  # of a run that was killed
        stale.unlink()
    return _write_index(folder, recipe, shards)


def _write_shard(clips: Clips, recipe: Recipe, job: tuple[Path, range]) -> None:
    """Clips and frames that cannot be read are left out and told in the metadata.

    The rows of missing frames stay, without an image, so that positions keep their meaning.
    """
    path, numbers = job
    rows: list[_Row] = []
    counts, skipped = {}, {}
    for number in numbers:
        name = clips.names[number]
        try:
            packed, lost = _pack_clip(clips.open(number), recipe)
        except UnusableClip as error:
            skipped[name] = str(error)
            continue
        rows += packed
        counts[name] = len(packed)
        if lost:
            skipped[f"{name}, {len(lost)} frames"] = lost[0]
    content = {
        "recipe": recipe.to_json(),
        "names": [clips.names[number] for number in numbers],  # in the source
        "clips": counts,
        "skipped": skipped,
    }
    with atomic_path(path) as temporary:
        # save_file would make it readable by nobody else
        temporary.write_bytes(save(_tables(rows, recipe), {_METADATA: json.dumps(content)}))


@dataclass(frozen=True, eq=False)
class _Row:
    """One position of a clip, as it is stored."""

    camera: torch.Tensor  # [18]
    timestamp: int
    frame_side: int
    images: dict[int, bytes]  # size to image file


def _tables(rows: Sequence[_Row], recipe: Recipe) -> dict[str, np.ndarray]:
    tables: dict[str, np.ndarray] = {
        "cameras": np.array([row.camera.numpy() for row in rows], np.float64).reshape(-1, 18),
        "timestamps": np.array([row.timestamp for row in rows], np.int64),
        "frame_sides": np.array([row.frame_side for row in rows], np.int32),
    }
    for size in recipe.sizes:
        images = [row.images.get(size, b"") for row in rows]
        tables[f"offsets_{size}"] = np.cumsum([0, *map(len, images)], dtype=np.int64)
        tables[f"images_{size}"] = np.frombuffer(b"".join(images), np.uint8)
    return tables


def _pack_clip(clip: Clip, recipe: Recipe) -> tuple[list[_Row], list[str]]:
    """A row for each position of a clip, and why frames were lost. Raises UnusableClip where none is left."""
    timestamps = clip.timestamps if hasattr(clip, "timestamps") else range(len(clip.cameras))
    packed, shapes, lost = {}, {}, []
    for position in clip.frames:
        try:
            packed[position], shapes[position] = _pack_frame(clip, position, recipe)
        except UserError as error:
            lost.append(str(error))
    if not packed:
        raise UnusableClip("no frame can be read", lost[0] if lost else "")
    usual = next(iter(shapes.values()))  # missing frames are taken to be like the first
    # All cameras of a clip at once: one by one they would take as long as resizing does.
    cameras = {shape: _squares(clip.cameras, *shape[:2]) for shape in set(shapes.values())}
    rows = []
    for position, timestamp in enumerate(timestamps):
        shape = shapes.get(position, usual)
        rows.append(_Row(cameras[shape][position], timestamp, shape.frame_side, packed.get(position, {})))
    return rows, lost


def _squares(rows: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Cameras of the squares of frames of one size, [N, 18]; only a zoom may have a principal point for each."""
    parts = [rows] if bool((rows[:, 2:4] == rows[0, 2:4]).all()) else rows[:, None]
    return torch.cat([Camera.from_normalized(part, width, height).square().to_normalized() for part in parts])


class _Shape(NamedTuple):
    width: int
    height: int
    frame_side: int


def _pack_frame(clip: Clip, position: int, recipe: Recipe) -> tuple[dict[int, bytes], _Shape]:
    """Size to image file, and the shape of the frame as it was."""
    view = clip.view(position)
    shape = _Shape(view.camera.width, view.camera.height, view.camera.frame_side)
    left, top, side, _ = view.camera.square_box()
    square = view.image[:, top : top + side, left : left + side]
    images = {}
    for size in recipe.sizes:
        fits = size >= side
        image = square if fits else resize_image(square, size, size)
        own = _own_file(clip, position, recipe) if fits and shape.width == shape.height else None
        images[size] = own or _encode(image, recipe)
    return images, shape


def _own_file(clip: Clip, position: int, recipe: Recipe) -> bytes | None:
    """The file of a frame that is stored unchanged, where the codec fits: what is not encoded again loses nothing."""
    if not hasattr(clip, "read"):
        return None
    data = clip.read(position)
    with open_image(io.BytesIO(data)) as file:
        plain = file.mode == "RGB" and not file.getexif() and not file.info.get("icc_profile")
        fits = file.format == _ENCODERS[recipe.codec]["format"] and plain
    return data if fits else None


def _encode(image: torch.Tensor, recipe: Recipe) -> bytes:
    """A uint8 image [3, S, S] as an image file."""
    file = io.BytesIO()
    options = _ENCODERS[recipe.codec] | ({"quality": recipe.quality} if recipe.codec == "jpeg" else {})
    Image.fromarray(rearrange(image, "c h w -> h w c").contiguous().numpy()).save(file, **options)
    return file.getvalue()


def _read_metadata(path: Path) -> dict[str, Any]:
    check_regular(path)
    try:
        with safe_open(path, "numpy") as file:
            content = parse_json((file.metadata() or {})[_METADATA], "its metadata")
        missing = {"recipe", "names", "clips", "skipped"} - content.keys()
        if missing or not all(isinstance(content[name], dict) for name in ("clips", "skipped")):
            raise ValueError("its metadata are those of another file")
        return content
    except (OSError, LookupError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is no shard of a pack ({reason}); remove it, or pack into another folder") from None


def _write_index(folder: Path, recipe: Recipe, shards: Sequence[Path]) -> dict[str, str]:
    """Write the index over all shards, and return what they left out."""
    contents = [_read_metadata(path) for path in shards]
    index = {
        "recipe": recipe.to_json(),
        "shards": [
            {"file": path.name, "sha256": file_sha256(path), "clips": content["clips"]}
            for path, content in zip(shards, contents, strict=True)
        ],
    }
    with atomic_path(folder / PACK_INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n")
    return {name: reason for content in contents for name, reason in content["skipped"].items()}
