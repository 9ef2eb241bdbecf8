"""Every benchmark can be asked what it measures, and a page tells of it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    result = CliRunner().invoke(module.main, ["--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: ")
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md", ROOT / "README.md"]
    assert any(f"benchmarks.{name}" in page.read_text(encoding="utf-8") for page in pages)
