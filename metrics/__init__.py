"""Generative, pixel, perceptual and geometric quality of novel views.

from metrics import compute_metrics
compute_metrics(generated, target, metrics=("psnr", "ssim", "lpips"))     # {"psnr": ..., "ssim": ..., "lpips": ...}
"""

from metrics.frechet import Moments, frechet_distance
from metrics.runner import METRICS, Evaluation, compute_metrics

__all__ = ["METRICS", "Evaluation", "Moments", "compute_metrics", "frechet_distance"]
