"""Do the tests bite? Change one thing in a module at a time, and see whether the tests that mirror it notice.

python -m tests.mutation torch_utils/warping.py training/loss.py --limit=40 --seed=0

A change that no test notices is printed as a survivor: write a test for it, or find that it changes nothing. Everything
happens in a copy of the repository.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dnnlib.cli import Command, option
from dnnlib.util import UserError
from tests.mirror import ROOT, find_tests

_IGNORED = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "out", "runs")
_PRELOADED = ("pytest", "hypothesis", "numpy", "PIL", "torch", "scipy", "scipy.linalg", "kornia", "skimage.feature")

# Tests of a module beside those of its own name.
TESTS = {
    "metrics/definitions.py": ("tests/metrics/test_runner.py", "tests/metrics/test_geometry.py"),
    "metrics/views.py": ("tests/metrics/test_runner.py",),
    "torch_utils/matching.py": ("tests/metrics/test_geometry.py",),
    "training/encodings.py": ("tests/training/test_precond.py", "tests/training/test_conditioning.py"),
    "training/guidance.py": ("tests/training/test_sampling.py", "tests/training/test_precond.py"),
    "training/sampling.py": ("tests/training/test_solvers.py",),
    "training/solvers.py": ("tests/training/test_sampling.py",),
    "training/layers.py": ("tests/training/test_precond.py",),
    "training/precond.py": ("tests/training/test_conditioning.py", "tests/training/test_sampling.py"),
    "training/unet.py": ("tests/training/test_precond.py", "tests/training/test_layers.py"),
}

_OPPOSITE: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        line: where. before, after: the changed expression. source: the whole module.
    """

    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"line {self.line}: {before}  ->  {after}"


def mutants(source: str) -> list[Mutant]:
    """All changes of one number, truth value, operator, comparison or condition in the code of a module."""
    found = []
    for node in _computing(ast.parse(source)):
        before = ast.get_source_segment(source, node)
        for changed in _changes(node):
            after = f"({ast.unparse(changed)})"
            text = _replaced(source, node, after)
            with contextlib.suppress(SyntaxError):  # what stands within an f-string cannot be written so
                ast.parse(text)
                found.append(Mutant(node.lineno, before, after, text))
    return found


def _computing(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that compute something: no annotations, messages, decorators, or code that is not run here."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and any(word in ast.unparse(node.test) for word in ("TYPE_CHECKING", "__name__")):
        return
    if isinstance(node, ast.expr):
        yield node
    if isinstance(node, ast.If | ast.While):
        yield node.test
    skipped = ("annotation", "returns", "decorator_list")
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _computing(child)


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(2 * node.value if node.value else 1.0)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        for operator in _OPPOSITE.get(type(node.op), ()):
            changed = copy.copy(node)
            changed.op = operator()
            yield changed
    elif isinstance(node, ast.Compare):
        for place, old in enumerate(node.ops):
            for operator in _OPPOSITE[type(old)]:
                changed = copy.copy(node)
                changed.ops = [*node.ops[:place], operator(), *node.ops[place + 1 :]]
                yield changed
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)


def _replaced(source: str, node: ast.expr, after: str) -> str:
    """The module with another text in place of an expression; columns are counted in bytes."""
    lines = source.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    whole = source.encode()
    return (whole[:start] + after.encode() + whole[end:]).decode()


def files_for(module: str) -> list[str]:
    """The test files that a change of this module should not get past."""
    own = find_tests(module)
    if own is None:
        raise UserError(f"{module} has no tests of its own: name some with --also")
    return list(dict.fromkeys([own, *TESTS.get(module, ())]))


def passes(folder: Path, files: Sequence[str], seconds: float) -> bool:
    """Whether the tests pass in time, in a process that finds the heavy packages already imported."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "dnnlib")]:
            del sys.modules[name]
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        import pytest

        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *files]))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def survivors(folder: Path, module: str, files: Sequence[str], chosen: Sequence[Mutant]) -> Iterator[Mutant]:
    """The mutants that the tests do not notice. Raises UserError where they fail without any change."""
    path = folder / module
    source = path.read_text(encoding="utf-8")
    started = time.monotonic()
    if not passes(folder, files, 600):
        raise UserError(f"{module}: {', '.join(files)} fail as it is")
    limit = 10 + 4 * (time.monotonic() - started)
    try:
        for mutant in chosen:
            path.write_text(mutant.source, encoding="utf-8")
            if passes(folder, files, limit):
                yield mutant
    finally:
        path.write_text(source, encoding="utf-8")


@click.command(cls=Command)
@click.argument("modules", nargs=-1, required=True)
@option("--limit", type=click.IntRange(min=1), default=40, help="Most changes of a module.")
@option("--seed", type=int, default=0, help="Draws them.")
@option("--also", multiple=True, metavar="FILE", help="Another test file to run.")
@option("--lines", metavar="A-B", help="Only changes in these lines.")
def main(modules: tuple[str, ...], limit: int, seed: int, also: tuple[str, ...], lines: str | None) -> None:
    """Change one thing at a time in MODULES, and print the changes that no test notices."""
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # the files change faster than the time stamps of bytecode tell
    sys.dont_write_bytecode = True
    for name in _PRELOADED:
        __import__(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / "vivid"
        shutil.copytree(ROOT, folder, ignore=_IGNORED)
        for module in modules:
            everything = mutants((ROOT / module).read_text(encoding="utf-8"))
            if lines:
                first, _, last = lines.partition("-")
                everything = [mutant for mutant in everything if int(first) <= mutant.line <= int(last or first)]
            chosen = random.Random(seed).sample(everything, min(limit, len(everything)))
            chosen.sort(key=lambda mutant: mutant.line)
            alive = 0
            try:
                for mutant in survivors(folder, module, [*files_for(module), *also], chosen):
                    alive += 1
                    click.echo(f"{module} {mutant}")
            except UserError as error:
                click.echo(f"{error}")
                continue
            click.echo(f"{module}: {alive} of {len(chosen)} changes survived ({len(everything)} possible)")


if __name__ == "__main__":
    main()
