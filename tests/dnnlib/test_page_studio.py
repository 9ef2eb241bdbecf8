"""Visitors, their folders, and the one thread that works for them."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dnnlib import UserError
from dnnlib.page import studio as studio_module
from dnnlib.page.jobs import Done, Progress, Stopped, Waiting
from tests.dnnlib.page_stand_in import client

pytest.importorskip("flask")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bring(studio: studio_module.Studio, visit: studio_module.Visit, name: str = "a.png") -> str:
    return studio.add_photograph(visit, name, io.BytesIO(b"pixels"))["photograph"]


def test_uploads_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    with client(tmp_path) as (_, studio):
        visits = [studio.visit(studio.new_visit()) for _ in range(4)]
        threads = [
            threading.Thread(target=bring, args=(studio, visit, f"{k}.png")) for visit in visits for k in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(visit.photographs) for visit in visits] == [6] * 4
        assert len(list(tmp_path.rglob("original"))) == 24


def test_uploads_evict_only_ones_own_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(tmp_path) as (_, studio):
        first, second = (studio.visit(studio.new_visit()) for _ in range(2))
        kept = bring(studio, first)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        names = [bring(studio, second) for _ in range(12)]
        assert list(first.photographs) == [kept]
        assert list(second.photographs) == names[-8:]
        assert len(list(tmp_path.rglob("original"))) == 9


def test_visitors_are_not_driven_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(tmp_path) as (_, studio):
        names = [studio.new_visit() for _ in range(32)]
        with pytest.raises(UserError, match="32 others"):
            studio.new_visit()
        studio.visit(names[3]).seen -= 4000
        studio.new_visit()
        assert studio.visit(names[3]) is None
        assert studio.visit(names[0]) is not None


def test_one_waits_for_the_other_and_is_told_its_place(tmp_path: Path) -> None:
    with client(tmp_path) as (_, studio):
        visits = [studio.visit(studio.new_visit()) for _ in range(3)]
        asked = [studio.render(visit, {"photograph": bring(studio, visit), "wait": True}) for visit in visits]
        last = visits[2].results[asked[2]].job.listen()
        assert next(last) == Waiting(2)
        studio.cancel(visits[1], asked[1])
        assert next(last) == Waiting(1)
        assert list(visits[1].results[asked[1]].job.listen()) == [Stopped()]
        studio.cancel(visits[0], asked[0])
        assert isinstance(next(last), Progress)
        assert list(visits[0].results[asked[0]].job.listen()) == [Stopped()]


def test_progress_tells_the_time_that_is_left(tmp_path: Path) -> None:
    with client(tmp_path) as (_, studio):
        visit = studio.visit(studio.new_visit())
        began = time.monotonic()
        name = studio.render(visit, {"photograph": bring(studio, visit), "wait": True})
        news = itertools.islice(visit.results[name].job.listen(), 10_000)  # half is done: as long again
        left = next(
            event.seconds_left for event in news if isinstance(event, Progress) and (event.seconds_left or 0) > 0.1
        )
        assert left <= time.monotonic() - began


def test_a_new_request_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    with client(tmp_path) as (_, studio):
        visit = studio.visit(studio.new_visit())
        photograph = bring(studio, visit)
        first = studio.render(visit, {"photograph": photograph, "wait": True})
        second = studio.render(visit, {"photograph": photograph, "preview": True})
        assert list(visit.results[first].job.listen())[-1] == Stopped()
        assert isinstance(list(visit.previews[second].job.listen())[-1], Done)


def test_old_results_go(tmp_path: Path) -> None:
    with client(tmp_path) as (_, studio):
        visit = studio.visit(studio.new_visit())
        photograph = bring(studio, visit)
        for kind, most in (("results", 16), ("previews", 4)):
            for _ in range(20):
                name = studio.render(visit, {"photograph": photograph, "preview": kind == "previews"})
                list(getattr(visit, kind)[name].job.listen())
            assert len(getattr(visit, kind)) <= most + 1
            assert name in getattr(visit, kind)
        assert len(list(tmp_path.rglob("frame.png"))) <= 22


def test_who_leaves_ends_the_work_but_not_at_once(tmp_path: Path) -> None:
    with client(tmp_path, grace_s=1.0) as (_, studio):
        visit = studio.visit(studio.new_visit())
        job = visit.results[studio.render(visit, {"photograph": bring(studio, visit), "wait": True})].job
        news = job.listen()
        next(news)
        news.close()
        assert not job.ended
        news = job.listen()  # the page was loaded again
        next(news)
        time.sleep(1.3)
        assert not job.ended
        news.close()
        next(job.listen())
        until(lambda: job.ended)


def test_the_end_waits_for_the_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with client(tmp_path) as (_, studio):
        visit = studio.visit(studio.new_visit())
        photograph = bring(studio, visit)
        job = visit.results[studio.render(visit, {"photograph": photograph, "wait": True})].job
        until(lambda: next(job.listen()))
        studio.__exit__()
        assert job.ended
        assert set(threading.enumerate()) <= before
        late = studio.render(visit, {"photograph": photograph})
        assert list(visit.results[late].job.listen()) == [Stopped()]
        studio.__exit__()
