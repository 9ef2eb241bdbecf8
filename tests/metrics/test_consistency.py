from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from datasets.synthetic import Synthetic
from metrics.consistency import DepthReport, LoopReport, path_reports, same_view
from metrics.image import psnr
from tests.torch_utils.test_warping import turn
from torch_utils.cameras import Camera, View
from torch_utils.warping import euler_rotation, warp_depth


def walk(frames: int = 4) -> list[View]:
    """Views of one synthetic room, with depth, from one frame to its neighbours."""
    data = Synthetic("test", "1-2", 64)
    clip = data[0].clip
    listed = data.with_pairs([(clip, k, k + 1) for k in range(frames)])
    return [listed[k].source for k in range(frames)]


def test_true_frames_agree_and_others_do_not() -> None:
    truth = walk()
    report = DepthReport(truth)
    for view in truth:
        report.add(view.image, view.camera)
    found = report.summary()["depth_consistency"]
    moved, seen = warp_depth(truth[0].image.float(), truth[0].depth, truth[0].camera, truth[1].camera)
    first = psnr(truth[1].image[None], moved.round()[None], seen[None, None]).item()
    assert report._psnrs[0] == (pytest.approx(first), pytest.approx(first))
    assert found["pairs"] == 3
    assert found["psnr_db"] == found["true_frames_psnr_db"] > 25

    flicker = DepthReport(truth)
    for number, view in enumerate(truth):
        flicker.add((view.image // 2 + 64 * (number % 2)).to(torch.uint8), view.camera)
    assert flicker.summary()["depth_consistency"]["psnr_db"] < found["psnr_db"] - 8

    standing = DepthReport(truth)  # one picture for all cameras
    for view in truth:
        standing.add(truth[0].image, view.camera)
    assert standing.summary()["depth_consistency"]["psnr_db"] < found["psnr_db"] - 2


def test_a_loop_is_found_and_measured() -> None:
    view = walk(1)[0]
    turned = turn(view.camera, euler_rotation(0, 8, 0), 1.0)
    darker = (view.image // 2).to(torch.uint8)
    report = LoopReport()
    for image, camera in ((view.image, view.camera), (darker, turned), (darker, view.camera)):
        report.add(image, camera)
    found = report.summary()["loop_closure"]
    assert found["frames"] == [2]
    assert found["psnr_db"] == pytest.approx(psnr(darker[None], view.image[None]).item())
    assert "back at the start: 1 frame, " in str(report)
    report.add(view.image, view.camera)
    again = report.summary()["loop_closure"]
    assert (again["frames"], again["equal"], again["psnr_db"]) == ([2, 3], 1, found["psnr_db"])


def test_same_view_is_the_place_the_direction_and_the_lens() -> None:
    camera = Camera.from_fov(60, 10, 10, torch.cat([euler_rotation(1, 2, 3), torch.ones(3, 1)], dim=1))
    assert same_view(camera, replace(camera))
    assert not same_view(camera, turn(camera, euler_rotation(1, 0, 0), 1.0))
    assert not same_view(camera, replace(camera, extrinsics=camera.extrinsics + 1e-3))
    assert not same_view(camera, replace(camera, intrinsics=Camera.from_fov(50, 10, 10).intrinsics))


def test_what_is_said_of_a_path_depends_on_what_is_known() -> None:
    truth = walk(2)
    names = [type(report).__name__ for report in path_reports(truth)]
    assert names == ["NeighbourReport", "TruthReport", "DepthReport", "LoopReport"]
    without = [replace(view, depth=None) for view in truth]
    assert [type(report).__name__ for report in path_reports(without)] == names[:2] + names[3:]
    assert len(path_reports()) == 2
    assert "does not return" in str(path_reports()[-1])
