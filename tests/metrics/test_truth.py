"""Frames of a path against the true ones."""

from __future__ import annotations

import math

import pytest
import torch

from metrics.truth import TruthReport
from torch_utils.cameras import Camera, View


def view(shade: int) -> View:
    return View(torch.full((3, 8, 8), shade, dtype=torch.uint8), Camera.from_fov(60, 8, 8))


def test_means_leave_the_source_view_out() -> None:
    """PSNR of a difference of d grey levels is 20 log10(255/d)."""
    truth = [view(100), view(110), view(130)]
    report = TruthReport(truth)
    for shade, true in zip((0, 111, 132), truth, strict=True):
        report.add(view(shade).image, true.camera)
    found = report.summary()["truth"]
    assert found["psnr_db"] == pytest.approx((20 * math.log10(255) + 20 * math.log10(255 / 2)) / 2)
    assert found["copy_source_psnr_db"] == pytest.approx((20 * math.log10(25.5) + 20 * math.log10(8.5)) / 2)
    assert str(report) == "PSNR against the true frames {:.2f} dB, of the source view {:.2f} dB".format(*found.values())


def test_one_frame_has_no_numbers() -> None:
    report = TruthReport([view(100)])
    report.add(view(90).image, view(100).camera)
    assert report.summary() == {"truth": {"psnr_db": None, "copy_source_psnr_db": None}}
    assert str(report).count("-") == 2
