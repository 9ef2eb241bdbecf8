"""What is judged: images that fit together, cut borders, and the warp by depth with its mask of visible pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
from metrics.runner import Evaluation
from metrics.saved import open_results
from metrics.views import WARP, Views
from tests.metrics.scenes import synthetic_pairs, views_of, write_run
from torch_utils.batches import Pair
from torch_utils.cameras import View
from torch_utils.warping import turned_view


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return synthetic_pairs(4)


def depth_of(pairs: list[Pair]) -> torch.Tensor:
    return torch.stack([pair.source.depth for pair in pairs])[:, None]


def evaluate(views: Views, *metrics: str) -> dict[str, tuple[float, float | None, float | None]]:
    """(generated, copy of the source, warp) of each metric."""
    evaluation = Evaluation(metrics)
    evaluation.update(views)
    scores = evaluation.compute().scores
    return {score.name: (score.generated, score.value("copy_source"), score.value("warp")) for score in scores}


def test_exact_depth_beats_a_copy_and_tells_what_is_visible(pairs: list[Pair]) -> None:
    plain = views_of(pairs)
    views = plain.with_depth(depth_of(pairs))
    assert plain.warped is None
    assert (views.warped.dtype, views.warped.shape) == (torch.uint8, views.target.shape)
    assert 0.5 < float(views.visible.float().mean()) < 1
    measured = evaluate(views, "psnr", "psnr_visible", "psnr_disoccluded", "ssim", "tsed")
    _, copied, warped = measured["psnr_visible"]
    assert warped > copied + 8  # dB
    assert measured["psnr"][2] > measured["psnr"][1] + 3
    assert measured["ssim"][2] > measured["ssim"][1] + 0.1
    assert measured["psnr_disoccluded"][2] < 25  # a constant colour
    assert measured["tsed"][2] >= measured["tsed"][1]


def test_a_warp_judges_as_the_same_images_generated_do(pairs: list[Pair]) -> None:
    views = views_of(pairs).with_depth(depth_of(pairs))
    measured = evaluate(replace(views, generated=views.warped), "psnr", "ssim", "tsed")
    for generated, _, warped in measured.values():
        assert generated == warped


def test_without_depth_there_is_no_such_column(pairs: list[Pair]) -> None:
    evaluation = Evaluation(["psnr"])
    evaluation.update(views_of(pairs))
    assert evaluation.compute().scores[0].value("warp") is None
    assert WARP not in evaluation.compute().to_text()
    evaluation = Evaluation(["psnr"])
    evaluation.update(views_of(pairs).with_depth(depth_of(pairs)))
    assert WARP in evaluation.compute().to_text()


def test_depth_is_read_from_beside_the_source_views(pairs: list[Pair], tmp_path: Path) -> None:
    results = open_results(write_run(tmp_path / "out", pairs, views_of(pairs).target))
    views = next(results.batches(4))
    depth = results.stored_depth(views)
    torch.testing.assert_close(depth, depth_of(pairs), rtol=0, atol=0.00051)
    exact, stored = (
        evaluate(v, "psnr")["psnr"][2] for v in (views.with_depth(depth_of(pairs)), views.with_depth(depth))
    )
    assert exact == pytest.approx(stored, abs=0.1)


def test_a_warp_without_cameras_is_refused(pairs: list[Pair]) -> None:
    blind = replace(views_of(pairs), cameras=None)
    with pytest.raises(UserError, match="cameras"):
        blind.with_depth(depth_of(pairs))
    with pytest.raises(UserError, match="cameras"):
        blind.with_homography()


def test_a_turned_source_is_the_truth_where_the_camera_only_turns(pairs: list[Pair]) -> None:
    plain = views_of(pairs)
    turned = []
    for source, target in plain.cameras:
        in_place = torch.cat([target.rotation, -target.rotation @ source.center[:, None]], dim=1)
        turned.append((source, replace(target, extrinsics=in_place)))
    views = replace(plain, cameras=turned)
    expected = [
        turned_view(View(image, source), target) for image, (source, target) in zip(views.source, turned, strict=False)
    ]
    for moved, source, (truth, seen) in zip(views.with_homography().warped, views.source, expected, strict=True):
        assert torch.equal(moved * seen, truth * seen)
        assert torch.equal(moved * ~seen, source * ~seen)  # holes keep the source's pixels
    # a homography knows the rotation alone: it is the same whatever the translation
    assert torch.equal(views.with_homography().warped, plain.with_homography().warped)


def test_pixels_that_the_source_does_not_see_get_its_mean_colour(pairs: list[Pair]) -> None:
    views = views_of(pairs).with_depth(depth_of(pairs))
    for moved, seen, source in zip(views.warped, views.visible, views.source, strict=True):
        mean = source.double().mean(dim=(1, 2)).round()
        assert torch.equal(moved[:, ~seen[0]].double(), mean[:, None].expand(-1, int((~seen).sum())))
        assert not torch.equal(moved[:, seen[0]].double(), mean[:, None].expand(-1, int(seen.sum())))


def test_a_camera_that_stays_sees_all_of_what_it_saw(pairs: list[Pair]) -> None:
    plain = views_of(pairs)
    views = replace(plain, cameras=[(source, source) for source, _ in plain.cameras]).with_depth(depth_of(pairs))
    assert bool(views.visible.all())
    assert torch.equal(views.warped, views.source)


def test_borders_are_cut_off_images_masks_and_cameras(pairs: list[Pair]) -> None:
    """5 % of 64 pixels are 3.2: 4 are cut off at the left and top, and as many at the right and bottom."""
    views = views_of(pairs).with_depth(depth_of(pairs))
    cut = views.without_border(0.05)
    assert cut.size == (56, 56)
    for name in ("generated", "target", "source", "visible", "warped"):
        assert torch.equal(getattr(cut, name), getattr(views, name)[..., 4:60, 4:60])
    for (source, target), (source_cut, target_cut) in zip(views.cameras, cut.cameras, strict=True):
        for camera, smaller in ((source, source_cut), (target, target_cut)):
            assert (smaller.width, smaller.height) == (56, 56)
            point = torch.tensor([[0.3, -0.2, 2.0]], dtype=torch.float64)
            moved = camera.project(point)[0] - smaller.project(point)[0]
            torch.testing.assert_close(moved, torch.full_like(moved, 4.0))
    assert Views(range(4), views.generated, None).without_border(0.05).cameras is None


def test_candidates(pairs: list[Pair]) -> None:
    views = views_of(pairs)
    assert list(views.candidates) == ["generated", "copy_source"]
    assert list(replace(views, baseline=False).candidates) == ["generated"]
    assert list(views.with_homography().candidates) == ["generated", "copy_source", "warp"]
    assert views.candidates["copy_source"] is views.source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generated": torch.zeros(4, 3, 64, 64)}, "uint8"),
        ({"generated": torch.zeros(4, 1, 64, 64, dtype=torch.uint8)}, "uint8"),
        ({"source": torch.zeros(4, 3, 64, 32, dtype=torch.uint8)}, "generated and source images do not fit together"),
        ({"target": torch.zeros(3, 3, 64, 64, dtype=torch.uint8)}, "generated and target images do not fit together"),
        ({"indices": range(3)}, "3 indices do not fit 4 images"),
        ({"visible": torch.zeros(3, 1, 64, 64, dtype=torch.bool)}, "3 masks do not fit 4 images"),
    ],
)
def test_what_does_not_fit_together_is_refused(pairs: list[Pair], changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(views_of(pairs), **changes)
