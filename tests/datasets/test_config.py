"""The one door to pairs: what it refuses, and what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.clips import ClipPairs
from datasets.config import DataConfig, open_clip_pairs, open_pairs
from datasets.pairs import FramePair, write_pairs
from datasets.single_image import Mixed
from dnnlib.imaging import save_png
from dnnlib.util import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"range_selection": "60-30"}, "60-30"),
        ({"range_selection": "mid", "pairs": "list.json"}, "leave `range_selection` out"),
        ({"split": ""}, "`split` is empty"),
        ({"seed": -1}, "`seed` must be in"),
        ({"single_image_mix": 1.0}, r"`single_image_mix` must be in \[0, 1\)"),
        ({"synthetic_mix": -0.1}, r"`synthetic_mix` must be in \[0, 1\)"),
    ],
)
def test_what_is_no_supply_of_pairs_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**settings)


def test_depth_comes_with_the_views_where_it_is_stored() -> None:
    assert DataConfig(depth_model="file").stored_depth
    assert not DataConfig(depth_model="small").stored_depth
    assert not DataConfig().stored_depth


def test_each_setting_reaches_the_pairs(tree: Path, tmp_path: Path) -> None:
    config = DataConfig(str(tree), range_selection="2-5", seed=3)
    pairs = open_pairs(config, 16)
    assert isinstance(pairs, ClipPairs)
    assert (pairs.frame_range, pairs.seed, pairs.resolution) == ((2, 5), 3, 16)
    assert open_pairs(config).resolution is None
    write_pairs(tmp_path / "list.json", [FramePair(pairs.names[1], 4, 2)])
    listed = open_pairs(DataConfig(str(tree), pairs=str(tmp_path / "list.json")), 16)
    assert (len(listed), listed[0].source_index, listed[0].target_index) == (1, 4, 2)


def test_photographs_and_rooms_are_mixed_in(tree: Path, tmp_path: Path) -> None:
    """Half of a half: what is mixed in last takes its share of all."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    save_png(tmp_path / "photos" / "noise.png", noise)
    config = DataConfig(str(tree), single_image_mix=0.5, single_image_data=str(tmp_path / "photos"), synthetic_mix=0.5)
    pairs = open_pairs(config, 16)
    assert isinstance(pairs, Mixed)
    clips = set(open_clip_pairs(config, 16).names)
    found = [pairs[k].clip for k in range(60)]
    shares = [sum(of) / 60 for of in ([c in clips for c in found], [c.startswith("noise") for c in found])]
    assert shares == [pytest.approx(0.25, abs=0.15)] * 2
    assert isinstance(open_clip_pairs(config, 16), ClipPairs)
    with pytest.raises(ValueError, match="give one"):
        open_pairs(config)
