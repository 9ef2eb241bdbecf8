"""Batches hold what their pairs held, in order."""

from __future__ import annotations

import torch

from torch_utils.batches import Pair, collate
from torch_utils.cameras import Camera, View
from torch_utils.geometry_vector import geometry_vector


def make_pair(number: int, depth: bool = True) -> Pair:
    def view(shade: int) -> View:
        camera = Camera.from_fov(50 + shade, 20, 12, torch.eye(3, 4) + 0.01 * number * torch.eye(3, 4).roll(3, 1))
        image = torch.full((3, 12, 20), shade, dtype=torch.uint8)
        return View(image, camera, torch.full((12, 20), float(shade)) if depth else None)

    return Pair(view(number), view(number + 10), "clip", 3 + number, 1)


def test_collate_stacks_pairs_in_order() -> None:
    pairs = [make_pair(number).square(8) for number in (1, 2, 3)]
    batch = collate(pairs)
    assert len(batch) == 3
    assert batch.source[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert batch.target[:, 0, 0, 0].tolist() == [11, 12, 13]
    assert batch.depth is not None
    assert batch.depth[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert (batch.source.dtype, batch.depth.shape) == (torch.uint8, (3, 1, 8, 8))
    for row, pair in zip(batch.geometry, pairs, strict=True):
        torch.testing.assert_close(row, geometry_vector(pair.source.camera, pair.target.camera, 8))
    published = collate(pairs, published_intrinsics=True)
    assert not torch.equal(published.geometry, batch.geometry)


def test_depth_is_kept_where_every_source_view_has_it() -> None:
    assert collate([make_pair(1).square(8), make_pair(2, depth=False).square(8)]).depth is None


def test_rows_and_moves_take_all_parts_along() -> None:
    batch = collate([make_pair(number).square(8) for number in (1, 2, 3)])
    part = batch[1:].to("cpu")
    assert part.source[:, 0, 0, 0].tolist() == [2, 3]
    assert part.target[:, 0, 0, 0].tolist() == [12, 13]
    assert torch.equal(part.geometry, batch.geometry[1:])
    assert part.depth is not None
    assert part.depth[:, 0, 0, 0].tolist() == [2, 3]


def test_the_gap_has_no_sign() -> None:
    assert make_pair(4).gap == 6
    assert make_pair(-5).gap == 3
