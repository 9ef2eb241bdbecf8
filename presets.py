"""Presets shared by the command lines: plain dictionaries; importing them imports nothing heavy.

Keys of SAMPLING and TRAINING entries are names of command line options (with "_" for "-"). An option given explicitly
beats the preset, the preset beats the option's default.
"""

from __future__ import annotations

import os
from typing import Any

_ASSETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets")
_RELEASED = "https://ml-site.cdn-apple.com/models/vivid"
_RELEASED_LICENCE = "weights released by Apple under their own research-only licence, not this project's Apache-2.0"

# name -> where the weights are, an address or a file; and their licence, which is said when they are fetched.
MODELS = {
    "vivid-base":   dict(location=f"{_RELEASED}/vivid-base.pkl",   licence=_RELEASED_LICENCE),
    "vivid-uncond": dict(location=f"{_RELEASED}/vivid-uncond.pkl", licence=_RELEASED_LICENCE),
    "vivid-sr":     dict(location=f"{_RELEASED}/vivid-sr.pkl",     licence=_RELEASED_LICENCE),
    "vivid-tiny-base":   dict(location=f"{_ASSETS}/vivid-tiny/base.safetensors",   licence="GPL-2.0-or-later"),
    "vivid-tiny-uncond": dict(location=f"{_ASSETS}/vivid-tiny/uncond.safetensors", licence="GPL-2.0-or-later"),
    "vivid-tiny-sr":     dict(location=f"{_ASSETS}/vivid-tiny/sr.safetensors",     licence="GPL-2.0-or-later"),
}  # fmt: skip

# generate_images.py and calculate_metrics.py gen. Whether released weights want the published code's doubly resized
# intrinsics is not known: set published_intrinsics to True, or pass --published-intrinsics, to try.
_VIVID = dict(
    net="vivid-base",
    gnet="vivid-uncond",
    sr_model="vivid-sr",
    guidance=1.5,
    range_selection="mid",
    published_intrinsics=False,
)
SAMPLING: dict[str, dict[str, Any]] = {
    "vivid":      dict(**_VIVID),
    "vivid-fast": dict(**_VIVID, solver="dpmpp_2m", steps=16),  # a quarter of the evaluations, see benchmarks/README.md
    "vivid-tiny": dict(net="vivid-tiny-base", sr_model="vivid-tiny-sr", solver="euler", steps=3, sigma_min=3.0, sigma_max=40.0, sr_steps=3, sr_sigma_min=3.0, data=f"{_ASSETS}/vivid-tiny/views", range_selection="12-33"),
}  # fmt: skip

# train_nvs.py. The first three are the published ones (arXiv:2411.07765).
_64 = dict(resolution=64, batch=1024, channels=128, lr=0.012, decay=35000, P_mean=-0.8, P_std=1.6, extra_attn=1)
_SR = dict(resolution=256, batch=128, channels=64, lr=0.020, decay=35000, P_mean=-0.8, P_std=1.6)
# Small networks for machines without a GPU: an hour of two cores shows something, a day shows more.
_TINY = dict(
    blocks=1,
    channels_per_head=32,
    lr=0.010,
    decay=1500,
    ramp_up=4000,
    P_std=1.6,
    range_selection="1-64",
    workers=1,
    status=2**11,
    snapshot=2**13,
    checkpoint=2**11,
)
_TINY_32 = dict(resolution=32, batch=16, channels=32, channel_mult=[1, 2, 2], **_TINY)
_TINY_128 = dict(resolution=128, batch=4, channels=16, channel_mult=[1, 1, 2, 2], attn_resolutions=[16], **_TINY)
TRAINING: dict[str, dict[str, Any]] = {
    "vivid-base":   dict(duration=2**30, **_64),
    "vivid-uncond": dict(duration=2**29, uncond=True, **_64),
    "vivid-sr":     dict(duration=2**28, sr_training=True, noisy_sr=0.25, **_SR),
    "vivid-tiny-base":   dict(duration=2**16, P_mean=-1.6, sigma_data=0.1, no_time_enc=True, plane_sweep=8, **_TINY_32),
    "vivid-tiny-uncond": dict(duration=2**15, P_mean=-0.6, uncond=True, **_TINY_32),
    "vivid-tiny-sr":     dict(duration=2**16, P_mean=-2.3, sigma_data=0.05, sr_training=True, noisy_sr=0.02, no_time_enc=True, plane_sweep=15, plane_matching=True, **_TINY_128),
}  # fmt: skip
