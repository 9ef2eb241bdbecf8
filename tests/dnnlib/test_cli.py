"""dnnlib.cli: presets, sections, and what a user sees when something goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dnnlib.cli import BatchSize, Command, Count, Group, OutputFile, RangeSelection, Seeds, option, preset_option
from dnnlib.util import IncompleteError, UserError
from tests.scripts import run_python

ROOT = Path(__file__).parents[2]
PRESETS = {
    "good": {"steps": 7, "depth": True, "guided": False, "net": "good.safetensors", "seeds": "1-3", "num": 5},
    "broken": {"no_such_option": 1},
}


def make(action: Callable[[dict[str, Any]], None]) -> Command:
    @click.command(cls=Command)
    @preset_option(PRESETS, section="Model")
    @option("--net", section="Model", help="The network.")
    @option("--steps", type=int, default=32, section="Sampling", help="How many steps.")
    @option("--depth/--no-depth", default=False, section="Sampling", help="Depth or none.")
    @option("--guided/--no-guided", default=True, section="Sampling", help="Guided or not.")
    @option("--seeds", type=Seeds(), default="0", section="Sampling", help="Which ones.")
    @option("--range-selection", type=RangeSelection(), help="Which gaps.")
    @option("--num", type=Count(), default="4Ki", help="How many images.")
    def main(**options: Any) -> None:
        """Do something."""
        action(options)

    return main


def run(*args: str, action: Callable[[dict[str, Any]], None] = lambda options: None) -> Result:
    return CliRunner().invoke(make(action), args)


def options_of(*args: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    result = run(*args, action=seen.update)
    assert result.exit_code == 0, result.output
    return seen


def failure(*args: str, action: Callable[[dict[str, Any]], None] = lambda options: None) -> str:
    """The one line of a run that must end with exit code 2 and no output."""
    result = run(*args, action=action)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr


def test_defaults_without_a_preset() -> None:
    assert options_of() == {
        "preset": None, "net": None, "steps": 32, "depth": False, "guided": True, "seeds": [0],
        "range_selection": None, "num": 4096,
    }  # fmt: skip


def test_preset_beats_defaults() -> None:
    assert options_of("--preset", "good") == {
        "preset": "good", "net": "good.safetensors", "steps": 7, "depth": True, "guided": False, "seeds": [1, 2, 3],
        "range_selection": None, "num": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["--steps", "32"], "steps", 32),  # the default's own value, but given
        (["--no-depth"], "depth", False),
        (["--guided"], "guided", True),
        (["--net", "mine"], "net", "mine"),
        (["--seeds", "4"], "seeds", [4]),
    ],
)
def test_given_options_beat_the_preset_before_and_behind_it(args: list[str], name: str, value: Any) -> None:
    expected = {**options_of("--preset", "good"), name: value}
    assert options_of("--preset", "good", *args) == expected
    assert options_of(*args, "--preset", "good") == expected


def test_preset_leaves_its_dictionary_and_the_next_run_alone() -> None:
    before = {name: dict(values) for name, values in PRESETS.items()}
    options_of("--preset", "good")
    assert before == PRESETS
    assert options_of()["steps"] == 32


def test_unknown_preset_lists_the_known() -> None:
    assert "no preset 'best'; known are good, broken" in failure("--preset", "best")


def test_preset_that_names_no_option_is_our_fault() -> None:
    result = run("--preset", "broken")
    assert type(result.exception) is ValueError
    assert "no_such_option" in str(result.exception)


def test_help_has_sections_in_order_and_the_values_of_the_preset() -> None:
    plain, preset = run("--help").output, run("--preset", "good", "--help").output
    assert plain.index("Model:") < plain.index("--net") < plain.index("Sampling:") < plain.index("--steps")
    assert plain.index("--seeds") < plain.index("Options:") < plain.index("--num") < plain.index("--help")
    assert "[default: 32]" in plain
    assert "no-depth]" in plain
    assert "[default: 7]" in preset
    assert "[default: depth]" in preset


def test_help_is_aligned_across_sections() -> None:
    lines = run("--help").output.splitlines()
    columns = [line.index(text) for line in lines for text in ("The network", "How many", "Which") if text in line]
    assert len(columns) == 5
    assert len(set(columns)) == 1


def test_range_selection_stays_text() -> None:
    assert options_of("--range-selection", " mid ")["range_selection"] == "mid"
    assert options_of("--range-selection", "3-8")["range_selection"] == "3-8"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "5-1"], "write 1-5"),
        (["--num", "4K"], "'4K' is no count"),
        (["--range-selection", "8-3"], "'8-3' is empty"),
        (["--steps", "many"], "'many' is not a valid integer"),
        (["--stepps", "3"], "No such option"),
        (["--steps"], "requires an argument"),
        (["stray"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(args: list[str], message: str) -> None:
    assert message in failure(*args)


def test_wrong_usage_points_to_the_help() -> None:
    assert failure("--stepps", "3").endswith("(see main --help)\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("no such thing;\n  do another"), "Error: no such thing; do another\n"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "Error: No such file or directory: x.png\n"),
        (OSError(28, "No space left on device"), "Error: [Errno 28] No space left on device\n"),
        (click.ClickException("odd"), "Error: odd\n"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(error: Exception, message: str) -> None:
    def fail(options: dict[str, Any]) -> None:
        raise error

    assert failure(action=fail) == message


@pytest.mark.parametrize("kind", [ValueError, EOFError, RuntimeError])
def test_faults_of_ours_keep_their_traceback(kind: type[Exception]) -> None:
    def fail(options: dict[str, Any]) -> None:
        raise kind("bug")

    result = run(action=fail)
    assert type(result.exception) is kind
    assert result.exit_code == 1


def test_work_that_is_not_complete_is_one_line_and_code_1() -> None:
    def fail(options: dict[str, Any]) -> None:
        raise IncompleteError("1 of 2 failed: seed 3: torn")

    result = run(action=fail)
    assert (result.exit_code, result.stderr) == (1, "Error: 1 of 2 failed: seed 3: torn\n")


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("7", 7), ("0", None), ("many", None), ("Auto", None)])
def test_batch_size(text: str, value: int | str | None) -> None:
    seen: dict[str, Any] = {}

    @click.command(cls=Command)
    @option("--batch", type=BatchSize(), default=4)
    def main(**options: Any) -> None:
        seen.update(options)

    result = CliRunner().invoke(main, ["--batch", text])
    assert (result.exit_code, seen.get("batch")) == (0 if value else 2, value)
    assert result.stderr.count("\n") == (0 if value else 1)


def test_output_file(tmp_path: Path) -> None:
    """Its folder is there before the work begins; a device will do."""

    @click.command(cls=Command)
    @option("--json", type=OutputFile())
    def main(json: Path) -> None:
        click.echo(repr(json))

    (tmp_path / "old.json").touch()
    for path in (tmp_path / "new.json", tmp_path / "old.json", Path("relative.json"), Path("/dev/null")):
        assert CliRunner().invoke(main, [f"--json={path}"]).stdout == f"{path!r}\n"
    for path, message in ((tmp_path / "no" / "new.json", "there is no folder"), (tmp_path, "is a directory")):
        result = CliRunner().invoke(main, [f"--json={path}"])
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "no").exists()


def test_interrupt() -> None:
    def interrupt(options: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    result = run(action=interrupt)
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted."


def test_callers_from_python_get_the_exception() -> None:
    with pytest.raises(UserError):
        make(lambda options: None).main(["--preset", "best"], standalone_mode=False)


def test_group_lists_commands_and_reports_their_errors() -> None:
    @click.group(cls=Group)
    def group() -> None:
        """All of it."""

    @group.command()
    @option("--num", type=Count(), default="1Ki", section="Numbers", help="How many.")
    def calc(num: int) -> None:
        """Calculate."""
        raise UserError(f"not {num}")

    runner = CliRunner()
    assert isinstance(calc, Command)
    assert "calc  Calculate." in runner.invoke(group, ["--help"]).stdout
    assert "Numbers:" in runner.invoke(group, ["calc", "--help"]).stdout
    result = runner.invoke(group, ["calc"])
    assert (result.exit_code, result.stderr) == (2, "Error: not 1024\n")
    bare = runner.invoke(group, [])
    assert bare.exit_code == 2
    assert "calc" in bare.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import os, sys, click; from dnnlib.cli import Command\n"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
        "@click.command(cls=Command)\ndef main(): click.echo('x')\nmain([])"
    )
    result = run_python("-c", code)
    assert (result.returncode, result.stderr) == (1, "")


def test_import_is_light() -> None:
    heavy = {"torch", "numpy", "PIL", "requests", "tqdm", "scipy"}
    result = run_python("-c", "import sys, dnnlib.cli; print(*{name.split('.')[0] for name in sys.modules})")
    assert not heavy & set(result.stdout.split())


_COMMAND = "import click; from dnnlib.cli import Command; from dnnlib.util import UserError\n"


@pytest.mark.parametrize("closed", [(2,), (1,), (0, 1, 2)])
def test_closed_streams_are_no_fault(closed: tuple[int, ...]) -> None:
    code = _COMMAND + "@click.command(cls=Command)\ndef main(): raise UserError('wrong')\nmain()"
    redirections = " ".join(f"{number}>&-" if number else "0<&-" for number in closed)
    result = subprocess.run(
        f'exec {sys.executable} -c "$CODE" {redirections}', shell=True, cwd=ROOT, env={**os.environ, "CODE": code}
    )
    assert result.returncode == 2


def test_escape_sequences_of_names_reach_no_terminal() -> None:
    code = (
        "import logging\n" + _COMMAND + "@click.command(cls=Command)\ndef main():\n"
        "    logging.warning('%s is bad', 'a\\x1b]0;pwned\\x07.png')\n    raise UserError('no \\x9b31m.png')\nmain()"
    )
    result = run_python("-c", code)
    assert result.returncode == 2
    assert "a\\x1b]0;pwned\\x07.png" in result.stderr
    assert "\\x9b31m" in result.stderr
    assert all(c.isprintable() or c == "\n" for c in result.stderr)


def test_under_torchrun_the_first_process_speaks_first() -> None:
    code = (
        "import time, dnnlib.cli as cli; cli._OTHERS_WAIT_S = 0.2; start = time.monotonic()\n"
        "try: cli._fail('wrong')\nexcept SystemExit: print(time.monotonic() - start)"
    )
    waits = [float(run_python("-c", code, RANK=str(rank)).stdout) for rank in (0, 1)]
    assert waits[0] < 0.2 <= waits[1]
