"""Photographs with what cameras write into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, width: int = 90, height: int = 60, **exif: float | str) -> Path:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 3] = 255
    image = Image.fromarray(pixels)
    tags = image.getexif()
    if "orientation" in exif:
        tags[0x0112] = exif["orientation"]
    if "film_mm" in exif:
        tags.get_ifd(0x8769)[0xA405] = exif["film_mm"]
    for name, tag in (("mm", 0x920A), ("density", 0xA20E), ("unit", 0xA210), ("stored", 0xA002)):
        if name in exif:
            tags.get_ifd(0x8769)[tag] = exif[name]
    for name, tag in (("make", 0x010F), ("model", 0x0110)):
        if name in exif:
            tags[tag] = exif[name]
    image.save(path, exif=tags)
    return path
