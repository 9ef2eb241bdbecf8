"""Time of the Fréchet distance: ours against the matrix square root that it is usually computed by.

    python -m benchmarks.frechet --dims 2048,4096

Both get the same two covariances, of random features with a decaying spectrum, in the same process, turn by turn; the
best time of each counts. At 4096 dimensions a turn takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np
import scipy.linalg

from metrics.frechet import frechet_distance


def covariance(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Covariance [D, D] of 2 D feature vectors whose variances fall over four orders of magnitude."""
    return np.cov(rng.standard_normal((2 * dim, dim)) * np.geomspace(1, 1e-2, dim), rowvar=False)


def distance_by_sqrtm(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """The textbook formula, with `scipy.linalg.sqrtm`."""
    root = scipy.linalg.sqrtm(sigma1 @ sigma2)
    return float(np.square(mu1 - mu2).sum() + np.trace(sigma1 + sigma2 - 2 * root.real))


def timed(function: Callable[..., float], *args: np.ndarray) -> tuple[float, float]:
    """(result, seconds)."""
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


@click.command()
@click.option("--dims", default="2048,4096", show_default=True, help="Numbers of features, comma-separated.")
@click.option("--repeats", default=2, show_default=True, help="Turns.")
def main(dims: str, repeats: int) -> None:
    """Ours against scipy.linalg.sqrtm."""
    print(f"{'dims':>6} {'ours s':>8} {'sqrtm s':>8} {'ratio':>7} {'relative difference':>20}")
    rng = np.random.default_rng(0)
    for dim in map(int, dims.split(",")):
        args = np.zeros(dim), covariance(rng, dim), np.zeros(dim), covariance(rng, dim)
        turns = [(timed(frechet_distance, *args), timed(distance_by_sqrtm, *args)) for _ in range(repeats)]
        (ours, ours_s), (theirs, theirs_s) = (min(results, key=lambda r: r[1]) for results in zip(*turns, strict=True))
        print(f"{dim:>6} {ours_s:>8.2f} {theirs_s:>8.2f} {theirs_s / ours_s:>6.1f}x {abs(ours / theirs - 1):>20.1e}")


if __name__ == "__main__":
    main()
