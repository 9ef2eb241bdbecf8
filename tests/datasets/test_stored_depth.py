"""Depth beside the frames, from the disk to a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datasets.realestate10k import RealEstate10K
from datasets.synthetic import SyntheticClips, write_tree
from dnnlib.util import UserError
from torch_utils.batches import collate


@pytest.fixture(scope="module")
def tree_with_depth(tmp_path_factory: pytest.TempPathFactory, clips: SyntheticClips) -> Path:
    root = tmp_path_factory.mktemp("depth")
    write_tree(root, "test", clips, depth=True)
    return root


def test_views_carry_the_depth_beside_their_frames(tree_with_depth: Path, clips: SyntheticClips) -> None:
    for pair in RealEstate10K(tree_with_depth, "test", resolution=None, depth=True):
        truth = clips.open(clips.names.index(pair.clip)).view(pair.source_index)
        torch.testing.assert_close(pair.source.depth, truth.depth, rtol=0, atol=0.00051)
        assert torch.equal(pair.source.image, truth.image)


def test_depth_is_cropped_and_resized_with_its_view_and_collated(tree_with_depth: Path) -> None:
    stored = RealEstate10K(tree_with_depth, "test", resolution=None, depth=True)
    pairs = list(RealEstate10K(tree_with_depth, "test", resolution=16, depth=True))
    batch = collate(pairs)
    assert (batch.depth.shape, batch.depth.dtype) == ((len(pairs), 1, 16, 16), torch.float32)
    for k, pair in enumerate(stored):  # 48x32 frames: the centre 32x32, every second pixel
        known = pair.source.depth[:, 8:40]
        assert torch.equal(batch.depth[k, 0], known[1::2, 1::2])


def test_depth_is_not_read_unless_asked_for(tree_with_depth: Path) -> None:
    plain = RealEstate10K(tree_with_depth, "test", resolution=None)[0]
    assert plain.source.depth is None
    assert collate([plain.square(16)]).depth is None


def test_layouts_without_a_place_for_depth_are_refused(chunks: Path, tree: Path) -> None:
    with pytest.raises(UserError, match="no place for depth"):
        RealEstate10K(chunks, "test", depth=True)
    with pytest.raises(UserError, match=r"has no depth \d+\.depth\.png"):
        RealEstate10K(tree, "test", depth=True)[0]
