"""What tests of training runs share: tiny data, one process, and a run that was never interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import (
    Run,
    tiny_config,
    write_data,
)
from torch_utils.distributed import Processes, start_processes


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def processes() -> Processes:
    return start_processes("cpu")


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    outdir = tmp_path_factory.mktemp("whole")
    assert Run(outdir, tiny_config(data)).wait() == [0]
    return outdir
