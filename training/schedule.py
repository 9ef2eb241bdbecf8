"""Learning rate: inverse square root decay after a linear ramp (EDM2, equation 67; docs/method.md, section 7.2)."""

from __future__ import annotations

import math


def learning_rate(
    images: float, batch: int, ref_lr: float, ref_batches: float, ramp_up_images: float = 10_000_000
) -> float:
    """ref_lr / sqrt(max(n / (ref_batches batch), 1)) * min(n / ramp_up, 1), with n images seen so far."""
    decay = math.sqrt(max(images / (ref_batches * batch), 1)) if ref_batches > 0 else 1
    ramp = min(images / ramp_up_images, 1) if ramp_up_images > 0 else 1
    return ref_lr / decay * ramp
