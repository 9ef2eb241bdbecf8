from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib import UserError
from metrics import Moments, frechet_distance
from metrics.frechet import frechet_infinity, moments_distance
from tests.golden import tensors, vectors


def moments_of(features: np.ndarray) -> Moments:
    moments = Moments()
    moments.update(features)
    return moments


def random_features(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim)) + rng.standard_normal(dim)


def test_golden_distance() -> None:
    moments = [moments_of(tensors()[name]) for name in ("fd/a", "fd/b")]
    assert moments_distance(*moments) == pytest.approx(vectors()["fd"], rel=1e-9)


def test_moments_are_those_of_numpy() -> None:
    features = random_features(np.random.default_rng(0), 50, 7)
    mean, covariance = moments_of(features).compute()
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-11)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 8), st.floats(-1e3, 1e3))
def test_shards_merge_to_the_whole(sizes: list[int], dim: int, offset: float) -> None:
    rng = np.random.default_rng(sum(sizes) + dim)
    shards = [random_features(rng, size, dim) + offset for size in (*sizes, 2)]
    merged = Moments()
    for shard in shards:
        part = Moments()
        for row in range(0, len(shard), 3):
            part.update(shard[row : row + 3])
        merged.merge(part)
    whole = moments_of(np.concatenate(shards))
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-10, atol=1e-12 * (1 + offset**2))


def test_merging_leaves_the_other_as_it_was() -> None:
    part = moments_of(np.arange(12.0).reshape(4, 3))
    merged = Moments()
    merged.merge(part)
    merged.update(np.ones((2, 3)))
    assert part.count == 4
    np.testing.assert_array_equal(part.scatter, moments_of(np.arange(12.0).reshape(4, 3)).scatter)


def test_float32_features_are_summed_in_float64() -> None:
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((4000, 2)) * 1e-3 + 1000).astype(np.float32)
    moments = Moments()
    for row in range(0, len(features), 10):
        moments.update(torch.from_numpy(features[row : row + 10]))
    np.testing.assert_allclose(moments.compute()[1], np.cov(features.astype(np.float64), rowvar=False), rtol=1e-8)


@pytest.mark.parametrize("dim", [1, 5, 64])
def test_agrees_with_the_matrix_square_root(dim: int) -> None:
    rng = np.random.default_rng(dim)
    (mu1, sigma1), (mu2, sigma2) = (moments_of(random_features(rng, 3 * dim + 2, dim)).compute() for _ in range(2))
    root = np.real(scipy.linalg.sqrtm(sigma1 @ sigma2))
    expected = np.square(mu1 - mu2).sum() + np.trace(sigma1 + sigma2 - 2 * root)
    assert frechet_distance(mu1, sigma1, mu2, sigma2) == pytest.approx(expected, rel=1e-6)


def test_equal_covariances_leave_the_distance_of_the_means() -> None:
    rng = np.random.default_rng(0)
    mu1, sigma = moments_of(random_features(rng, 200, 30)).compute()
    mu2 = rng.standard_normal(30)
    expected = np.square(mu1 - mu2).sum()
    assert frechet_distance(mu1, sigma, mu2, sigma) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(torch.tensor(mu1), torch.tensor(sigma), mu2, sigma) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(mu1, sigma, mu1, sigma) == pytest.approx(0, abs=1e-9 * np.trace(sigma))


def test_commuting_covariances_have_a_closed_form() -> None:
    """With sigma_i = Q diag(s_i) Q^T: sum of (sqrt(s_1) - sqrt(s_2))^2, also where some s are 0."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    first, second = rng.random(20), rng.random(20)
    first[:8] = second[5:12] = 0
    sigma1, sigma2 = (rotation * spectrum @ rotation.T for spectrum in (first, second))
    expected = np.square(np.sqrt(first) - np.sqrt(second)).sum()
    mean = np.zeros(20)
    # An eigenvalue that should be 0 comes out as 1e-16, and its root as 1e-8.
    assert frechet_distance(mean, sigma1, mean, sigma2) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(mean, sigma2, mean, sigma1) == pytest.approx(expected, rel=1e-7)


def test_fewer_samples_than_dimensions() -> None:
    """Singular covariances: the same as in the subspace that the samples span."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((100, 100)))[0][:, :12]
    low = [random_features(rng, 10, 12) for _ in range(2)]
    inside = moments_distance(*(moments_of(features) for features in low))
    embedded = moments_distance(*(moments_of(features @ basis.T) for features in low))
    assert embedded == pytest.approx(inside, rel=1e-9)


def test_bad_input() -> None:
    one, two = np.eye(3), np.eye(2)
    with pytest.raises(ValueError, match="of one D"):
        frechet_distance(np.zeros(3), one, np.zeros(2), two)
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(np.zeros(3), one * np.nan, np.zeros(3), one)
    with pytest.raises(UserError, match="not finite"):
        moments_of(np.full((2, 2), np.inf))
    with pytest.raises(ValueError, match="at least 2"):
        moments_of(np.zeros((1, 3))).compute()
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        moments_of(np.zeros((2, 3))).update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="do not merge"):
        moments_of(np.zeros((2, 3))).merge(moments_of(np.zeros((2, 4))))


def test_infinity_removes_the_bias() -> None:
    """Two samples of one distribution: the distance of N of them is about c/N, that of infinitely many 0."""
    rng = np.random.default_rng(0)
    generated, target = rng.standard_normal((2, 2000, 20))
    biased = moments_distance(moments_of(generated), moments_of(target))
    assert abs(frechet_infinity(generated, target)) < 0.2 * biased
    # Against the exact moments of the distribution, as of a large reference.
    exact = Moments(10**6, np.zeros(20), np.eye(20) * (10**6 - 1))
    assert abs(frechet_infinity(generated, exact)) < 0.2 * moments_distance(moments_of(generated), exact)
    shifted = frechet_infinity(generated + 1, target)
    assert shifted == pytest.approx(20, rel=0.05)
    assert frechet_infinity(generated + 1, target) == shifted


@pytest.mark.parametrize(
    ("count", "dim", "smallest"),
    [
        (150, 4, 30),  # a fifth of the images
        (150, 40, 40),  # as many as dimensions, where that is more
        (150, 100, 75),  # but never more than half of the images
        (6, 1, 2),  # and two at least
    ],
)
def test_infinity_draws_fifteen_sizes_from_a_fifth_to_the_whole(
    count: int, dim: int, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr("metrics.frechet.moments_distance", lambda a, b: drawn.append((a.count, b.count)) or 1.0)
    features = np.random.default_rng(0).standard_normal((count, dim))
    assert frechet_infinity(features, features) == pytest.approx(1)
    sizes = np.unique(np.linspace(smallest, count, 15).round().astype(int))
    assert drawn == [(size, size) for size in sizes]


def test_infinity_needs_pairs_and_enough_of_them() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        frechet_infinity(np.zeros((9, 2)), np.zeros((8, 2)))
    with pytest.raises(UserError, match="too few"):
        frechet_infinity(np.zeros((2, 2)), np.zeros((2, 2)))
