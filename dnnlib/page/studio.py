"""What visitors bring to the page and get: photographs, path files, renderings, in folders of each visitor's own."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from dnnlib.page.jobs import Job, Made, Send, Worker
from dnnlib.util import UserError, atomic_path

_MOST = {
    "photographs": 8,
    "path_files": 4,
    "results": 16,
    "previews": 4,
}  # that are kept for each visitor; the oldest go
_MOST_VISITORS = 32
_FORGOTTEN_S = 3600.0  # silence after which a visitor makes room for another
_CHUNK = 1 << 20
_MOST_FILES = 8  # that make a path together
_GONE = "the photograph is gone: drop it on the page again"
_PATH_GONE = "the file of the path is gone: choose it again"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Upload:
    """What a visitor brought: its name there, for the eye, and its file, named by the server.

    Several files that make a path together are in a folder, which is `file` then, under their own names.
    """

    name: str
    file: Path

    @property
    def title(self) -> str:
        """The name without its extension, by which what is made of the photograph is called."""
        return Path(self.name).stem


@dataclass(frozen=True)
class Opened:
    """What there is to say of a photograph: its size in pixels as it is worked with, and the lens.

    Attributes:
        fov: degrees that the shorter side spans; fov_from: where that is known from.
    """

    width: int
    height: int
    fov: float
    fov_from: str


@dataclass(frozen=True)
class OpenedPath:
    """What there is to say of a file of a path.

    Attributes:
        kind: its format, for the eye; cameras: how many it holds.
        matrices: whether the visitor has to say what its matrices are.
    """

    kind: str
    cameras: int
    matrices: bool


@dataclass(frozen=True)
class Plan:
    """Where the cameras of a request will stand.

    Attributes:
        fov, fov_from: the photograph's, see `Opened`; center: its principal point, fractions of its sides.
        cameras: of each the numbers that the page's script reads.
        notes: what is left out of the path's file, a sentence each.
    """

    fov: float
    fov_from: str
    center: Sequence[float]
    cameras: list[list[float]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class OfferedPath:
    """A camera path that has a name: how far it goes, in which unit."""

    amount: float
    unit: str


class Renderer(Protocol):
    """Makes what the page shows. Its methods raise UserError for what the visitor can put right.

    Requests are JSON objects as they came; of what they name the studio gives `upload`, the photograph, and `path`, the
    file of a path, None where they name none.
    """

    @property
    def paths(self) -> Mapping[str, OfferedPath]:
        """Camera paths by name."""

    def in_words_of_the_page(self, text: str) -> str:
        """What an error or a note says, with the page's labels for what its author calls otherwise."""

    def open(self, upload: Upload) -> Opened:
        """Put what the page shows of a photograph, `photograph.jpg`, beside it."""

    def open_path(self, path: Upload) -> OpenedPath:
        """Look at the file of a path."""

    def plan(self, upload: Upload, path: Upload | None, request: Mapping[str, Any]) -> Plan:
        """The cameras of a request, before anything is rendered."""

    def render(self, upload: Upload, path: Upload | None, request: Mapping[str, Any], folder: Path, send: Send) -> Made:
        """Put pictures into an empty folder and send news of them."""


@dataclass
class _Result:
    """The answer to a request: its job, and the folder with its pictures."""

    job: Job
    folder: Path
    upload: Upload


@dataclass
class Visit:
    """One visitor, that is one tab of a browser."""

    folder: Path
    photographs: dict[str, tuple[Upload, Opened]] = field(default_factory=dict)
    path_files: dict[str, tuple[Upload, OpenedPath]] = field(default_factory=dict)
    results: dict[str, _Result] = field(default_factory=dict)
    previews: dict[str, _Result] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)

    def result(self, name: str) -> _Result:
        found = self.results.get(name) or self.previews.get(name)
        if found is None:
            raise UserError("this result is gone: ask for it again")
        return found

    def title(self, number: str) -> str:
        """The title of the photograph with this number, or of that of the result with this number."""
        if number in self.photographs:
            return self.photographs[number][0].title
        return self.result(number).upload.title

    @property
    def busy(self) -> bool:
        return any(not result.job.ended for result in (*self.results.values(), *self.previews.values()))


class Studio:
    """Visitors and the one thread that works for them. It lives within ``with studio:``.

    Args:
        folder: for photographs and results; the caller's to remove.
        renderer: makes the pictures. It opens one photograph at a time, and renders one request at a time.
        grace_s: how long a rendering goes on when nobody listens.
    """

    def __init__(self, folder: Path, renderer: Renderer, grace_s: float = 30.0) -> None:
        self.folder = folder
        self.renderer = renderer
        self._worker = Worker(grace_s)
        self._visits: dict[str, Visit] = {}
        self._lock = threading.RLock()  # guards the visits

    def __enter__(self) -> Studio:
        self._worker.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._worker.__exit__(*error)

    def new_visit(self) -> str:
        """The name of a new visitor. Only those that were silent for an hour make room."""
        with self._lock:
            for name, visit in list(self._visits.items()):
                if len(self._visits) < _MOST_VISITORS:
                    break
                if time.monotonic() - visit.seen > _FORGOTTEN_S and not visit.busy:
                    shutil.rmtree(self._visits.pop(name).folder, ignore_errors=True)
            if len(self._visits) >= _MOST_VISITORS:
                raise UserError(f"{_MOST_VISITORS} others use this page: try again later")
            name = _new_name()
            self._visits[name] = Visit(_new_folder(self.folder, name))
            return name

    def visit(self, name: str) -> Visit | None:
        """A visitor by name; None where it is not known, or no longer."""
        with self._lock:
            visit = self._visits.get(name)
            if visit is not None:
                visit.seen = time.monotonic()
            return visit

    def add_photograph(self, visit: Visit, name: str, content: BinaryIO) -> dict[str, Any]:
        """Keep an uploaded photograph: what to say of it, and the `photograph` that names it in a request."""
        number = _new_name()
        folder = _new_folder(visit.folder, number)
        upload = Upload(_printable(name), folder / "original")
        with self._kept(upload, folder):
            _write(content, upload.file)
            opened = self.renderer.open(upload)
        self._add(visit, visit.photographs, "photographs", number, (upload, opened))
        return self.photograph(visit, number)

    def photograph(self, visit: Visit, number: object) -> dict[str, Any]:
        """What to say of a visitor's photograph. Raises UserError where it is gone."""
        upload, opened = _find(visit.photographs, number, _GONE)
        return {"photograph": number, "name": upload.name, **asdict(opened)}

    def add_path_file(self, visit: Visit, files: Sequence[tuple[str, BinaryIO]]) -> dict[str, Any]:
        """Keep the file of a path, or those that make one together, named and with content.

        Returns what to say of it, and the `path_file` that names it in a request.
        """
        if not 0 < len(files) <= _MOST_FILES:
            raise UserError(f"{len(files)} files: choose one, or those of one path, {_MOST_FILES} at most")
        number = _new_name()
        folder = _new_folder(visit.folder, number)
        names = [_printable(name) for name, _ in files]
        upload = Upload(", ".join(names), folder / names[0] if len(names) == 1 else folder)
        with self._kept(upload, folder):
            for name, (_, content) in zip(names, files, strict=True):
                if (folder / name).exists():
                    raise UserError(f"two of the files are called {name}")
                _write(content, folder / name)
            opened = self.renderer.open_path(upload)
        self._add(visit, visit.path_files, "path_files", number, (upload, opened))
        return {"path_file": number, "name": upload.name, **asdict(opened)}

    @contextmanager
    def _kept(self, upload: Upload, folder: Path) -> Iterator[None]:
        """The folder stays if the block ends well; what is said of errors is for the eye."""
        try:
            yield
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, UserError):
                raise UserError(self._for_the_eye(str(error), upload)) from None
            raise

    def _add(self, visit: Visit, kept: dict[str, tuple[Upload, _T]], kind: str, number: str, new: Any) -> None:
        """Keep something of a visitor's, and let the oldest of its kind go."""
        with self._lock:
            kept[number] = new
            for old in list(kept)[: -_MOST[kind]]:
                del kept[old]
                shutil.rmtree(visit.folder / old, ignore_errors=True)

    def _named(self, visit: Visit, request: Mapping[str, Any]) -> tuple[Upload, Upload | None]:
        """The photograph and, if there is one, the file of a path that a request names."""
        upload, _ = _find(visit.photographs, request.get("photograph"), _GONE)
        if request.get("path_file") is None:
            return upload, None
        return upload, _find(visit.path_files, request["path_file"], _PATH_GONE)[0]

    def plan(self, visit: Visit, request: Mapping[str, Any]) -> Plan:
        """The cameras of a request."""
        upload, path = self._named(visit, request)
        plan = self._said(upload, path, lambda: self.renderer.plan(upload, path, request))
        return replace(plan, notes=[self._for_the_eye(note, upload, path) for note in plan.notes])

    def render(self, visit: Visit, request: Mapping[str, Any]) -> str:
        """Begin to render; the name of the result. What else the visitor asked for and is not done yet is cancelled."""
        upload, path = self._named(visit, request)
        kind = "previews" if request.get("preview") else "results"
        results: dict[str, _Result] = getattr(visit, kind)
        number = _new_name()
        folder = _new_folder(visit.folder, number)

        def work(send: Send) -> Made:
            return self._said(upload, path, lambda: self.renderer.render(upload, path, request, folder, send))

        with self._lock:
            for other in (*visit.results.values(), *visit.previews.values()):
                self._worker.cancel(other.job)
            results[number] = _Result(self._worker.submit(work), folder, upload)
            ended = [name for name, result in results.items() if result.job.ended]
            for name in ended[: max(len(results) - _MOST[kind], 0)]:
                shutil.rmtree(results.pop(name).folder, ignore_errors=True)
        return number

    def cancel(self, visit: Visit, number: str) -> None:
        """End a rendering; what it has made stays."""
        self._worker.cancel(visit.result(number).job)

    def archive(self, visit: Visit, number: str) -> Path:
        """A ZIP file of all that a finished rendering made, in a folder named after the photograph."""
        result = visit.result(number)
        if not result.job.ended:
            raise UserError("it is not finished: wait, or cancel it")
        target = result.folder / "all.zip"
        if not target.exists():
            with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                for file in sorted(result.folder.glob("[a-z]*")):
                    if file.is_file():
                        archive.write(file, f"{result.upload.title}/{file.name}")
        return target

    def _said(self, upload: Upload, path: Upload | None, function: Callable[[], _T]) -> _T:
        """The function's value; what is said of errors is for the eye."""
        try:
            return function()
        except FileNotFoundError:
            raise UserError(_GONE) from None
        except UserError as error:
            raise UserError(self._for_the_eye(str(error), upload, path)) from None

    def _for_the_eye(self, text: str, *uploads: Upload | None) -> str:
        """An error or a note in words of the page, with the visitor's names for the files of the server."""
        for upload in filter(None, uploads):
            text = text.replace(f"{upload.file}/", "").replace(str(upload.file), upload.name)
        text = re.sub(rf"{re.escape(str(self.folder))}/(([\w.-]+/)*)", "", text)
        return self.renderer.in_words_of_the_page(text)


def _find(kept: Mapping[str, tuple[Upload, _T]], number: object, gone: str) -> tuple[Upload, _T]:
    found = kept.get(number) if isinstance(number, str) else None
    if found is None:
        raise UserError(gone)
    return found


def _write(content: BinaryIO, file: Path) -> None:
    with file.open("wb") as target:
        shutil.copyfileobj(content, target, _CHUNK)


def _printable(name: str) -> str:
    """The last part of a file's name, harmless in a terminal, a file system and a ZIP archive."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(letter if letter.isprintable() and letter not in '<>:"|?*' else "_" for letter in last)
    return kept.strip(". ")[:100] or "photograph"


def _new_name() -> str:
    """A name that nobody can guess, and that is never given twice."""
    return secrets.token_hex(12)


def _new_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    return folder
