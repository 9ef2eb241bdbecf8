"""How papers evaluate, as frozen definitions: which pairs, which metrics, what is cut, and where the numbers to compare
with are.

A protocol chooses a list of pairs from the frames that the data have; everything after that is the same for any list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

from datasets.pairs import FramePair, draw_lopsided_pair, read_pair_rows, visit
from dnnlib import UserError
from dnnlib.util import present


class Listed(NamedTuple):
    """A pair, and the group of pairs it is averaged with, or ""."""

    pair: FramePair
    group: str = ""


@dataclass(frozen=True)
class Drawn:
    """Pairs drawn from all clips in turn, low <= target - source < high of `forward`, or the other way round."""

    forward: tuple[int, int]
    backward: tuple[int, int]

    def choose(self, clips: Mapping[str, Sequence[int]], count: int, file: str | PathLike[str] | None) -> list[Listed]:
        """So many; a clip that is too short for any is left out."""
        smallest = min(self.forward[0], self.backward[0])
        names = [name for name in sorted(clips) if clips[name][-1] - clips[name][0] >= smallest]
        names = [name for name in names if draw_lopsided_pair(clips[name], self.forward, self.backward, 0, 0)]
        if not names:
            raise UserError(f"no clip has frames {smallest} apart or more: the protocol needs longer clips")
        chosen = []
        for k in range(count):
            name = names[visit(len(names), 0, k)]
            drawn = draw_lopsided_pair(clips[name], self.forward, self.backward, 0, k)
            chosen.append(Listed(FramePair(name, *present(drawn))))
        return chosen


@dataclass(frozen=True)
class FromFile:
    """The pairs of a file that the user has.

    Attributes:
        what: the file, in words. context: as in `datasets.pairs.read_pairs`. groups: of the targets of a row, by place.
    """

    what: str
    context: str = "first"
    groups: tuple[str, ...] = ()

    def choose(self, clips: Mapping[str, Sequence[int]], count: int, file: str | PathLike[str] | None) -> list[Listed]:
        """All that the file lists, whether the data have it or not. Raises UserError without a file."""
        if file is None:
            raise UserError(f"the protocol takes its pairs from a file: give pairs, {self.what}")
        rows = read_pair_rows(file, self.context)
        return [Listed(pair, self.groups[place] if place < len(self.groups) else "") for pair, place in rows]


@dataclass(frozen=True)
class Ahead:
    """From the first frame of every clip to the frames at these distances, as far as they are there."""

    gaps: tuple[int, ...]

    def choose(self, clips: Mapping[str, Sequence[int]], count: int, file: str | PathLike[str] | None) -> list[Listed]:
        chosen = [
            Listed(FramePair(name, int(clips[name][0]), int(clips[name][0] + gap)), f"frame {gap}")
            for name in sorted(clips)
            for gap in self.gaps
            if clips[name][0] + gap in clips[name]
        ]
        if not chosen:
            raise UserError(f"no clip has a frame {min(self.gaps)} after its first: the protocol needs longer clips")
        return chosen


@dataclass(frozen=True)
class Protocol:
    """A frozen definition.

    Attributes:
        name, what, source: for people: which pairs, and where it is defined.
        pairs: which.
        metrics: what is computed, unless told otherwise.
        count: how many pairs are drawn; None where they are all of a file or of the data.
        resolution: side of the square images in pixels.
        border: share of width and height that is cut off at each side before anything is measured.
        remark: in what the numbers here differ from the published ones.
        published: numbers of the source, copied by hand.
        ours: numbers of this project's networks; "" as long as none were measured under the whole protocol.
    """

    name: str
    what: str
    source: str
    pairs: Drawn | FromFile | Ahead
    metrics: tuple[str, ...]
    count: int | None = None
    resolution: int = 256
    border: float = 0.0
    remark: str = ""
    published: str = "see the tables of the source"
    ours: str = ""

    def choose(
        self, clips: Mapping[str, Sequence[int]], file: str | PathLike[str] | None = None, count: int | None = None
    ) -> list[Listed]:
        """The pairs, from the positions of the frames by clip, or from `file`; `count`: fewer draws than its own."""
        if file is not None and not isinstance(self.pairs, FromFile):
            raise UserError(f"the protocol {self.name} chooses its own pairs: leave the pair list out")
        return self.pairs.choose(clips, min(n for n in (count, self.count, _ENDLESS) if n is not None), file)

    def describe(self) -> str:
        """All of it, for people."""
        lines = [
            f"{self.name}: {self.what}",
            f"    source       {self.source}",
            f"    images       {self.resolution}x{self.resolution}, border cut {self.border:.0%} of each side",
            f"    metrics      {', '.join(self.metrics)}",
            *([f"    pairs        {self.count}, seed 0"] if self.count else []),
            *([f"    remark       {self.remark}"] if self.remark else []),
            f"    published    {self.published}",
            f"    this project {self.ours or 'not measured under this protocol'}",
        ]
        return "\n".join(lines)


_ENDLESS = 1 << 62
_IMAGE_METRICS = ("psnr", "ssim", "lpips_vgg")
_VIVID: dict[str, Any] = dict(
    source="arXiv:2411.07765 and the published code: 10,000 pairs of the test split",
    metrics=("fid", "joint_fid", "fd_dinov2", "psnr", "lpips"),
    count=10_000,
)
_SQUARES = "networks here work on the central square of each frame; papers with other aspects see more of it"
_INDEX = "pixelSplat's assets/evaluation_index_re10k.json"

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "vivid-mid",
            "gaps of 30 to 59 frames forwards, 30 to 60 backwards",
            pairs=Drawn((30, 60), (30, 61)),
            remark="`range_selection` mid ends at 59 both ways; only the range is the published one, not the draw",
            **_VIVID,
        ),
        Protocol(
            "vivid-long",
            "gaps of 60 to 119 frames forwards, 60 to 120 backwards",
            pairs=Drawn((60, 120), (60, 121)),
            remark="`range_selection` long ends at 119 both ways; only the range is the published one, not the draw",
            **_VIVID,
        ),
        Protocol(
            "flash3d",
            "targets 5 and 10 frames ahead and one within 30, from a file of rows",
            "Flash3D, arXiv:2406.04343, section 4.2; MINE, arXiv:2103.14910",
            FromFile(
                "the rows of Flash3D's splits/re10k_mine_filtered/test_files.txt",
                groups=("5 frames", "10 frames", "random within 30"),
            ),
            _IMAGE_METRICS,
            border=0.05,
            remark=f"256x384 there; {_SQUARES}; each group has a mean of its own",
            published="Flash3D 28.46, 0.899, 0.100 at 5 frames; 25.94, 0.857, 0.133 at 10; 24.93, 0.833, 0.160 within "
            "30 (PSNR, SSIM, LPIPS; version 2, table 2)",
        ),
        *(
            Protocol(
                "pixelsplat" if context == "first" else f"pixelsplat-{context}",
                f"targets between two context frames, the {context} one is the source",
                "pixelSplat, arXiv:2312.12337, evaluation index of RealEstate10K",
                FromFile(_INDEX, context),
                _IMAGE_METRICS,
                remark="published numbers are of two context views, here is one: compare with single-view rows",
                published="pixelSplat, of two views: 26.09, 0.863, 0.136 (PSNR, SSIM, LPIPS; version 4, table 1)",
            )
            for context in ("first", "second", "closer")
        ),
        Protocol(
            "re10k-50-200",
            "from the first frame of a clip to frames 50 and 200",
            "long-range tables since Look Outside the Room, arXiv:2203.09457",
            Ahead((50, 200)),
            ("psnr", "ssim", "lpips", "lpips_vgg"),
            remark="each frame has a mean of its own; clips that are too short for one count for the other alone",
        ),
        Protocol(
            "tsed",
            "neighbouring views, 10 frames apart: does the new view fit its pose?",
            "PhotoNVS, arXiv:2304.10700, section 4.1: 10 matches, 2 px at 256x256",
            Drawn((10, 11), (10, 11)),
            ("tsed",),
            count=1_000,
            remark="there along generated paths, here for single steps; `clip` of generate_images.py measures paths",
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Raises UserError for an unknown name."""
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name!r}; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
