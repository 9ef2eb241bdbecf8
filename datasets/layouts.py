"""The layouts that posed clips come in, and how each is recognised. This is the one place that knows them all."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Protocol

from datasets.chunks import CHUNK_INDEX, ChunkClips
from datasets.clips import Clip, Clips
from datasets.conventions import OPENCV_TO_CAMERA, OPENGL_TO_WORLD
from datasets.frame_files import JsonClips, SceneClips, TreeClips
from datasets.packed import PACK_INDEX, PackedClips
from datasets.photographs import open_photographs
from dnnlib.util import UserError

CAMERA_FOLDER = "RealEstate10K"  # where the published tree keeps its camera files


class StoredClip(Clip, Protocol):
    """A clip that lies on a disk.

    Attributes:
        timestamps: of every position, in microseconds; layouts without any count frames.
    """

    @property
    def timestamps(self) -> Sequence[int]: ...

    def read(self, position: int) -> bytes:
        """The image file of a frame as it is stored."""


class StoredClips(Clips, Protocol):
    """Clips that lie on a disk."""

    def open(self, number: int) -> StoredClip: ...

    def audit(self) -> Iterator[tuple[str, str]]:
        """Return what is wrong with the split as a whole, which no single clip shows: (kind, where)."""


class Layout(NamedTuple):
    """A way to store splits.

    Attributes:
        patterns: any of them, below the root, tells that a split is there.
        poses: one of `datasets.conventions.CONVENTIONS`: what the stored matrices are declared to be.
    """

    name: str
    patterns: tuple[str, ...]
    open: Callable[[Path, str, int | None], StoredClips]
    poses: str = OPENCV_TO_CAMERA

    def has(self, root: Path, split: str) -> bool:
        names = (pattern.format(split=glob.escape(split)) for pattern in self.patterns)
        return any(next(root.glob(name), None) is not None for name in names)


def camera_folder(root: Path, split: str) -> Path:
    """Return the folder of the camera files of the published tree."""
    in_subfolder = root / CAMERA_FOLDER / split
    return in_subfolder if next(in_subfolder.glob("*.txt"), None) else root / split


def _open_tree(root: Path, split: str, resolution: int | None) -> TreeClips:
    return TreeClips(camera_folder(root, split), root / split)


# In this order, since LVSM's folders hold a text file too.
LAYOUTS = (
    Layout("pack", (f"{{split}}/{PACK_INDEX}",), lambda root, split, size: PackedClips(root / split, size)),
    Layout("pixelSplat chunks", (f"{{split}}/{CHUNK_INDEX}",), lambda root, split, size: ChunkClips(root / split)),
    Layout("LVSM", ("{split}/metadata/*.json",), lambda root, split, size: JsonClips(root / split)),
    Layout("published tree", (f"{CAMERA_FOLDER}/{{split}}/*.txt", "{split}/*.txt"), _open_tree),
    Layout(
        "nerfstudio scenes",
        ("{split}/*/transforms.json",),
        lambda root, split, size: SceneClips(root / split),
        OPENGL_TO_WORLD,
    ),
)


class Split(NamedTuple):
    """A split that was found: clips under `root`, which may be opened."""

    root: Path
    name: str
    layout: Layout

    def open(self, resolution: int | None = None) -> StoredClips:
        return self.layout.open(self.root, self.name, resolution)


def photograph_split(folder: str | PathLike) -> Split:
    """A folder of single photographs, or a pack of them, as if it were a split."""
    root = Path(folder).resolve()
    layout = Layout("photographs", (), lambda root, split, size: open_photographs(root / split))
    return Split(root.parent, root.name, layout)


def find_splits(folder: str | PathLike) -> list[Split]:
    """All splits of a data folder; where it has none, the folder itself may be one. Raises UserError for neither."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise UserError(f"there is no data folder {folder}")
    found = _splits_below(root) or _splits(root.parent, {root.name})
    if not found:
        names = ", ".join(f"{layout.name} ({' or '.join(layout.patterns)})" for layout in LAYOUTS)
        raise UserError(f"{folder} is in none of the known layouts: {names}; or are these `photographs`?")
    return found


def open_clips(root: Path, split: str, resolution: int | None = None) -> StoredClips:
    """The clips of a split, in whichever layout it is.

    A pack that holds frames of several sizes gives the smallest that suffice for `resolution`. Raises UserError that
    lists the splits where there is no such split.
    """
    root = Path(root).absolute()
    for layout in LAYOUTS:
        if layout.has(root, split):
            return layout.open(root, split, resolution)
    if not root.is_dir():
        raise UserError(f"there is no data folder {root}; name it with `data`")
    found = [split.name for split in _splits_below(root)]
    if not found and (bare := _splits(root.parent, {root.name})):
        above = root.parent.parent if root.parent.name == CAMERA_FOLDER else root.parent
        raise UserError(f"{root} is the split {bare[0].name!r} itself: name the folder {above}")
    raise UserError(
        f"{root} has no split {split!r}; "
        + (
            f"it has {', '.join(found)}"
            if found
            else f"expected {CAMERA_FOLDER}/{split}/<clip>.txt with {split}/<clip>/<timestamp>.png, "
            f"{split}/{CHUNK_INDEX} with chunks, or {split}/{PACK_INDEX} of a pack"
        )
    )


def _splits_below(root: Path) -> list[Split]:
    folders = [path for parent in (root, root / CAMERA_FOLDER) for path in parent.glob("*") if path.is_dir()]
    return _splits(root, {folder.name for folder in folders} - {CAMERA_FOLDER})


def _splits(root: Path, names: set[str]) -> list[Split]:
    layouts = ((name, next((layout for layout in LAYOUTS if layout.has(root, name)), None)) for name in sorted(names))
    return [Split(root, name, layout) for name, layout in layouts if layout]
