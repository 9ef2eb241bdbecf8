"""Small data sets in both layouts, written once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.synthetic import SyntheticClips, write_chunks, write_tree


@pytest.fixture(scope="session")
def clips() -> SyntheticClips:
    return SyntheticClips("test", 5, frames=12, width=48, height=32)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory, clips: SyntheticClips) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, "test", clips)
    return root


@pytest.fixture(scope="session")
def chunks(tmp_path_factory: pytest.TempPathFactory, clips: SyntheticClips) -> Path:
    root = tmp_path_factory.mktemp("chunks")
    write_chunks(root, "test", clips)
    return root


@pytest.fixture(scope="session")
def walks() -> SyntheticClips:
    """Walks of which there is enough to see."""
    return SyntheticClips("walks", 2, frames=8, width=160, height=160)
