"""What the three command lines share: options in titled sections, presets, value types, one-line errors."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dnnlib.settings import Kind, check_setting
from dnnlib.util import (
    IncompleteError,
    UserError,
    format_count,
    harmless,
    one_line,
    parse_count,
    parse_int_list,
    parse_range_selection,
    parse_seeds,
)

_OTHERS_WAIT_S = 3.0  # of the processes of one run, before they tell an error
_NAMES_WIDTH = 32  # columns of the help; longer option names have a line of their own
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _ParsedType(click.ParamType):
    """A value whose text a function of `dnnlib.util` understands, and how to write it."""

    parse: Callable[[str], Any]
    write: Callable[[Any], str] = staticmethod(str)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except UserError as error:
            self.fail(str(error), param, ctx)


class Count(_ParsedType):
    """``100``, ``4Ki``, ``2Mi``, ``1Gi``: an int."""

    name = "count"
    parse = staticmethod(parse_count)
    write = staticmethod(format_count)


class Seeds(_ParsedType):
    """``1,2,5-10``: a list of ints."""

    name = "list"
    parse = staticmethod(parse_seeds)


class OutputFile(click.Path):
    """Where a file is to be written: a Path whose folder is there, which is seen before the work and not after it."""

    name = "output file"

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        folder = path.resolve().parent
        if not folder.is_dir():
            self.fail(f"there is no folder {folder} to write {path.name} into: create it first", param, ctx)
        if not path.exists() and not os.access(folder, os.W_OK):
            self.fail(f"nothing can be written into {folder}: choose another folder", param, ctx)
        return path


class BatchSize(click.ParamType):
    """A number from 1 up, or ``auto``, which `training.batching.choose_batch` understands."""

    name = "number or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


class IntList(_ParsedType):
    """``16,8``: a list of ints, in order."""

    name = "list"
    parse = staticmethod(parse_int_list)

    @staticmethod
    def write(value: Sequence[int]) -> str:
        return ",".join(map(str, value))


class Names(click.ParamType):
    """``psnr,lpips``: a list of strings, each once."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = value.split(",") if isinstance(value, str) else value
        names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
        return names or self.fail("name one or more", param, ctx)


class Assignment(click.ParamType):
    """``inception=FILE``: a pair of strings."""

    name = "assignment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, _, path = value.partition("=")
        if not name or not path:
            self.fail(f"{value!r} is no NAME=PATH, as in inception=inception-2015-12-05.pt", param, ctx)
        return name, path


class RangeSelection(_ParsedType):
    """``mid``, ``long`` or ``A-B``, checked but left as text: run files record it and the datasets parse it."""

    name = "range"

    @staticmethod
    def parse(text: str) -> str:
        parse_range_selection(text)
        return text.strip()


class Point(_ParsedType):
    """``0.3,0.5``: two numbers."""

    name = "point"

    @staticmethod
    def parse(text: str) -> tuple[float, float]:
        try:
            x, y = map(float, text.split(","))
        except ValueError:
            raise UserError(f"{text!r} is no X,Y, as in 0.3,0.5") from None
        return x, y


_KINDS: dict[Kind, _ParsedType] = {
    "count": Count(),
    "list": IntList(),
    "range": RangeSelection(),
    "point": Point(),
}


def batch_option(section: str, default: int) -> Callable[[_Function], _Function]:
    """Decorator: how many images are made at once."""
    what = "Images at once; auto is the largest number that fits into memory."
    return option("--batch", section=section, type=BatchSize(), metavar="N|auto", default=default, help=what)


class Option(click.Option):
    """An option that stands under the title `section` in the help, and shows its default there."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **{"show_default": True, **kwargs})
        self.section = section


def option(*names: str, section: str = "Options", **kwargs: Any) -> Callable[[_Function], _Function]:
    """``click.option`` with a section; all else as there."""
    return click.option(*names, cls=Option, section=section, **kwargs)


def given(ctx: click.Context, name: str | None) -> bool:
    """Whether a parameter's value comes from the command line, and not from a preset or default."""
    return name is not None and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def yielding(options: dict[str, Any], name: str, to: str) -> dict[str, Any]:
    """The options of the running command; what a preset says of one yields to another that is given beside it."""
    ctx = click.get_current_context()
    return {**options, name: None} if given(ctx, to) and not given(ctx, name) else options


def naming_options(text: str, command: click.Command) -> str:
    """The text with names of parameters, which stand in backticks, as the options that people know."""
    names = {parameter.name: parameter.opts[0] for parameter in command.params}
    return re.sub(r"`(\w+)`", lambda match: names.get(match[1], match[1]), text)


def settings_options(settings: type, only: Collection[str] | None = None) -> Callable[[_Function], _Function]:
    """Decorator: an option for every setting among the fields of a dataclass, or for some only, in their order.

    The command gets each under the field's name, so that ``Settings.of`` makes the value of what it got. Where a field
    may be None, the word ``none`` says so, which takes back what a preset has set.
    """

    def decorate(function: _Function) -> _Function:
        for field in reversed(dataclasses.fields(settings)):
            if field.metadata.get("help") and (only is None or field.name in only):
                function = _field_option(field)(function)
        return function

    return decorate


def _field_option(field: dataclasses.Field) -> Callable[[_Function], _Function]:
    metadata = field.metadata
    names = [metadata["option"] or f"--{field.name.replace('_', '-')}", field.name]  # of which click makes lower case

    def check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value == "none" and field.default is None:
            return None
        check_setting(field.name, value, metadata)
        return value

    arguments = {"default": field.default, "callback": check, **metadata["click"]}
    if metadata["choices"] is not None:
        arguments["type"] = click.Choice(metadata["choices"])
    if metadata["kind"] is not None:
        arguments["type"] = kind = _KINDS[metadata["kind"]]
        arguments["default"] = None if field.default is None else kind.write(field.default)
    return option(*names, section=metadata["section"], help=metadata["help"], **arguments)


def preset_option(
    presets: Mapping[str, Mapping[str, Any]], section: str = "Options"
) -> Callable[[_Function], _Function]:
    """``--preset NAME``: its values take the place of the defaults of the options they name, flags included.

    So an option that is given beats the preset, wherever it stands, and ``--preset NAME --help`` shows the values. The
    keys of a preset are names of options, with "_" for "-" (else ValueError); the command gets its name as ``preset``.
    """

    def fill_defaults(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
        if name is None:
            return None
        if name not in presets:
            raise UserError(f"there is no preset {name!r}; known are {', '.join(presets) or 'none yet'}")
        parameters = {_key(text): parameter.name for parameter in ctx.command.params for text in parameter.opts}
        unknown = set(presets[name]) - set(parameters)
        if unknown:
            raise ValueError(f"preset {name!r} names what is no option of {ctx.command.name}: {sorted(unknown)}")
        values = {parameters[key]: value for key, value in presets[name].items()}
        ctx.default_map = {**(ctx.default_map or {}), **values}
        return name

    return option(
        "--preset",
        section=section,
        metavar="NAME",
        is_eager=True,
        callback=fill_defaults,
        help=f"Values for many options at once: {', '.join(presets) or 'none yet'}. Options given beside it win.",
    )


def _key(text: str) -> str:
    """``--epipolar-attn-bias`` as a preset writes it."""
    return text.lstrip("-").replace("-", "_")


class Command(click.Command):
    """A command, returning None, with its options in titled sections, whose errors are one line on standard error.

    Exit codes: 0 done; 1 done but for some images, which the line names (IncompleteError), or nobody reads the output
    any more; 2 something the user can put right (UserError, wrong usage, a file or disk that will not do); 130
    interrupted. Everything else is a fault of ours and keeps its traceback.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings.setdefault("max_content_width", 120)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        widest = max(len(names) for records in sections.values() for names, _ in records)
        width = min(widest, _NAMES_WIDTH)  # the same for all sections, so that their second columns are aligned
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(names.ljust(width), text) for names, text in records], col_max=width)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with self._speaking_of_options():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with self._speaking_of_options():
            return super().invoke(ctx)

    @contextmanager
    def _speaking_of_options(self) -> Iterator[None]:
        """Errors of the library name parameters, in backticks; people at a command line know them as options."""
        try:
            yield
        except UserError as error:
            raise UserError(naming_options(str(error), self)) from error

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        run: Callable[..., Any] = partial(super().main, standalone_mode=False)
        if not standalone_mode:
            return run(*args, **kwargs)
        _open_standard_streams()
        logging.setLogRecordFactory(_HarmlessRecord)
        try:
            sys.exit(run(*args, **kwargs))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.UsageError as error:
            hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
            _fail(error.format_message().rstrip(".") + hint)
        except click.ClickException as error:
            _fail(error.format_message())
        except UserError as error:
            _fail(str(error))
        except IncompleteError as error:
            _fail(str(error), code=1)
        except OSError as error:
            _fail(f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error))
        except click.Abort as abort:  # click's word for KeyboardInterrupt, and for an EOFError from anywhere
            if isinstance(abort.__cause__, EOFError):
                raise abort.__cause__ from None
            click.echo("Interrupted.", err=True)
            sys.exit(130)


def _fail(message: str, code: int = 2) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":  # torchrun ends all others once the first has told what all have found
        time.sleep(_OTHERS_WAIT_S)
    click.echo(f"Error: {one_line(message, 2000)}", err=True)
    sys.exit(code)


class _HarmlessRecord(logging.LogRecord):
    """A record without control characters: it may name anybody's files, and no terminal should obey them."""

    def getMessage(self) -> str:
        return harmless(super().getMessage())


def _open_standard_streams() -> None:
    """Closed ones lead to nowhere: what is opened next would take their place, and get what is written to them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the first that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
