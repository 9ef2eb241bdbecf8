"""How much memory there is and is taken, and what is done where it does not suffice."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch

from dnnlib.util import UserError
from torch_utils.memory import in_parts, is_out_of_memory, memory_limit, peak_memory, used_memory

CPU = torch.device("cpu")


def device_with_room_for(limit: int, calls: list[int]) -> Callable[[Sequence[int]], list[int]]:
    def make(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        if len(items) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return list(items)

    return make


def test_what_does_not_fit_comes_in_halves() -> None:
    calls: list[int] = []
    assert list(in_parts(device_with_room_for(2, calls), range(7))) == [[0, 1], [2, 3], [4, 5], [6]]
    assert calls == [7, 4, 2, 2, 3, 2, 1]


def test_what_fits_is_made_at_once() -> None:
    calls: list[int] = []
    assert list(in_parts(device_with_room_for(9, calls), range(7))) == [list(range(7))]


def test_one_bad_item_spoils_no_other() -> None:
    failed = {}

    def make(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ZeroDivisionError("of three")
        return list(items)

    made = list(in_parts(make, range(6), lambda item, error: failed.update({item: str(error)})))
    assert [item for part in made for item in part] == [0, 1, 2, 4, 5]
    assert failed == {3: "of three"}
    with pytest.raises(ZeroDivisionError):
        list(in_parts(make, range(6)))


def test_a_single_item_that_does_not_fit_is_told_or_raised() -> None:
    failed: list[int] = []
    make = device_with_room_for(0, [])
    assert list(in_parts(make, [5, 6], lambda item, error: failed.append(item))) == []
    assert failed == [5, 6]
    with pytest.raises(torch.OutOfMemoryError):
        list(in_parts(make, [5, 6]))


@pytest.mark.parametrize("kind", [UserError, torch.AcceleratorError])
def test_errors_that_concern_all_items(kind: type[Exception]) -> None:
    def make(items: Sequence[int]) -> None:
        raise kind("no network does this")

    with pytest.raises(kind, match="no network"):
        list(in_parts(make, [1, 2], lambda item, error: None))


def test_the_tensors_of_a_failed_attempt_are_gone_before_the_next() -> None:
    attempts: list[weakref.ref] = []

    def make(items: Sequence[int]) -> int:
        assert all(attempt() is None for attempt in attempts)
        large = torch.zeros(len(items))
        attempts.append(weakref.ref(large))
        if len(items) > 1:
            raise torch.OutOfMemoryError
        return len(items)

    assert list(in_parts(make, range(4))) == [1] * 4
    assert len(attempts) == 7


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: ..)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: .."), True),
        (MemoryError(), True),
        (RuntimeError("expected 3 channels"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_signs_of_too_little_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_the_allocator_itself_says_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux, which keeps the peak itself")
def test_a_peak_that_no_thread_could_watch_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine, where a thread gets its turn too late."""
    monkeypatch.setattr("torch_utils.memory._POLL_SECONDS", 60.0)
    size, before = 64 << 20, used_memory(CPU)
    for _ in range(2):  # the second peak is not the first one's
        assert 0.9 * size < peak_memory(lambda: torch.ones(size // 4).sum(), CPU) - before < 2 * size
        assert peak_memory(lambda: None, CPU) - before < 0.5 * size


def test_where_the_system_keeps_no_peak_a_thread_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_utils.memory._forget_peak", lambda: False)
    size, before = 64 << 20, used_memory(CPU)

    def work() -> None:
        kept = torch.ones(size // 4)
        time.sleep(1.0)
        del kept

    assert 0.9 * size < peak_memory(work, CPU) - before < 2 * size


def test_the_peak_is_seen_though_it_is_gone_afterwards() -> None:
    before = used_memory(CPU)
    size = 64 << 20

    def work() -> None:
        torch.ones(size // 4).sum()

    assert 0.9 * size < peak_memory(work, CPU) - before < 2 * size
    assert used_memory(CPU) - before < 0.5 * size
    assert before < memory_limit(CPU)


def test_processes_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = memory_limit(CPU) - used_memory(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_limit(CPU) - used_memory(CPU) == pytest.approx(alone / 4, rel=0.3)
