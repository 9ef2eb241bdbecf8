"""Work over processes gives what work in one process gives, in order."""

from __future__ import annotations

import os
from functools import partial

import pytest

from datasets.workers import in_processes


def power(base: int, exponent: int) -> tuple[int, int]:
    return base**exponent, os.getpid()


@pytest.mark.parametrize(("items", "workers", "others"), [(5, 2, True), (5, 1, False), (1, 4, False), (0, 3, False)])
def test_results_keep_their_order(items: int, workers: int, others: bool) -> None:
    results = list(in_processes(partial(power, 3), range(items), workers))
    assert [value for value, _ in results] == [3**n for n in range(items)]
    assert (os.getpid() not in {process for _, process in results}) == (others or not items)


def test_an_error_of_a_task_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_processes(partial(power, 0), [1, -1], 2))
