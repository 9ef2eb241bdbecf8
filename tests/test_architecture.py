"""The dependency law: lower levels never import higher ones, nothing imports a script, heavy imports wait."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib.util import present
from tests.mirror import ELSEWHERE, find_tests, mirror_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dnnlib", "torch_utils", "datasets", "training", "metrics")
SCRIPTS = ("generate_images", "train_nvs", "calculate_metrics", "view_images")
LEVEL_3_TRAINING = {
    "generation", "results", "training_loop", "config", "checkpoint", "reporting", "estimate", "trajectory",
    "batching", "failures", "viewer", "page_requests", "path_config", "run_pairs", "run_folder", "milestones",
    "diffusers_model", "diffusers_pipeline", "model_card",
}  # fmt: skip
ALLOWED = {
    "dnnlib": {"dnnlib"},
    "torch_utils": {"dnnlib", "torch_utils"},
    "datasets": {"dnnlib", "torch_utils", "datasets"},
    "training": {"dnnlib", "torch_utils", "training", "presets"},
    "training (level 3)": {"dnnlib", "torch_utils", "training", "datasets", "presets"},
    "metrics": {"dnnlib", "torch_utils", "datasets", "training", "metrics", "presets"},
}
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, but not for type checking."""
    tree = ast.parse(path.read_text())
    found = set()
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dependency_law(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    level = "training (level 3)" if package == "training" and path.stem in LEVEL_3_TRAINING else package
    ours = {name.split(".")[0] for name in imports_of(path)} & {*PACKAGES, *SCRIPTS, "presets"}
    assert ours <= ALLOWED[level], f"{path.name} imports {sorted(ours - ALLOWED[level])}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_level_0_is_free_of_torch_and_level_2_of_level_3(path: Path) -> None:
    package, found = path.relative_to(ROOT).parts[0], imports_of(path)
    if package == "dnnlib":
        assert "torch" not in {name.split(".")[0] for name in found}
    if package == "training" and path.stem not in LEVEL_3_TRAINING:
        assert not {name for name in found if name.startswith("training.") and name[9:] in LEVEL_3_TRAINING}


@pytest.mark.parametrize(
    "module", ["presets", "dnnlib.cli", "dnnlib.util", *(s for s in SCRIPTS if (ROOT / f"{s}.py").exists())]
)
def test_command_lines_import_nothing_heavy(module: str) -> None:
    heavy = ("torch", "numpy", "scipy", "PIL", "requests", "transformers", "accelerate")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_one_function_opens_pictures() -> None:
    """Pillow also opens formats that are programs: whoever opens a picture asks `dnnlib.imaging.open_image`."""
    opener = re.compile(r"\bImage\.open\(|ImageFile\.Parser|from PIL\.Image import[^\n]*\bopen\b")
    scripts = [path for folder in (ROOT, ROOT / "benchmarks", ROOT / "docs") for path in folder.glob("*.py")]
    found = [path.name for path in (*MODULES, *scripts) for _ in opener.findall(path.read_text())]
    assert found == ["imaging.py"]


def test_one_module_locks_files() -> None:
    assert [path.name for path in MODULES if "filelock" in imports_of(path)] == ["locks.py"]


def test_no_cuda_calls() -> None:
    for path in MODULES:
        assert ".cuda()" not in path.read_text(), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_click_is_for_command_lines(path: Path) -> None:
    """The scripts, what they share, and modules that are run with ``python -m``."""
    if "click" in imports_of(path):
        assert path == ROOT / "dnnlib" / "cli.py" or 'if __name__ == "__main__":' in path.read_text()


PYTHON_FILES = [path for path in sorted(ROOT.rglob("*.py")) if not set(path.parts) & {"venv", "node_modules"}]
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 60


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    """No file is longer than 400 lines and no function longer than 60, so that each idea can be read on a screen.

    Lines of a function are counted from ``def`` to its end, docstring included. Where a limit comes near, there is a
    second idea in the file or function: give it a place of its own.
    """
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES_OF_A_FILE
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {node.name: present(node.end_lineno) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}


FLAG = re.compile(r"(?<![\w-])--[a-z]")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_of_the_library_name_parameters_not_flags(path: Path) -> None:
    """Python callers give parameters: `dnnlib.cli.Command` puts options in their place. Settings tell their options."""
    if "click" in imports_of(path):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    settings = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and ast.unparse(call.func) == "setting"]
    exempt = {part for call in settings for part in ast.walk(call)}
    exempt |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [node.value for node in texts if node not in exempt and FLAG.search(node.value)]


def test_tests_mirror_the_tree() -> None:
    """Every module has a test file of its own name, or tests.mirror says where its tests are, and why."""
    modules = [*MODULES, *(ROOT / "benchmarks").glob("*.py"), *ROOT.glob("*.py")]
    names = {str(path.relative_to(ROOT)) for path in modules if path.name != "__init__.py"}
    assert sorted(name for name in names if find_tests(name) is None) == []
    assert sorted(name for name in ELSEWHERE if name not in names or (ROOT / mirror_of(name)).is_file()) == []
    assert [file for file, _ in ELSEWHERE.values() if not (ROOT / file).is_file()] == []
