"""Work that takes its time, one job after the other in a thread of its own, and the news of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dnnlib.util import UserError

_GRACE_S = 30.0  # that a job goes on without a listener: a page that is loaded again comes back
_PULSE_S = 1.0  # silence after which a listener is given None, by which the server finds out whether it is still there
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """`place` others are done first."""

    place: int


@dataclass(frozen=True)
class Progress:
    """The share of the work that is done, 0 to 1, and a guess at the time that the rest takes."""

    progress: float
    seconds_left: float | None = None


@dataclass(frozen=True)
class NewFrame:
    """Pictures that have just been made: names of files.

    Attributes:
        frame, samples: the first and all other answers for one camera; spread: how far they lie apart.
    """

    frame: str
    samples: Sequence[str] = ()
    spread: str | None = None


@dataclass(frozen=True)
class Made:
    """What a rendering ends with: `report`, a word on its frames, and the files to download."""

    report: str = ""
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Done:
    """All is made."""

    done: Made


@dataclass(frozen=True)
class Failed:
    """Nothing more comes, because of what `error` says."""

    error: str


@dataclass(frozen=True)
class Stopped:
    """Nothing more comes, because nobody waits for it."""

    cancelled: bool = True


# The browser hears each as a JSON object of its fields, and knows it by the name of the first.
News = Waiting | Progress | NewFrame | Done | Failed | Stopped
Send = Callable[[Progress | NewFrame], None]
Work = Callable[[Send], Made]


class Cancelled(Exception):
    """Nobody waits for the result any more."""


class Job:
    """A piece of work in a `Worker`'s queue. Its news, in order, end with `Done`, `Failed` or `Stopped`."""

    def __init__(self, work: Work, changed: threading.Condition, grace_s: float) -> None:
        self.work = work
        self._changed = changed  # guards all that follows
        self._grace_s = grace_s
        self._news: list[News] = []
        self._passing: News | None = None  # which the next of its kind outdates
        self._ended = False
        self._cancelled = False
        self._listeners = 0
        self._left = time.monotonic()

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def unwanted(self) -> bool:
        """Whether it was cancelled, or its last listener left long ago."""
        return self._cancelled or (not self._listeners and time.monotonic() - self._left > self._grace_s)

    def cancel(self) -> None:
        """The work ends when it next sends news."""
        self._cancelled = True

    def tell(self, news: News) -> None:
        with self._changed:
            if isinstance(news, Waiting | Progress):
                self._passing = news
            else:
                self._news.append(news)
            if isinstance(news, Done | Failed | Stopped):
                self._passing, self._ended = None, True
            self._changed.notify_all()

    def listen(self) -> Iterator[News | None]:
        """The news from the beginning, whoever has heard them already; None after every second of silence."""
        heard, passing = 0, None
        with self._changed:
            self._listeners += 1
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._ended or len(self._news) > heard or self._passing is not passing,  # noqa: B023
                        _PULSE_S,
                    )
                    fresh = self._news[heard:]
                    heard += len(fresh)
                    if self._passing is not passing and self._passing is not None:
                        fresh.append(self._passing)
                    passing, ended = self._passing, self._ended
                yield from fresh or (None,)
                if ended:
                    return
        finally:
            with self._changed:
                self._listeners -= 1
                self._left = time.monotonic()


class Worker:
    """One thread that does the jobs in the order in which they came. It lives within ``with worker:``.

    A thread that is still in C++ code when the interpreter ends takes the process down; so leaving the block cancels
    all jobs and waits for the thread.
    """

    def __init__(self, grace_s: float = _GRACE_S) -> None:
        self._grace_s = grace_s
        self._changed = threading.Condition(threading.RLock())
        self._queue: list[Job] = []  # the first one is being done
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="rendering")

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self._queue:
                job.cancel()
            self._changed.notify_all()
        self._thread.join()

    def submit(self, work: Work) -> Job:
        """Put work into the queue; `work` gets `send`, which raises `Cancelled` once nobody wants it any more."""
        with self._changed:
            job = Job(work, self._changed, self._grace_s)
            if self._closed:
                job.tell(Stopped())
                return job
            self._queue.append(job)
            self._tell_places()
            self._changed.notify_all()
            return job

    def cancel(self, job: Job) -> None:
        """End a job: at once where it waits, at its next news where it is being done."""
        with self._changed:
            job.cancel()
            if job in self._queue[1:]:
                self._queue.remove(job)
                job.tell(Stopped())
                self._tell_places()

    def _tell_places(self) -> None:
        for place, job in enumerate(self._queue[1:], start=1):
            job.tell(Waiting(place))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                job = self._queue[0]
            self._do(job)
            with self._changed:
                self._queue.pop(0)
                self._tell_places()

    def _do(self, job: Job) -> None:
        began = time.monotonic()

        def send(news: Progress | NewFrame) -> None:
            if job.unwanted:
                raise Cancelled
            if isinstance(news, Progress) and news.progress:
                rest = (1 - news.progress) / news.progress
                news = replace(news, seconds_left=(time.monotonic() - began) * rest)
            job.tell(news)

        try:
            send(Progress(0))
            job.tell(Done(job.work(send)))
        except Cancelled:
            job.tell(Stopped())
        except UserError as error:
            job.tell(Failed(str(error)))
        except Exception:
            _log.exception("the page could not be served")
            job.tell(Failed("this failed, for a reason that the terminal shows"))
