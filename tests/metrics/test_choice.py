"""Which metrics are computed where nobody says."""

from __future__ import annotations

from pathlib import Path

from metrics.choice import default_metrics, usable_metrics


def test_without_cameras_and_with_few_images_what_is_left_out_is_said() -> None:
    names, left_out = default_metrics(False, 100, False, {})
    assert names == ["psnr", "ssim", "lpips"]
    assert left_out[0] == "left out: tsed needs run.json of generate_images, which tells the cameras"
    assert left_out[1].startswith("left out: fid: 100 images are fewer than the 2048 features")
    assert left_out[2].startswith("left out: fd_efficientnet")
    assert len(left_out) == 3
    assert default_metrics(True, 100, False, {})[0] == ["psnr", "ssim", "lpips", "tsed"]


def test_usable_is_what_can_be_computed_here(dinov2: Path, tmp_path: Path) -> None:
    """The rest keeps its order, and each line begins with the name."""
    weights = {"dinov2": str(dinov2)}
    assert usable_metrics(["fd_dinov2", "psnr"], 32, weights=weights) == (["fd_dinov2", "psnr"], [])
    names, (line,) = usable_metrics(["fd_dinov2", "psnr"], 31, weights=weights)
    assert names == ["psnr"]
    assert line.startswith("left out: fd_dinov2: 31 images are fewer than the 32 features")
    assert usable_metrics(["fd_dinov2"], 31, allow_few=True, weights=weights) == (["fd_dinov2"], [])
    names, (line,) = usable_metrics(["fd_dinov2"], 64, weights={"dinov2": str(tmp_path)})
    assert names == []
    assert line.startswith("left out: fd_dinov2, dinov2 cannot be loaded")
