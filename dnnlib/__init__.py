"""Utilities of level 0: standard library, numpy, Pillow, requests and click only (never torch)."""

from dnnlib.util import UserError

__all__ = ["UserError"]
