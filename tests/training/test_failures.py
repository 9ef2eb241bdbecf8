"""What is said of images that could not be made."""

from __future__ import annotations

import errno
import logging

import pytest

from dnnlib.util import IncompleteError, UserError
from training.failures import Failures


def test_nothing_failed() -> None:
    Failures().check(3)


def test_seeds_and_reasons_in_order(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()
    failures.add(11, ZeroDivisionError("division by zero\nat great length"))
    failures.add(2, UserError("frame.png cannot be read"))
    with pytest.raises(IncompleteError) as caught:
        failures.check(12)
    assert str(caught.value) == (
        "2 of 12 failed: seed 2: frame.png cannot be read; seed 11: ZeroDivisionError: division by zero"
    )
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == ["seed 11 failed"]
    assert "ZeroDivisionError: division by zero\nat great length" in caplog.text  # its traceback


def test_many_failures_are_named_on_a_line_that_ends() -> None:
    failures = Failures(dict.fromkeys(range(5000), "why"))
    with pytest.raises(IncompleteError) as caught:
        failures.check(10_000)
    text = str(caught.value)
    assert text.startswith("5000 of 10000 failed: seed 0: why; ")
    assert "and 4995 more: 5, 6, 7" in text
    assert len(text) < 1000


def test_bad_input_that_leaves_nothing_is_the_users() -> None:
    with pytest.raises(UserError, match=r"none of 2 could be made: seed 1: why; seed 3: why"):
        Failures({3: "why", 1: "why"}).check(2)
    with pytest.raises(UserError, match=r"^cannot be read$"):
        Failures({"photo": "cannot be read"}).check(1)
    with pytest.raises(IncompleteError):
        Failures({3: "why", 1: "why"}, unexpected=True).check(2)


def test_a_full_disk_ends_the_run() -> None:
    with pytest.raises(OSError, match="No space left"):
        Failures().add(3, OSError(errno.ENOSPC, "No space left on device"))
    failures = Failures()
    failures.add(3, PermissionError(errno.EACCES, "Permission denied"))
    assert failures.reasons
    assert not failures.unexpected
