"""Fréchet distance between feature distributions (Heusel et al. 2017, equation 6), from streaming float64 moments."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from dnnlib import UserError

ArrayLike = npt.ArrayLike | torch.Tensor

_LARGEST_SUBSETS = 15  # Chong and Forsyth 2020, section 4: fifteen sizes for the line
_SMALLEST_SHARE = 5  # the smallest of them is a fifth of the images: far enough in 1/N for a stable slope


@dataclass
class Moments:
    """Mean and covariance of feature vectors that come in batches; memory does not grow with their number.

    Sums are kept about the running mean in float64 (Chan, Golub and LeVeque 1983), so that shards merge to what the
    whole would have given, to rounding.

    Attributes:
        count: vectors seen. mean: float64 [D]. scatter: float64 [D, D], the sum of (x - mean)(x - mean)^T.
    """

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scatter: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def dim(self) -> int:
        """D; 0 before the first batch."""
        return len(self.mean)

    def update(self, features: ArrayLike) -> None:
        """Add feature vectors [N, D]. Raises ValueError where they do not fit or are not finite."""
        rows = _float64(features)
        if rows.ndim != 2 or (self.dim and rows.shape[1] != self.dim):
            raise ValueError(f"features are [N, {self.dim or 'D'}], not {list(rows.shape)}")
        if not np.isfinite(rows).all():
            raise UserError("features have numbers that are not finite: the images or the network's weights are broken")
        if len(rows):
            mean = rows.mean(axis=0)
            centered = rows - mean
            self._add(len(rows), mean, centered.T @ centered)

    def merge(self, other: Moments) -> None:
        """Add what `other` has seen."""
        if other.count and self.dim not in (0, other.dim):
            raise ValueError(f"moments of {other.dim} features do not merge into moments of {self.dim}")
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def compute(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean [D], unbiased covariance [D, D]), float64. Raises ValueError below two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, not {self.count}")
        return self.mean.copy(), self.scatter / (self.count - 1)

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if not self.count:
            self.count, self.mean, self.scatter = count, mean.copy(), scatter.copy()
            return
        total = self.count + count
        shift = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(shift, shift * (self.count * count / total))
        self.mean += shift * (count / total)
        self.count = total


def frechet_distance(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), in float64.

    Args: means [D] and symmetric positive semi-definite covariances [D, D], which may be singular; arrays or tensors.
    Raises ValueError where shapes do not fit or numbers are not finite.

    With sigma1 = L L^T, the eigenvalues of sigma1 sigma2 are those of the symmetric L^T sigma2 L: no matrix root is
    needed. L comes from pivoted Cholesky, which stops at the rank, so a singular covariance makes the problem smaller
    rather than ill-conditioned.
    """
    mu1, sigma1, mu2, sigma2 = (_float64(array) for array in (mu1, sigma1, mu2, sigma2))
    if mu1.ndim != 1 or mu1.shape != mu2.shape or any(s.shape != 2 * mu1.shape for s in (sigma1, sigma2)):
        raise ValueError(
            "a Fréchet distance needs means [D] and covariances [D, D] of one D, not "
            f"{list(mu1.shape)}, {list(sigma1.shape)}, {list(mu2.shape)}, {list(sigma2.shape)}"
        )
    if not all(np.isfinite(array).all() for array in (mu1, sigma1, mu2, sigma2)):
        raise ValueError("a Fréchet distance needs finite means and covariances")
    found = np.square(mu1 - mu2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * _root_trace(sigma1, sigma2)
    return max(float(found), 0.0)  # equal sets come out at minus a rounding


def moments_distance(first: Moments, second: Moments) -> float:
    """The Fréchet distance of two sets of feature vectors."""
    return frechet_distance(*first.compute(), *second.compute())


def frechet_infinity(generated: ArrayLike, target: ArrayLike | Moments, seed: int = 0) -> float:
    """The Fréchet distance that infinitely many images would have (Chong and Forsyth 2020, FD-infinity).

    The distance of N images is biased by about c/N. A line through the distances of 15 random subsets against 1/N is
    read off at 0. Where `target` holds features too, row k of both belongs to one pair: subsets take the same rows of
    both, which removes the bias of both. Fixed `Moments` are a reference that is taken as exact.

    Args: features [N, D]; `seed` draws the subsets.
    """
    rows_generated = _float64(generated)
    rows_target = np.empty(0) if isinstance(target, Moments) else _float64(target)
    count, dim = rows_generated.shape
    if not isinstance(target, Moments) and len(rows_target) != count:
        raise ValueError(f"{count} generated and {len(rows_target)} target features are no pairs")
    smallest = max(count // _SMALLEST_SHARE, min(dim, count // 2), 2)
    sizes = np.unique(np.linspace(smallest, count, _LARGEST_SUBSETS).round().astype(int))
    if len(sizes) < 2:
        raise UserError(f"{count} images are too few to extrapolate from")
    rng = np.random.default_rng(seed)
    distances = []
    for size in sizes:
        rows = rng.permutation(count)[:size]
        reference = target if isinstance(target, Moments) else moments_of(rows_target[rows])
        distances.append(moments_distance(moments_of(rows_generated[rows]), reference))
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)


def moments_of(features: ArrayLike | Moments) -> Moments:
    """Return the moments of feature vectors [N, D]; moments stay what they are."""
    if isinstance(features, Moments):
        return features
    moments = Moments()
    moments.update(features)
    return moments


def _root_trace(sigma1: np.ndarray, sigma2: np.ndarray) -> float:
    """tr((sigma1 sigma2)^(1/2)), by LAPACK's pstrf and sygst, the latter for half the work of two products."""
    from scipy.linalg.lapack import dpstrf, dsygst

    factored = [(dpstrf(sigma, lower=1), other) for sigma, other in ((sigma1, sigma2), (sigma2, sigma1))]
    (factor, pivots, rank, _), other = min(factored, key=lambda result: result[0][2])  # the one of lower rank
    factor[:, rank:] = 0  # above its diagonal it holds nothing that is read
    order = pivots - 1
    product, _ = dsygst(other[np.ix_(order, order)], factor, itype=2, lower=1)
    return float(np.sqrt(np.linalg.eigvalsh(product[:rank, :rank], UPLO="L").clip(0)).sum())


def _float64(array: ArrayLike) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    return np.asarray(array, dtype=np.float64)
