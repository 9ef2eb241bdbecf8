"""Cameras to test with: those of the golden vectors, and random ones."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datasets.camera_files.realestate10k import parse_realestate10k
from tests.golden import vectors
from torch_utils.cameras import Camera

FRAME = (640, 360)


def golden_cameras() -> list[Camera]:
    _, _, rows = parse_realestate10k("\n".join(["https://example.org", *vectors()["camera_lines"]]))
    return [Camera.from_normalized(row, *FRAME) for row in rows]


@st.composite
def random_cameras(draw: st.DrawFn) -> Camera:
    def number(low: float, high: float) -> float:
        return draw(st.floats(low, high, allow_nan=False))

    rotation = Rotation.from_euler("xyz", [number(-60, 60) for _ in range(3)], degrees=True).as_matrix()
    translation = torch.tensor([number(-3, 3) for _ in range(3)], dtype=torch.float64)
    extrinsics = torch.cat([torch.from_numpy(rotation), translation[:, None]], dim=1)
    head = [number(0.3, 2), number(0.3, 2), number(0.3, 0.7), number(0.3, 0.7), 0, 0]
    row = torch.cat([torch.tensor(head, dtype=torch.float64), extrinsics.flatten()])
    return Camera.from_normalized(row, draw(st.integers(2, 900)), draw(st.integers(2, 900)))
