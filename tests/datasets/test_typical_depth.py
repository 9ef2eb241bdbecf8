"""The typical depth of a data set, against rooms whose depth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from datasets.synthetic import Synthetic, SyntheticClips, write_chunks
from datasets.typical_depth import main, typical_depth
from torch_utils.batches import Pair
from torch_utils.cameras import View


def test_it_is_found_from_pictures_and_poses_alone() -> None:
    """Textured points are no fair choice of pixels, so their median is near that of the depth, not the same."""
    pairs, count = Synthetic("train", (4, 40), 128), 6
    true = torch.stack([pairs[k].source.depth for k in range(count)]).median()
    found = typical_depth(pairs, count)
    assert found == pytest.approx(float(true), rel=0.3)
    assert typical_depth([scaled(pairs[k], 2.5) for k in range(count)], count) == pytest.approx(2.5 * found)


def scaled(pair: Pair, factor: float) -> Pair:
    """The same pictures, in another unit."""

    def view(view: View) -> View:
        extrinsics = view.camera.extrinsics * torch.tensor([1, 1, 1, factor])
        return View(view.image, replace(view.camera, extrinsics=extrinsics))

    return replace(pair, source=view(pair.source), target=view(pair.target))


def test_small_views_tell_nothing() -> None:
    assert typical_depth(Synthetic("train", None, 32), 2) is None


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    write_chunks(tmp_path, "train", SyntheticClips("train", 2, frames=3, width=16, height=16))
    found = CliRunner().invoke(main, [str(tmp_path)])
    assert found.exit_code == 2
    assert "too small" in found.output
