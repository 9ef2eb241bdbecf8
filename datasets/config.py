"""Which pairs of which data: one typed value, and the one door that opens it. Nothing heavy is imported before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnnlib.settings import Settings, setting
from dnnlib.util import STORED, UserError, parse_range_selection

if TYPE_CHECKING:
    from datasets.clips import ClipPairs
    from datasets.pairs import PairDataset
    from datasets.single_image import SingleImages

DATA = "Data"


@dataclass(frozen=True)
class DataConfig(Settings):
    """A numbered supply of pairs: pair k is a function of these and k alone.

    Attributes:
        data: folder of clips, in any layout that `datasets.layouts` knows.
        split: which split of it.
        range_selection: distance of the two frames: "mid", "long", or "A-B" for A <= |i - j| < B; None: any.
        pairs: file of a pair list, which is used in its order instead of drawing.
        seed: another seed, other pairs.
        depth_model: STORED has the views carry the depth that lies beside the frames; of others nothing is read here.
        single_image_mix: share of pairs from single photographs, [0, 1); single_image_data: their folder, by default
            the published place, `data`/SingleImages.
        synthetic_mix: share of pairs of `datasets.synthetic`, rooms papered with the photographs, [0, 1).
    """

    data: str = setting("data", "RealEstate10K, see docs/data.md.", section=DATA, metavar="DIR")
    split: str = setting("test", "Which split of it.", section=DATA)
    range_selection: str | None = setting(
        None, "Frame gap: mid, long or A-B (A <= gap < B).", section=DATA, metavar="RANGE"
    )
    pairs: str | None = setting(
        None, "Pair list: ours, or pixelSplat's evaluation index.", section=DATA, metavar="FILE"
    )
    seed: int = setting(0, "Names the pairs that are drawn.", section=DATA, within="[0, inf)")
    depth_model: str | None = setting(None, "Depth: small, base, large, DIR, or file.", section=DATA)
    single_image_mix: float = setting(0.0, "Share of pairs from photographs, [0, 1).", section=DATA, within="[0, 1)")
    single_image_data: str | None = setting(
        None, "Folder of photographs.  [default: SingleImages in --data]", section=DATA, metavar="DIR"
    )

    synthetic_mix: float = setting(
        0.0, "Share of pairs from rooms papered with photographs, [0, 1).", section=DATA, within="[0, 1)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_range_selection(self.range_selection)
        if self.pairs is not None and self.range_selection is not None:
            raise UserError("a pair list says which frames to use: leave `range_selection` out")
        if not self.split:
            raise UserError("`split` is empty: name a split, such as test")

    @property
    def stored_depth(self) -> bool:
        """Whether views carry depth."""
        return self.depth_model == STORED


def open_clip_pairs(config: DataConfig, resolution: int | None = None) -> ClipPairs:
    """The pairs of clips alone, whatever is to be mixed in; else as `open_pairs`."""
    from datasets.pairs import read_pairs
    from datasets.realestate10k import RealEstate10K

    listed = None if config.pairs is None else read_pairs(config.pairs)
    how: dict[str, Any] = {"seed": config.seed, "pairs": listed, "depth": config.stored_depth}
    return RealEstate10K(config.data, config.split, config.range_selection, resolution, **how)


def open_pairs(config: DataConfig, resolution: int | None = None) -> PairDataset:
    """The pairs; views are squares of side `resolution`, or with None as they are stored.

    Raises UserError where nothing can be used, or a listed pair does not exist.
    """
    clips = open_clip_pairs(config, resolution)
    if not (config.single_image_mix or config.synthetic_mix):
        return clips
    if resolution is None:
        raise ValueError("photographs are cut to a resolution: give one")
    from datasets.single_image import SingleImages

    folder = config.single_image_data or f"{config.data}/SingleImages"
    return _mixed(clips, SingleImages(folder, resolution, seed=config.seed), config, resolution)


def _mixed(clips: PairDataset, photographs: SingleImages, config: DataConfig, resolution: int) -> PairDataset:
    """Clips with their shares of turned photographs and of rooms."""
    from datasets.single_image import Mixed

    pairs = clips
    if config.single_image_mix:
        pairs = Mixed(pairs, photographs, config.single_image_mix, seed=config.seed)
    if config.synthetic_mix:
        from datasets.synthetic import Synthetic

        rooms = Synthetic("train", config.range_selection, resolution, seed=config.seed, photographs=photographs)
        pairs = Mixed(pairs, rooms, config.synthetic_mix, seed=config.seed, purpose="papered room")
    return pairs
