from __future__ import annotations

from pathlib import Path

import pytest

from tests.metrics.scenes import save_tiny_dinov2


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2 of random weights: 32 features."""
    return save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))
