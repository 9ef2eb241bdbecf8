"""Utilities of level 0: standard library, numpy, Pillow, click, requests, filelock and tqdm (never torch)."""

from dnnlib.util import UserError

__all__ = ["UserError"]
