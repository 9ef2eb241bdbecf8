"""The command that is for GPUs, small and on the CPU: every row gives figures, and one that fails costs no other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.gpu import ROWS, Figure, Scale, main, run_apart, run_row, to_markdown
from tests.scripts import invoke, succeed

ROOT = Path(__file__).resolve().parents[2]
SMALL = Scale("vivid-tiny", "cpu", 0.01)


def test_rows_take_less_than_eight_minutes_in_all() -> None:
    assert sum(seconds for seconds, _ in ROWS.values()) < 8 * 60


def test_the_tree_is_small_enough_to_be_carried_to_a_gpu() -> None:
    """The files that git knows, in under 64 MiB."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 100
    assert sum(file.stat().st_size for file in files if file.exists()) < 64 * 2**20


@pytest.mark.parametrize("name", ["base-1", "cascade", "training", "pairs"])
def test_rows_give_figures(name: str) -> None:
    """In this process."""
    figures = list(run_row(name, SMALL))
    assert all(figure.rate > 0 for figure in figures)
    assert [figure.path for figure in figures] == (["tree", "pack"] if name == "pairs" else ["plain", "fast"])
    if name != "pairs":
        assert all(0 < figure.tflops < 100 and figure.memory > 1 << 20 for figure in figures)
        plain, fast = (figure.tflops / figure.rate for figure in figures)  # the same work
        assert fast == pytest.approx(plain)


def test_the_command_writes_a_table_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "cascade", (0.01, ROWS["cascade"][1]))
    arguments = ["--device=cpu", "--preset=vivid-tiny", "--seconds=0.01", "--rows=peak,cascade", f"--out={tmp_path}"]
    result = succeed(main, *arguments)
    document = json.loads((tmp_path / "results.json").read_text())
    assert {figure["row"] for figure in document["figures"]} == {"matrix product"}
    assert document["missing"] == {"cascade": "not done within 0.1 s"}
    assert (tmp_path / "results.md").read_text() in result.output
    assert "Missing: cascade, not done within 0.1 s." in result.output


def test_a_row_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, reason = run_apart("peak", Scale("vivid-tiny", "cpu:nowhere", 0.01))
    assert figures == []
    assert "cpu:nowhere" in reason


def test_shares_and_speeds() -> None:
    figures = [
        Figure("matrix product", "8 x 8", "torch.float16", 1.0, "products", 200.0),
        Figure("net", "plain", "torch.float16", 2.0, "evaluations", 50.0, 3 << 30),
        Figure("net", "compiled", "torch.float16", 5.0, "evaluations", 125.0),
    ]
    lines = to_markdown(figures, {}, "a GPU", 9.0).splitlines()
    assert lines[3] == "| net | plain | float16 | 2 evaluations | 1.00x | 50 | 25% | 3.00 GiB |"
    assert lines[4] == "| net | compiled | float16 | 5 evaluations | 2.50x | 125 | 62% |  |"
    assert lines[-1] == "a GPU; 9 s in all."


def test_unknown_rows_are_told(tmp_path: Path) -> None:
    result = invoke(main, "--rows=base", f"--out={tmp_path / 'out'}")
    assert result.exit_code == 2
    assert "there is no row 'base'" in result.output
    assert not (tmp_path / "out").exists()
