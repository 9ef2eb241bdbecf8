"""RealEstate10K: pairs of frames of its clips, in whichever layout they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from datasets.clips import ClipPairs
from datasets.frame_files import TreeClips
from datasets.layouts import StoredClips, open_clips
from datasets.pairs import FramePair, FrameRange
from dnnlib.util import UserError


def open_split(root: str | PathLike, split: str, resolution: int | None = None, *, depth: bool = False) -> StoredClips:
    """The clips of one split; see `RealEstate10K` for the arguments, and `datasets.layouts.open_clips`."""
    clips = open_clips(Path(root), split, resolution)
    if not depth:
        return clips
    if not isinstance(clips, TreeClips):
        raise UserError(f"{Path(root, split)} has no place for depth: name a depth model, or a tree of files")
    return clips.with_depth()


class RealEstate10K(ClipPairs):
    """Pairs of frames of one split of RealEstate10K, or of anything stored like it.

    `root` is a folder in one of these layouts (`datasets.layouts` knows them, docs/data.md tells them in full):

    * ``RealEstate10K/<split>/<clip>.txt`` (or ``<split>/<clip>.txt``) holds the cameras and
      ``<split>/<clip>/<timestamp>.png`` (or jpg, webp, ..) the frames, as published. Frames that a camera file lists
      and the disk lacks are not used; the others keep their positions.
    * ``<split>/index.json`` and the ``.torch`` files it names, as in pixelSplat.
    * ``<split>/metadata/<clip>.json`` and ``<split>/images/<clip>/*.png``, as in LVSM.
    * ``<split>/<clip>/transforms.json``, as in nerfstudio.
    * ``<split>/pack.json``: what ``python -m datasets.pack`` has made of any of the others, and the fastest.

    `split` is "train", "test", or what the folder is called; the other arguments are those of `ClipPairs`. With `depth`
    the views carry the depth that lies beside the frames, see `torch_utils.depth.read_stored_depth`; the first layout
    alone has a place for it.
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
        depth: bool = False,
    ) -> None:
        clips = open_split(root, split, resolution, depth=depth)
        try:
            super().__init__(clips, range_selection, resolution, seed=seed, pairs=pairs)
        except UserError as error:
            raise UserError(f"{Path(root, split)}: {error}") from None
