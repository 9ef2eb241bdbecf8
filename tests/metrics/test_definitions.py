"""Each metric: which way is better, what it needs, how it adds up."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from skimage import data

from dnnlib import UserError
from metrics import Evaluation, compute_metrics
from metrics.definitions import (
    FEATURE_METRICS,
    IMAGE_METRICS,
    ByIndex,
    FeatureMetric,
    consistent,
    mean_summary,
    share_summary,
)
from metrics.detectors import load_detectors
from metrics.frechet import Moments, moments_distance, moments_of
from metrics.image import psnr
from metrics.views import Views
from tests.metrics.scenes import noisy, views_of
from torch_utils.batches import Pair

HIGHER_IS_BETTER = {"psnr", "ssim", "psnr_visible", "psnr_disoccluded", "tsed"}


def test_which_way_is_better() -> None:
    """In the table and image by image: of TSED, the distances behind the share are better small."""
    assert {name for name, metric in IMAGE_METRICS.items() if metric.higher_is_better} == HIGHER_IS_BETTER
    of_images = {name for name, metric in IMAGE_METRICS.items() if metric.per_image_higher_is_better}
    assert of_images == HIGHER_IS_BETTER - {"tsed"}
    accumulators = {role: ByIndex({0: np.zeros(3), 1: np.ones(3)}) for role in ("generated", "target")}
    scores = [FeatureMetric("d", "d", lambda a, b: 0.0, keeps_features=True, allow_few=True).compute(accumulators)]
    assert [score.higher_is_better for score in scores] == [False]


def test_what_each_distance_compares() -> None:
    """Joint ones know the source view; kernel distances have no bias, so that few images are enough."""
    for name, metric in FEATURE_METRICS.items():
        kernel = name.startswith("kid")
        assert metric.joint == name.startswith("joint_")
        assert metric.biased != kernel
        assert metric.keeps_features == (kernel or name.endswith("_inf"))
        assert metric.reference_name == ("joint_" if metric.joint else "") + metric.detector


@pytest.mark.parametrize(("joint", "needed"), [(False, 8), (True, 16)])
def test_a_biased_distance_needs_as_many_images_as_features(joint: bool, needed: int) -> None:
    metric = FeatureMetric("d", "d", lambda a, b: 0.0, joint=joint)
    assert metric.check_count(needed, 8) == ""
    with pytest.raises(UserError, match=f"{needed - 1} images are fewer than the {needed} features"):
        metric.check_count(needed - 1, 8)
    assert "biased upwards" in replace(metric, allow_few=True).check_count(needed - 1, 8)
    assert replace(metric, biased=False).check_count(2, 8) == ""
    with pytest.raises(UserError, match="two or more, not 1"):
        replace(metric, biased=False).check_count(1, 8)


def test_summaries_by_hand() -> None:
    found = mean_summary(np.array([1.0, 3.0, np.inf]))
    assert (found.number.value, found.number.standard_error, found.images) == (2, 1, 2)
    assert found.note.startswith("1 of 3 equal their target")
    assert mean_summary(np.array([5.0])).number.standard_error is None
    assert math.isnan(mean_summary(np.array([np.inf])).number.value)

    found = share_summary(np.array([0.5, 1.99, 2.0, 7.0, np.inf]))  # below 2 pixels fits, 2 pixels do not
    assert (found.number.value, found.images) == (0.4, 5)
    assert found.number.standard_error == pytest.approx(math.sqrt(0.4 * 0.6 / 5))
    assert found.note == "2 fit their poses, 2 do not, 1 have too few matches to tell"
    assert math.isnan(share_summary(np.array([])).number.value)
    assert (consistent(1.99), consistent(2.0)) == (True, False)


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("psnr", "target images"),
        ("psnr_visible", "`depth_model`"),
        ("psnr_disoccluded", "`depth_model`"),
        ("tsed", "source views"),
    ],
)
def test_what_is_missing_is_said(views: Views, name: str, needs: str) -> None:
    blind = Views(views.indices, views.generated, None if name == "psnr" else views.target)
    with pytest.raises(UserError, match=f"{name} needs .*{needs}.*; leave it out"):
        IMAGE_METRICS[name].measure(blind, None)


def test_too_few_matches_are_told_from_wrong(pairs: list[Pair]) -> None:
    views = views_of(pairs[:4])
    generated = views.target.clone()
    generated[1] = 128  # nothing to match
    generated[2] = views.source[2]  # the wrong pose
    evaluation = Evaluation(["tsed"])
    evaluation.update(replace(views, generated=generated, baseline=False))
    score = evaluation.compute().scores[0]
    distances = np.array([score.per_image[index] for index in range(4)])
    assert np.isinf(distances[1])
    fit, untold = int((distances < 2).sum()), int(np.isinf(distances).sum())
    told = f"generated: {fit} fit their poses, {4 - fit - untold} do not, {untold} have too few matches to tell"
    assert fit < 4 - untold
    assert told in score.note
    assert score.numbers["generated"].standard_error == pytest.approx(np.sqrt(fit / 4 * (1 - fit / 4) / 4))


def test_bootstrap_of_a_distance_is_that_of_scipy(views: Views, dinov2: Path) -> None:
    options = {"weights": {"dinov2": dinov2}, "allow_few": True}
    evaluation = Evaluation(["fd_dinov2"], bootstrap=20, **options)
    evaluation.update(views)
    found = evaluation.compute().scores[0].numbers["generated"]
    plain = compute_metrics(views.generated, views.target, metrics=["fd_dinov2"], **options)["fd_dinov2"]
    assert found.value == pytest.approx(plain, rel=1e-6)
    detector = load_detectors(["dinov2"], weights={"dinov2": dinov2})["dinov2"]
    features = [detector(images).numpy() for images in (views.generated, views.target)]

    def distance(rows: np.ndarray) -> float:
        return moments_distance(*(moments_of(of[rows]) for of in features))

    expected = stats.bootstrap(
        (np.arange(10),), distance, n_resamples=20, vectorized=False, method="basic", rng=np.random.default_rng(0)
    )
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), rel=1e-6)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-6)


def test_visible_and_disoccluded(views: Views) -> None:
    visible = torch.zeros(10, 1, 64, 64, dtype=torch.bool)
    visible[:9, :, :20] = True
    evaluation = Evaluation(("psnr_visible", "psnr_disoccluded"))
    evaluation.update(replace(views, visible=visible))
    seen, hidden = evaluation.compute().scores
    assert (seen.images, hidden.images) == (9, 10)  # the last image has no visible pixel
    cropped = psnr(views.generated[:9, :, :20], views.target[:9, :, :20])
    np.testing.assert_allclose(list(seen.per_image.values()), cropped, rtol=1e-12)
    rest = psnr(views.generated[:9, :, 20:], views.target[:9, :, 20:])
    np.testing.assert_allclose(list(hidden.per_image.values())[:9], rest, rtol=1e-12)


def test_joint_distance_is_that_of_pairs_of_features(views: Views, dinov2: Path) -> None:
    detector = load_detectors(["dinov2"], weights={"dinov2": dinov2})["dinov2"]
    source = detector(views.source)
    moments = []
    for images in (views.generated, views.target):
        moments.append(Moments())
        moments[-1].update(torch.cat([detector(images), source], dim=1))
    name = "joint_fd_dinov2"
    images = views.generated, views.target, views.source
    found = compute_metrics(*images, [name], weights={"dinov2": dinov2}, allow_few=True)
    assert found[name] == pytest.approx(moments_distance(*moments), rel=1e-9)


def test_degradations_are_ordered(pairs: list[Pair]) -> None:
    """Every metric calls an untouched image better than a degraded one, and more of it worse.

    Ordered: blur by 2 and by 4, noise of 8 and of 32, the target of another pose, that of another scene. TSED has
    nothing to say of blur and noise as long as what can still be matched lies where it should.
    """
    pytest.importorskip("efficientnet_lite_pytorch")
    names = ("psnr", "ssim", "lpips", "tsed", "fd_efficientnet", "kid_efficientnet")
    higher = {"psnr", "ssim", "tsed"}
    views = views_of(pairs[:6])
    target, source, cameras = views.target, views.source, views.cameras
    photographs = torch.stack([torch.from_numpy(data.astronaut()[i * 16 :][:64, 100:164].copy()) for i in range(6)])

    def blurred(factor: int) -> torch.Tensor:
        small = F.avg_pool2d(target.float(), factor)
        return F.interpolate(small, scale_factor=factor, mode="bilinear").round().to(torch.uint8)

    ladders = {
        "blur": [target, blurred(2), blurred(4)],
        "noise": [target, noisy(target, 8), noisy(target, 32)],
        "content": [target, source, photographs.permute(0, 3, 1, 2)],  # another pose, another scene
    }
    untouched = compute_metrics(target, target, source, names, cameras=cameras, allow_few=True) | {"psnr": math.inf}
    for ladder, steps in ladders.items():
        scores = [untouched]
        for images in steps[1:]:
            scores.append(compute_metrics(images, target, source, names, cameras=cameras, allow_few=True))
        for name in names:
            values = [score[name] if name in higher else -score[name] for score in scores]
            if name == "tsed" and ladder != "content":
                assert values[0] >= values[1] >= values[2], (ladder, name, values)
            elif name == "tsed":
                assert values[0] > max(values[1:]) + 0.3, (ladder, name, values)
            else:
                assert values[0] > values[1] > values[2], (ladder, name, values)
