"""The neighbour report on views whose consistency is known: of a synthetic room, true and shuffled."""

from __future__ import annotations

import math

import pytest
import torch

from datasets.synthetic import SyntheticClip
from datasets.trajectories import Move
from metrics.neighbours import NeighbourReport
from torch_utils.cameras import Camera, View
from torch_utils.warping import turned_view


def summary(views: list[View]) -> dict:
    report = NeighbourReport()
    for view in views:
        report.add(view.image, view.camera)
    return report.summary()["neighbours"]


def test_a_true_walk_is_consistent_and_the_wrong_poses_are_not() -> None:
    clip = SyntheticClip("test-00001", range(64), 160, 160)
    views = [clip.view(k) for k in (0, 3, 6, 9)]
    found = summary(views)
    assert (found["pairs"], found["psnr_db"]) == (3, None)  # the camera walks
    assert found["tsed"] == 1
    wrong = [View(a.image, b.camera) for a, b in zip(views, [views[k] for k in (2, 0, 3, 1)], strict=True)]
    assert summary(wrong)["tsed"] < 1


def test_turning_views_agree_where_both_see_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.nn.functional.interpolate(
        torch.rand(1, 3, 30, 40, generator=generator), size=(240, 320), mode="bicubic"
    )
    photograph = View((noise[0].clamp(0, 1) * 255).to(torch.uint8), Camera.from_fov(60, 320, 240))
    cameras = [Move(pan_deg=angle).camera(photograph.camera).crop_center(160, 160) for angle in (0, 3, 6)]
    views = [View(turned_view(photograph, camera)[0], camera) for camera in cameras]
    found = summary(views)
    assert found["psnr_db"] > 35  # two bilinear interpolations
    assert found["tsed"] == 1
    still = [View(views[0].image, view.camera) for view in views]  # pictures that do not turn with their cameras
    assert summary(still)["psnr_db"] < 25


def test_nothing_to_compare() -> None:
    camera = Camera.from_fov(60, 32, 32)
    grey = View(torch.full((3, 32, 32), 100, dtype=torch.uint8), camera)
    assert summary([grey]) == {"pairs": 0, "too_few_matches": 0, "tsed": None, "psnr_db": None}
    assert summary([grey, grey]) == {"pairs": 1, "too_few_matches": 1, "tsed": None, "psnr_db": None}
    report = NeighbourReport()
    report.add(grey.image, camera)
    assert str(report) == "one frame: no neighbours to compare"
    report.add(grey.image, camera)
    untold = "neighbouring frames have too few matches to tell whether they fit the camera's way (1 pair)"
    assert str(report) == untold


@pytest.mark.parametrize(
    ("distances", "psnrs", "said"),
    [
        ([0.5, 3.0], [], "1 of 2 pairs of neighbouring frames fit the camera's way (TSED 0.50)"),
        ([0.5, math.inf, math.inf], [], "1 of 1 pairs of neighbouring frames fit the camera's way (TSED 1.00); 2 more "
         "have too few matches to tell"),
        ([math.inf] * 2, [30.04], "neighbouring frames have too few matches to tell whether they fit the camera's way "
         "(2 pairs); where it only turns they agree to 30.0 dB (PSNR)"),
    ],
)  # fmt: skip
def test_the_report_is_a_sentence_with_the_numbers(distances: list[float], psnrs: list[float], said: str) -> None:
    assert str(NeighbourReport(_distances=distances, _psnrs=psnrs)) == said
