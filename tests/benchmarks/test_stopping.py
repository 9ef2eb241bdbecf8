"""What the table compares samples with."""

from __future__ import annotations

import torch

from benchmarks.stopping import turned
from datasets.trajectories import Move
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View


def test_turned_views_keep_the_source_beyond_its_border() -> None:
    camera = Camera.from_fov(90, 32, 32)
    columns = (torch.arange(32) * 8).to(torch.uint8).expand(3, 32, 32)
    target = Move(zoom=0.5).camera(camera)
    (image,) = turned([Pair(View(columns, camera), View(columns, target), "", 0, 1)])
    assert torch.equal(image[:, :, 0], columns[:, :, 0])
    assert (image[:, 16, 9:23].int().diff(dim=1) == 16).all()  # twice the steps, in the half that is seen
