"""The tests with the oldest versions that requirements.txt allows, or with the newest that there are.

    python -m tests.versions oldest FOLDER
    python -m tests.versions newest FOLDER tests/training tests/metrics -x

FOLDER becomes a virtual environment of the Python that runs this. One that is there is used, so that what must come
from elsewhere, such as another build of torch, can be put into it before. What follows goes to pytest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt")
TOOLS = ("ruff", "mypy", "selenium")  # of the project's own checks, and of a browser's; the code imports none
_LINE = re.compile(r"([\w.-]+)\s*>=\s*([\w.]+)")


def requirements(choice: str) -> Iterator[str]:
    """``name==lowest``, or ``name>=lowest`` without what bounds it above, for each line of the files."""
    for file in FILES:
        for line in file.read_text(encoding="utf-8").splitlines():
            match = _LINE.match(line)
            if match and match[1] not in TOOLS:
                yield f"{match[1]}{'==' if choice == 'oldest' else '>='}{match[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("choice", choices=("oldest", "newest"))
    parser.add_argument("folder", type=Path)
    arguments, for_pytest = parser.parse_known_args()
    python = arguments.folder.resolve() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(arguments.folder, with_pip=True)
    wanted = list(requirements(arguments.choice))
    newest = ["--upgrade", "--upgrade-strategy=eager"] if arguments.choice == "newest" else []
    subprocess.run([python, "-m", "pip", "install", "-q", *newest, *wanted], check=True)
    found = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    names = {re.split("[=>]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    shown = [line for line in found.splitlines() if re.split("[=@ ]", line)[0].lower().replace("_", "-") in names]
    sys.stdout.write(f"Python {sys.version.split()[0]}; {', '.join(shown)}\n")
    sys.stdout.flush()
    sys.exit(subprocess.run([python, "-m", "pytest", *for_pytest], cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
