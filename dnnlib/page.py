"""The web page of view_images.py: photographs in, pictures out as they are made. It knows nothing of networks.

Flask and one HTML file, rather than a framework of widgets: turning a camera by dragging in a picture needs a script
in any case, Flask brings five small packages where gradio brings some forty, and nothing is loaded from outside.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnlib.util import UserError

if TYPE_CHECKING:
    from flask import Flask

_LARGEST_UPLOAD = 100 << 20  # bytes
_MOST_FOLDERS = 16  # of photographs, and of results; the oldest go
_log = logging.getLogger(__name__)

Event = Mapping[str, Any]
Send = Callable[[Event], None]


@dataclass
class Studio:
    """What the page shows.

    Attributes:
        folder: for photographs and results, numbered; the caller's to remove.
        open_photograph: given a photograph, puts `preview.png`, all of it, and `square.png`, what is used of it, beside
            it, and returns what to say of it.
        render: given a photograph, a request, a new folder and `send`, writes pictures there and sends news of them.
            `send` raises `Cancelled` once nobody listens any more. Requests are served one at a time.
        paths: the names of camera paths, each with how far it goes, `amount`, and in which `unit`.

    Both raise UserError for what the user can put right.
    """

    folder: Path
    open_photograph: Callable[[Path], dict[str, Any]]
    render: Callable[[Path, dict[str, Any], Path, Send], None]
    paths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def new_folder(self, kind: str) -> Path:
        """An empty folder `<kind>-<number>`."""
        folder = self.folder / f"{kind}-{next(self._numbers)}"
        folder.mkdir(parents=True)
        for old in sorted(self.folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)[:-_MOST_FOLDERS]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def add_photograph(self, name: str, content: bytes) -> dict[str, Any]:
        """Keep an uploaded photograph: what to say of it, and the `photograph` that names it in a request."""
        folder = self.new_folder("photograph")
        file = folder / f"photograph{re.sub(r'[^.a-zA-Z0-9]', '', Path(name).suffix)}"
        file.write_bytes(content)
        try:
            return {"photograph": folder.name, **self.open_photograph(file)}
        except UserError as error:
            raise UserError(str(error).replace(str(file), name)) from None

    def events(self, request: dict[str, Any]) -> Iterator[Event]:
        """Serve a request: what `render` sends, while it works. Ending the iteration early cancels the work."""
        photograph = re.fullmatch(r"photograph-[0-9]+", str(request.get("photograph")))
        file = next((self.folder / photograph[0]).glob("photograph.*"), None) if photograph else None
        if file is None:
            yield {"error": "the photograph is gone: drop it on the page again"}
            return
        news: queue.Queue[Event | None] = queue.Queue()
        cancelled = threading.Event()
        threading.Thread(target=self._work, args=(file, request, news, cancelled), daemon=True).start()
        try:
            yield from iter(news.get, None)
        finally:
            cancelled.set()

    def _work(
        self, file: Path, request: dict[str, Any], news: queue.Queue[Event | None], cancelled: threading.Event
    ) -> None:
        def send(event: Event) -> None:
            if cancelled.is_set():
                raise Cancelled
            news.put(event)

        try:
            with self._turn:
                folder = self.new_folder("result")
                send({"folder": folder.name})
                self.render(file, request, folder, send)
        except Cancelled:
            pass
        except UserError as error:
            news.put({"error": str(error).replace(f"{folder}/", "")})
        except Exception:
            _log.exception("the request %s failed", request)
            news.put({"error": "this failed, for a reason that the terminal shows"})
        finally:
            news.put(None)


class Cancelled(Exception):
    """Nobody waits for the result any more."""


def create_app(studio: Studio, hosts: list[str] | None = None) -> Flask:
    """The page as a WSGI application.

    `hosts`: names by which it may be asked for, so that no other site's name can be pointed at it; None for any.
    Raises UserError, with a hint, where Flask is not installed.
    """
    try:
        from flask import Flask, Response, jsonify, request, send_file, send_from_directory
    except ImportError:
        raise UserError("the page needs Flask: pip install flask") from None

    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # paths keep their order
    app.config.update(MAX_CONTENT_LENGTH=_LARGEST_UPLOAD, TRUSTED_HOSTS=hosts)

    @app.get("/")
    def page() -> Response:
        return send_file(Path(__file__).with_name("page.html"))

    @app.get("/paths")
    def paths() -> Response:
        return jsonify(studio.paths)

    @app.post("/photographs")
    def add_photograph() -> Response:
        return jsonify(studio.add_photograph(request.args.get("name", ""), request.get_data()))

    @app.post("/renders")
    def render() -> Response:
        lines = (json.dumps(event) + "\n" for event in studio.events(request.get_json()))
        return Response(lines, mimetype="application/x-ndjson")

    @app.get("/files/<path:name>")
    def file(name: str) -> Response:
        return send_from_directory(studio.folder, name, max_age=3600)

    @app.errorhandler(UserError)
    def say(error: UserError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    @app.errorhandler(413)
    def too_large(_: Exception) -> tuple[Response, int]:
        return jsonify(error=f"the file is larger than {_LARGEST_UPLOAD >> 20} MiB: make it smaller first"), 413

    return app
