"""Utilities of level 1: cameras, randomness, distribution and file formats, on top of torch."""
