"""What all tests share: one thread, and the file of a tiny network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-device", help="What `-m gpu` runs on. Default: the GPU, if there is one; cpu proves the tests."
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors are tiny here: more threads only get in each other's way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def imagined_device() -> torch.device:
    """CUDA where PyTorch is built for it, elsewhere a device that exists in name alone.

    It is there before the first test: the first backward pass counts devices, those that come later have no gradients.
    """
    import torch
    from torch.utils import backend_registration

    if torch.version.cuda is not None:
        return torch.device("cuda:0")
    backend_registration._setup_privateuseone_for_python_backend("imagined")
    return torch.device("imagined:0")


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a tiny network of 16 pixels a side, for `--net`."""
    from tests.golden import tiny_network
    from training.model_io import save_network

    file = tmp_path_factory.mktemp("network") / "net.safetensors"
    save_network(file, tiny_network())
    return str(file)


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2 of random weights: 32 features."""
    from tests.metrics.scenes import save_tiny_dinov2

    return save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))
