"""Settings: fields that know their bounds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import pytest

from dnnlib.settings import Interval, Settings, plain, setting
from dnnlib.util import UserError


@dataclass(frozen=True)
class Some(Settings):
    steps: int = setting(4, "How many.", within="[1, 10]")
    scale: float = setting(0.5, "How large.", within="(0, inf)")
    kinds: tuple[str, ...] = setting((), "Which.", choices=("a", "b"))
    levels: tuple[float, float] | None = setting(None, "Where.", within="[0, inf]")
    free: str = "anything"


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[1, 10]", (1, 10, 5.5), (0.999, 10.001)),
        ("(0, inf)", (1e-300, 1e300), (0, -1, math.inf)),
        ("[0, inf]", (0, math.inf), (-1e-9,)),
        ("[0, 1)", (0, 0.999), (1, -0.1)),
        ("(-inf, inf)", (0, -1e300), (math.inf, -math.inf)),
    ],
)
def test_intervals(text: str, inside: tuple, outside: tuple) -> None:
    interval = Interval(text)
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in (*outside, math.nan))
    assert str(interval) == text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "`steps` must be in [1, 10], but is 0"),
        ({"scale": math.nan}, "`scale` must be in (0, inf), but is nan"),
        ({"kinds": ("a", "c")}, "`kinds` is one of a, b, not 'c'"),
        ({"levels": (1.0, -1.0)}, "`levels` must be in [0, inf], but is -1.0"),
    ],
)
def test_what_is_out_of_bounds_names_the_setting(values: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        Some(**values)
    assert str(error.value) == message


def test_of_takes_what_it_knows_and_values_go_before_options() -> None:
    assert Some.of({"steps": 3, "other": 9}) == Some(steps=3)
    assert Some.of({"steps": 3}, steps=5, scale=2.0) == Some(steps=5, scale=2.0)
    assert Some(levels=None, kinds=("b", "a")).free == "anything"
    with pytest.raises(TypeError):
        Some.of({}, other=9)


def test_plain_is_what_json_gives_back() -> None:
    value = {**asdict(Some(levels=(0.0, math.inf), kinds=("a",))), "deep": {"a": (1, -math.inf, math.nan)}}
    found = plain(value)
    assert found["levels"] == [0.0, "inf"]
    assert found["deep"] == {"a": [1, "-inf", "nan"]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
