"""Small models of COLMAP, written byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

NUMBERS = [
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
    "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION",
    "DIVISION", "SIMPLE_FISHEYE", "FISHEYE", "EUCM", "EQUIRECTANGULAR",
]  # fmt: skip


def write_text_model(folder: Path, lens: str, images: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n1 {lens}\n")
    (folder / "images.txt").write_text(images)
    return folder


def write_binary_model(
    folder: Path, lens: str, names: list[str], numbers: int | None = None, step: float = 1.0
) -> Path:
    """COLMAP's read_write_model.py tells the format; image k stands at (-k step, 0, 0) and has two points."""
    folder.mkdir(parents=True, exist_ok=True)
    name, width, height, *values = lens.split()
    kind = NUMBERS.index(name) if numbers is None else numbers
    camera = struct.pack("<QIiQQ", 1, 7, kind, int(width), int(height))
    (folder / "cameras.bin").write_bytes(camera + struct.pack(f"<{len(values)}d", *map(float, values)))
    content = struct.pack("<Q", len(names))
    for k, name in enumerate(names):
        content += struct.pack("<I7dI", k + 1, 1, 0, 0, 0, k * step, 0, 0, 7) + name.encode() + b"\0"
        content += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1, 2, -1, 3, 4, -1)
    (folder / "images.bin").write_bytes(content)
    return folder
