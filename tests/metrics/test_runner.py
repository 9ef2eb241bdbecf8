from __future__ import annotations

import math
import pickle
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
from metrics.definitions import FEATURE_METRICS, Score
from metrics.detectors import load_detectors
from metrics.frechet import Moments, moments_distance, moments_of
from metrics.image import psnr
from metrics.reference import Reference, build_reference, load_reference
from metrics.views import Views
from tests.metrics.scenes import synthetic_pairs, views_of
from tests.metrics.test_image import noisy
from torch_utils.batches import Pair

DINOV2 = ("fd_dinov2", "joint_fd_dinov2", "kid_dinov2", "fd_dinov2_inf")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return synthetic_pairs(10)


@pytest.fixture(scope="module")
def views(pairs: list[Pair]) -> Views:
    whole = views_of(pairs)
    return replace(whole, generated=noisy(whole.target, 12))


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


def test_reference_stands_for_the_targets(views: Views, dinov2: Path, tmp_path: Path) -> None:
    names = ("fd_dinov2", "joint_fd_dinov2")
    detector = load_detectors(["dinov2"], weights={"dinov2": dinov2})["dinov2"]
    saved = build_reference(
        [(views.target[:4], views.source[:4]), (views.target[4:], views.source[4:])],
        {FEATURE_METRICS[name].reference_name: detector for name in names},
    )
    saved.save(tmp_path / "ref.npz")
    reference = load_reference(tmp_path / "ref.npz")
    assert reference.detectors == saved.detectors
    options = {"weights": {"dinov2": dinov2}, "allow_few": True}
    reports = []
    for chosen in (None, reference):
        evaluation = Evaluation(names, reference=chosen, **options)
        evaluation.update(views)
        reports.append(evaluation.compute())
    for own, other in zip(reports[0].scores, reports[1].scores, strict=True):
        assert other.generated == pytest.approx(own.generated, rel=1e-6)
        assert other.value("copy_source") == pytest.approx(own.value("copy_source"), rel=1e-6)

    with pytest.raises(UserError, match="all features of the targets"):
        Evaluation(["kid_dinov2"], reference=reference, **options)
    altered = Reference(reference.moments, {"dinov2": replace(detector.info, sha256="0" * 64)})
    with pytest.raises(UserError, match="another detector"):
        Evaluation(["fd_dinov2"], reference=altered, **options)
    joint = Reference({"joint_dinov2": reference.moments["joint_dinov2"]}, reference.detectors)
    with pytest.raises(UserError, match="no statistics of dinov2 features, only of joint_dinov2"):
        Evaluation(["fd_dinov2"], reference=joint, **options)


@pytest.mark.parametrize("content", [b"", b"no file of numpy", b"PK\x03\x04 no zip file"])
def test_reference_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ref.npz"
    with pytest.raises(UserError, match="there is no reference file"):
        load_reference(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no reference file"):
        load_reference(path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(UserError, match="is no reference file"):
        load_reference(path)


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
