"""Presets shared by the command lines: plain dictionaries; importing them imports nothing else.

Keys of SAMPLING and TRAINING entries are names of command line options (with "_" for "-"). An option given explicitly
beats the preset, the preset beats the option's default.
"""

from __future__ import annotations

_RELEASED = "https://ml-site.cdn-apple.com/models/vivid"
_RELEASED_LICENCE = "weights released by Apple under their own research-only licence, not this project's Apache-2.0"

# name -> where the weights are: an address, or a path in this repository; and the licence that is said when fetched.
MODELS = {
    "vivid-base":   dict(location=f"{_RELEASED}/vivid-base.pkl",   licence=_RELEASED_LICENCE),
    "vivid-uncond": dict(location=f"{_RELEASED}/vivid-uncond.pkl", licence=_RELEASED_LICENCE),
    "vivid-sr":     dict(location=f"{_RELEASED}/vivid-sr.pkl",     licence=_RELEASED_LICENCE),
}  # fmt: skip

# generate_images.py and calculate_metrics.py gen. Whether released weights want the published code's doubly resized
# intrinsics is not known: set published_intrinsics to True, or pass --published-intrinsics, to try.
SAMPLING = {
    "vivid": dict(net="vivid-base", gnet="vivid-uncond", sr_model="vivid-sr", guidance=1.5, published_intrinsics=False),
}  # fmt: skip

TRAINING = {
}  # fmt: skip
