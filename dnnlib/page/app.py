"""The page over HTTP: what is answered, and what is refused.

A page that listens on one's own machine can be reached by every web site that is open in the browser there. So all
addresses begin with a word that is new for every run and that nobody else knows; requests from other sites are refused;
files have names of the server's making, and only pictures, videos, paths and archives are served, each as what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

from dnnlib.page.jobs import News
from dnnlib.page.studio import Studio, Visit
from dnnlib.util import UserError

if TYPE_CHECKING:
    from flask import Blueprint, Flask, Request, Response

_LARGEST_UPLOAD = 100 << 20  # bytes
_LARGEST_REQUEST = 1 << 20  # bytes of JSON
_STATIC = Path(__file__).with_name("static")
_STATIC_TYPES = {".html": "text/html", ".css": "text/css", ".mjs": "text/javascript"}
_FILE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".json": "application/json",
}
_FILE_NAME = re.compile(r"[a-z0-9_]+\.[a-z0-9]+")
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILE_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Refused(Exception):
    """A request that is answered with a status and one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def create_app(studio: Studio, token: str, hosts: list[str] | None = None) -> Flask:
    """The page as a WSGI application, at the address `/<token>/`.

    `hosts`: names by which it may be asked for, so that no other site's name can be pointed at it; None for any.
    Raises UserError, with a hint, where Flask is not installed.
    """
    try:
        from flask import Flask, jsonify, request
    except ImportError:
        raise UserError("the page needs Flask: pip install flask") from None
    from werkzeug.exceptions import HTTPException

    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider: paths keep their order
    app.config.update(MAX_CONTENT_LENGTH=_LARGEST_UPLOAD, TRUSTED_HOSTS=hosts)

    @app.before_request
    def guard() -> None:
        if _foreign(request):
            raise _Refused(403, "another web site asked for this: it is refused")

    @app.after_request
    def harden(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", _FILE_POLICY)
        return response

    @app.errorhandler(_Refused)
    def refuse(error: _Refused) -> tuple[Response, int]:
        return jsonify(error=str(error)), error.status

    @app.errorhandler(UserError)
    def say(error: UserError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    @app.errorhandler(HTTPException)
    def answer(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        if status == 404:
            text = "there is nothing here: open the address that the terminal shows, it is another one for every run"
        elif status == 413:
            text = f"the file is larger than {_LARGEST_UPLOAD >> 20} MiB: make it smaller first"
        else:
            text = f"the page does not answer that ({HTTPStatus(status).phrase})"
        return jsonify(error=text), status

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[Response, int]:
        app.logger.error("the request %s failed", request.endpoint, exc_info=error)
        return jsonify(error="this failed, for a reason that the terminal shows"), 500

    app.register_blueprint(_page_routes(studio), url_prefix=f"/{token}")
    for own in (_visit_routes(studio), _file_routes(studio)):
        app.register_blueprint(own, url_prefix=f"/{token}/visits/<name>")
    return app


def _page_routes(studio: Studio) -> Blueprint:
    """Return the routes that are the same for everybody."""
    from flask import Blueprint, jsonify, send_file

    routes = Blueprint("page", __name__)

    @routes.get("/")
    def page() -> Response:
        return static("page.html")

    @routes.get("/static/<name>")
    def static(name: str) -> Response:
        file = {file.name: file for file in _STATIC.iterdir()}.get(name)
        if file is None or file.suffix not in _STATIC_TYPES:
            raise _Refused(404, "there is no such part of the page")
        response = send_file(file, mimetype=_STATIC_TYPES[file.suffix], max_age=0)
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        return response

    @routes.get("/paths")
    def paths() -> Response:
        return jsonify(studio.renderer.paths)

    @routes.post("/visits")
    def new_visit() -> Response:
        return jsonify(visit=studio.new_visit())

    return routes


def _visit_routes(studio: Studio) -> Blueprint:
    """Return the routes of what a visitor brings and asks for."""
    from flask import Blueprint, Response, jsonify, request

    routes = Blueprint("visit", __name__)
    visit = partial(_visit, studio)

    @routes.post("/photographs")
    def add_photograph(name: str) -> Response:
        if request.content_length is None:
            raise _Refused(411, "the length of the photograph is not told")
        return jsonify(studio.add_photograph(visit(name), request.args.get("name", ""), cast(BinaryIO, request.stream)))

    @routes.get("/photographs/<number>")
    def photograph(name: str, number: str) -> Response:
        return jsonify(studio.photograph(visit(name), number))

    @routes.post("/path-files")
    def add_path_file(name: str) -> Response:
        if request.content_length is None:
            raise _Refused(411, "the length of the file is not told")
        files = [(file.filename or "", file.stream) for file in request.files.getlist("file")]
        return jsonify(studio.add_path_file(visit(name), cast(list[tuple[str, BinaryIO]], files)))

    @routes.post("/plans")
    def plan(name: str) -> Response:
        return jsonify(asdict(studio.plan(visit(name), _body(request))))

    @routes.post("/results")
    def render(name: str) -> Response:
        return jsonify(result=studio.render(visit(name), _body(request)))

    @routes.delete("/results/<number>")
    def cancel(name: str, number: str) -> Response:
        studio.cancel(visit(name), number)
        return jsonify({})

    @routes.get("/results/<number>/events")
    def events(name: str, number: str) -> Response:
        news = visit(name).result(number).job.listen()
        return Response(_stream(news), mimetype="text/event-stream")

    return routes


def _file_routes(studio: Studio) -> Blueprint:
    """Return the routes of a visitor's pictures."""
    from flask import Blueprint, send_file

    routes = Blueprint("files", __name__)
    visit = partial(_visit, studio)

    @routes.get("/files/<number>/<file>")
    def file(name: str, number: str, file: str) -> Response:
        visitor = visit(name)
        path = visitor.folder / number / file
        known = re.fullmatch(r"[0-9a-f]+", number) and _FILE_NAME.fullmatch(file) and path.suffix in _FILE_TYPES
        if not (known and path.is_file()):
            raise _Refused(404, "this file is gone: ask for it again")
        response = send_file(path, mimetype=_FILE_TYPES[path.suffix], download_name=f"{visitor.title(number)}-{file}")
        response.headers["Cache-Control"] = "private, max-age=3600"  # no name is ever given twice
        return response

    @routes.get("/results/<number>/all.zip")
    def archive(name: str, number: str) -> Response:
        visitor = visit(name)
        archive, title = studio.archive(visitor, number), visitor.title(number)
        return send_file(archive, mimetype="application/zip", as_attachment=True, download_name=f"{title}.zip")

    return routes


def _visit(studio: Studio, name: str) -> Visit:
    found = studio.visit(name)
    if found is None:
        raise _Refused(410, "the page has forgotten this visit: load it again")
    return found


def _foreign(request: Request) -> bool:
    """Whether a browser says that another site sends this. To open the page from a link is nobody's harm."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return True
    opens = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    return site not in (None, "same-origin", "none") and not opens


def _body(request: Request) -> dict[str, Any]:
    """The JSON object that came with a request."""
    if (request.content_length or 0) > _LARGEST_REQUEST:
        raise _Refused(413, f"the request is larger than {_LARGEST_REQUEST >> 20} MiB: load the page again")
    try:
        body = json.loads(request.get_data(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UserError("this is no request that the page sends: load it again")
    return body


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _stream(all_news: Iterator[News | None]) -> Iterator[str]:
    """News as server-sent events; a line that says nothing where there are none, so that who has left is noticed."""
    for news in all_news:
        yield ": still there\n\n" if news is None else f"data: {json.dumps(asdict(news))}\n\n"
