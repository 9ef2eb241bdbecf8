"""Nothing that the outside relies on changes unnoticed: options of command lines, public names of modules."""

from __future__ import annotations

import json

import pytest

from tests.freeze import FROZEN, surface

RENEW = "where this is meant: python -m tests.freeze, and commit tests/data/frozen.json"


@pytest.fixture(scope="module")
def now() -> dict:
    pytest.importorskip("diffusers")  # one of the commands is for its users
    return json.loads(json.dumps(surface()))


@pytest.mark.parametrize("part", ["commands", "doors", "names"])
def test_the_surface_is_the_frozen_one(part: str, now: dict) -> None:
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))[part]
    differ = sorted(name for name in {*frozen, *now[part]} if frozen.get(name) != now[part].get(name))
    lines = [f"{name}: {_difference(frozen.get(name, {}), now[part].get(name, {}))}" for name in differ]
    assert not lines, "\n".join([*lines, RENEW])


def _difference(frozen: dict | list, now: dict | list) -> str:
    before, after = (set(value.items() if isinstance(value, dict) else value) for value in (frozen, now))
    return f"no longer {sorted(before - after)}, new {sorted(after - before)}" if before != after else "another order"
