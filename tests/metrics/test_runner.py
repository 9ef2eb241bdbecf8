from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dnnlib import UserError
from metrics import Evaluation, compute_metrics
from metrics.definitions import Score
from metrics.image import psnr
from metrics.views import Views
from tests.metrics.scenes import noisy, views_of
from torch_utils.batches import Pair

DINOV2 = ("fd_dinov2", "joint_fd_dinov2", "kid_dinov2", "fd_dinov2_inf")


def part(views: Views, rows: slice) -> Views:
    return Views(
        views.indices[rows], views.generated[rows], views.target[rows], views.source[rows], views.cameras[rows]
    )


def numbers(scores: list[Score]) -> dict[str, tuple]:
    return {score.name: (score.numbers, score.per_image) for score in scores}


def test_forms_of_input_agree(views: Views) -> None:
    expected = compute_metrics(views.generated, views.target)
    assert list(expected) == ["psnr", "ssim", "lpips"]
    assert expected["psnr"] == pytest.approx(psnr(views.generated, views.target).mean().item(), rel=1e-12)
    arrays = [images.permute(0, 2, 3, 1).numpy() for images in (views.generated, views.target)]
    assert compute_metrics(*arrays) == expected
    streams = [iter(images.split(3)) for images in (views.generated, views.target)]
    assert compute_metrics(*streams) == pytest.approx(expected, rel=1e-6)


def test_tsed_from_python(views: Views) -> None:
    whole = compute_metrics(views.target, views.target, views.source, ["tsed"], cameras=views.cameras)
    split = [iter(images.split(4)) for images in (views.target, views.target, views.source)]
    assert compute_metrics(*split, metrics=["tsed"], cameras=views.cameras) == whole
    assert whole["tsed"] >= 0.6


def test_any_batches_any_order_any_process_the_same(views: Views, dinov2: Path) -> None:
    """Numbers of single images, KID and FD-infinity equal; moments to 1e-9; the state survives pickling."""

    def evaluation() -> Evaluation:
        return Evaluation(("psnr", "ssim", "tsed", *DINOV2), weights={"dinov2": dinov2}, allow_few=True)

    whole, first, second = (evaluation() for _ in range(3))
    whole.update(views)
    for rows in (slice(7, 10), slice(0, 2)):
        first.update(part(views, rows))
    second.update(part(views, slice(2, 7)))
    second.merge(pickle.loads(pickle.dumps(first.state())))
    second.merge(evaluation().state())  # of a process that had nothing to do
    expected, merged = whole.compute(), second.compute()
    assert merged.indices == expected.indices == list(range(10))
    for one, other in zip(expected.scores, merged.scores, strict=True):
        assert one.per_image == other.per_image
        for role in ("generated", "copy_source"):
            assert other.value(role) == pytest.approx(one.value(role), rel=1e-6)
    for name in ("kid_dinov2", "fd_dinov2_inf"):
        assert numbers(expected.scores)[name] == numbers(merged.scores)[name]
    for name in ("fd_dinov2", "joint_fd_dinov2"):
        for role, moments in whole.state().accumulators[name].items():
            other = second.state().accumulators[name][role]
            np.testing.assert_allclose(other.mean, moments.mean, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(other.scatter, moments.scatter, rtol=1e-9, atol=1e-9)


def test_worker_processes_change_nothing(views: Views) -> None:
    few = part(views, slice(0, 2))
    reports = []
    for workers in (0, 1):
        evaluation = Evaluation(["tsed"], workers=workers)
        evaluation.update(few)
        reports.append(evaluation.compute())
    assert numbers(reports[0].scores) == numbers(reports[1].scores)


def test_true_targets_and_copies(pairs: list[Pair], dinov2: Path) -> None:
    """Generated = target: the best of all metrics; the baseline is what copying the source gets."""
    names = ("psnr", "ssim", "lpips", "tsed", *DINOV2)
    options = {"weights": {"dinov2": dinov2}, "allow_few": True}
    evaluation = Evaluation(names, **options)
    views = views_of(pairs)
    evaluation.update(views)
    scores = {score.name: score for score in evaluation.compute().scores}
    assert math.isnan(scores["psnr"].generated)
    assert scores["psnr"].note == "generated: 10 of 10 equal their target, which has no finite number, and are left out"
    assert scores["ssim"].generated == pytest.approx(1, abs=1e-12)
    assert scores["lpips"].generated == 0
    assert scores["tsed"].generated == scores["tsed"].value("target") > scores["tsed"].value("copy_source")
    for name in ("fd_dinov2", "joint_fd_dinov2", "fd_dinov2_inf"):
        assert abs(scores[name].generated) < 1e-5 * abs(scores[name].value("copy_source"))
    copies = compute_metrics(views.source, views.target, views.source, names, cameras=views.cameras, **options)
    for name, value in copies.items():
        assert scores[name].value("copy_source") == pytest.approx(value, rel=1e-6)


def test_one_pair_of_equal_images_leaves_a_mean(pairs: list[Pair]) -> None:
    views = views_of(pairs)
    generated = noisy(views.target, 12)
    generated[3] = views.target[3]
    evaluation = Evaluation(["psnr"])
    evaluation.update(replace(views, generated=generated))
    table = evaluation.compute()
    others = [index for index in range(10) if index != 3]
    numbers = psnr(generated[others], views.target[others]).numpy()
    found = table.scores[0].numbers["generated"]
    assert found.value == pytest.approx(numbers.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(numbers), rel=1e-12)
    assert table.scores[0].images == 9
    assert "generated: 1 of 10 equal their target" in table.to_text()
    assert table.to_dict()["metrics"]["psnr"]["per_image"]["3"] is None


def test_few_images(views: Views, dinov2: Path) -> None:
    def evaluation(name: str, allow_few: bool = False) -> Evaluation:
        return Evaluation([name], weights={"dinov2": dinov2}, allow_few=allow_few)

    with pytest.raises(UserError, match=r"10 images are fewer than the 32 features.*`allow_few`"):
        evaluation("fd_dinov2").check_count(10)
    with pytest.raises(UserError, match=r"fewer than the 64 features"):
        evaluation("joint_fd_dinov2").check_count(63)
    evaluation("fd_dinov2").check_count(32)
    evaluation("kid_dinov2").check_count(10)
    few = evaluation("fd_dinov2", allow_few=True)
    few.update(views)
    assert "fewer than the 32 features" in few.compute().scores[0].note
    with pytest.raises(UserError, match="two or more, not 1"):
        few.check_count(1)
    with pytest.raises(UserError, match="no images"):
        Evaluation(["psnr"]).compute()


def test_bad_input(views: Views) -> None:
    one, small = views.target[:4], views.target[:4, :, :32, :32]
    with pytest.raises(UserError, match="do not fit together: 4 of 32x32 pixels and 4 of 64x64"):
        compute_metrics(small, one)
    with pytest.raises(UserError, match="3 of 64x64 pixels and 4"):
        compute_metrics(one[:3], one)
    with pytest.raises(UserError, match="differ in number"):
        compute_metrics([one, one], [one])
    with pytest.raises(UserError, match=r"images of 64x64 and of 32x32 pixels"):
        compute_metrics([one, small], [one, small])
    with pytest.raises(UserError, match="no images"):
        compute_metrics(one[:0], one[:0])
    with pytest.raises(UserError, match="no metric 'psrn'; known are psnr"):
        compute_metrics(one, one, metrics=["psrn"])
    with pytest.raises(UserError, match="tsed needs"):
        compute_metrics(one, one, one, metrics=["tsed"])
    with pytest.raises(UserError, match="psnr_visible needs"):
        compute_metrics(one, one, metrics=["psnr_visible"])
    with pytest.raises(UserError, match="3 cameras do not fit 4 images"):
        compute_metrics(one, one, one, metrics=["tsed"], cameras=views.cameras[:3])
    with pytest.raises(UserError, match="uint8"):
        Views([0], one[:1].float(), one[:1].float())


def test_an_image_counts_once(views: Views) -> None:
    evaluation = Evaluation(["psnr"])
    evaluation.update(part(views, slice(0, 3)))
    with pytest.raises(ValueError, match="image 2 comes twice"):
        evaluation.update(part(views, slice(2, 4)))
    other = Evaluation(["psnr"])
    other.update(part(views, slice(0, 1)))
    with pytest.raises(ValueError, match="image 0 comes twice"):
        evaluation.merge(other.state())
