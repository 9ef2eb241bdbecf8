"""What tests.mutation changes, and that it tells a survivor from a change that tests notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation import ROOT, TESTS, files_for, mutants
from tests.scripts import run_python

MODULE = '''"""A docstring with 3 numbers."""

@cache(4)
def double(x: Literal[2]) -> float:
    """ü"""
    if x < 0:
        raise ValueError(f"{x + 1}")
    return x * 2.0 if "ü" and x else -x
'''


def test_what_is_changed() -> None:
    changes = {(mutant.before, mutant.after) for mutant in mutants(MODULE)}
    assert changes == {
        ("x < 0", "(x <= 0)"),
        ("x < 0", "(x >= 0)"),
        ("0", "(1)"),
        ('x * 2.0 if "ü" and x else -x', "(-x if 'ü' and x else x * 2.0)"),
        ('"ü" and x', "('ü' or x)"),
        ("x * 2.0", "(x / 2.0)"),
        ("2.0", "(4.0)"),
        ("-x", "(x)"),
    }
    for mutant in mutants(MODULE):
        compile(mutant.source, "module", "exec")
        assert mutant.after in mutant.source.splitlines()[mutant.line - 1]


CODE = """
import sys
from pathlib import Path
from tests.mutation import mutants, survivors

sys.dont_write_bytecode = True
folder = Path(sys.argv[1])
changes = mutants((folder / "double.py").read_text())
print(*(mutant.after for mutant in survivors(folder, "double.py", ["test_double.py"], changes)), sep="; ")
"""


@pytest.mark.parametrize(
    ("tested", "alive"),
    [("double(0) == 1", "(3)"), ("double", "(2 * x - 1); (2 / x); (3); (2)")],
)
def test_survivors(tested: str, alive: str, tmp_path: Path) -> None:
    """In a process of its own, since it forks."""
    (tmp_path / "double.py").write_text("def double(x):\n    return 2 * x + 1\n")
    (tmp_path / "test_double.py").write_text(f"from double import double\n\ndef test():\n    assert {tested}\n")
    result = run_python("-c", CODE, tmp_path)
    assert set(result.stdout.strip().split("; ")) == set(alive.split("; "))


def test_modules_named_here_exist() -> None:
    for module, files in TESTS.items():
        if (ROOT / module).is_file():
            assert set(files) <= set(files_for(module))
    with pytest.raises(Exception, match="no tests of its own"):
        files_for("nothing.py")
