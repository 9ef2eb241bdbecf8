"""What the outside relies on: options of all command lines, public names of all modules, and how the doors are called.

`tests/test_frozen.py` compares them with `tests/data/frozen.json`. Where a change is meant,

    python -m tests.freeze

writes that file anew; its diff belongs into the commit.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / "tests" / "data" / "frozen.json"
PACKAGES = ("dnnlib", "torch_utils", "datasets", "training", "metrics")
MODULES = [*sorted(ROOT.glob("*.py")), *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))]
DOORS = {  # what the README and docs/ show people
    "datasets.realestate10k": ("RealEstate10K",),
    "metrics": ("compute_metrics", "frechet_distance"),
    "torch_utils.cameras": ("Camera", "View"),
    "torch_utils.geometry_vector": ("geometry_vector",),
    "training.generation": ("generate_images",),
    "training.guidance": ("guided_denoiser",),
    "training.model_io": ("load_network", "save_network"),
    "training.precond": ("NVPrecond", "NVPrecond.forward", "NVPrecond.encode_source"),
    "training.sampling": ("edm_sampler",),
}


def surface() -> dict[str, dict[str, Any]]:
    """`commands`: options of each; `names`: of each module; `doors`: their parameters."""
    commands = {name: options(command) for path in MODULES for name, command in commands_of(path)}
    names = {module_name(path): public_names(path) for path in MODULES}
    doors = {f"{module}.{name}": parameters(module, name) for module, found in DOORS.items() for name in found}
    return {"commands": commands, "names": {module: found for module, found in names.items() if found}, "doors": doors}


def parameters(module: str, name: str) -> list[str]:
    """``num_steps=32``: names and defaults."""
    door = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(door).parameters.values()
    ]
    return [re.sub(r" at 0x\w+", "", f"{parameter}") for parameter in bare]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def commands_of(path: Path) -> Iterator[tuple[str, click.Command]]:
    """The command line of a file and its subcommands, by the words that call them."""
    if "import click" not in path.read_text(encoding="utf-8") or 'if __name__ == "__main__"' not in path.read_text():
        return
    command = importlib.import_module(module_name(path)).main
    words = f"{path.name}" if path.parent == ROOT else f"-m {module_name(path)}"
    if isinstance(command, click.Group):
        yield from ((f"{words} {name}", command.commands[name]) for name in sorted(command.commands))
    else:
        yield words, command


def options(command: click.Command) -> dict[str, str]:
    """Names of an option to its type and default in words."""
    return {
        "/".join([*parameter.opts, *parameter.secondary_opts]): describe(parameter)
        for parameter in command.params
        if parameter.name not in ("help", "preset_help")
    }


def describe(parameter: click.Parameter) -> str:
    """``IntRange min=1, default 32``"""
    info = parameter.type.to_info_dict()
    details = [
        f"{key}={value}"
        for key, value in info.items()
        if key in ("min", "max", "min_open", "max_open", "choices") and value is not None and value is not False
    ]
    words = [" ".join([info["param_type"], *details])]
    if parameter.nargs != 1:
        words.append(f"{parameter.nargs} values")
    words += [word for word in ("required", "multiple") if getattr(parameter, word, False)]
    default = parameter.to_info_dict()["default"]
    if default is not None and "UNSET" not in repr(default).upper():
        words.append(f"default {default}")
    return ", ".join(words)


def public_names(path: Path) -> list[str]:
    """What a module defines, and what a package hands on, but for what starts with an underscore."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.ImportFrom) and path.name == "__init__.py" and node.module != "__future__":
            found.update(alias.asname or alias.name for alias in node.names)
    return sorted(name for name in found if not name.startswith("_"))


def main() -> None:
    """Write the file that the test compares with."""
    FROZEN.write_text(json.dumps(surface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FROZEN.relative_to(ROOT)}: look at its diff\n")


if __name__ == "__main__":
    main()
