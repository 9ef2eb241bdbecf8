"""A Hub of one's own: repositories that are folders, served as the Hugging Face Hub serves them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants, file_download

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@dataclass
class Hub:
    """`root` holds OWNER/NAME/...

    `log` has (method, path) of every request for a file; `sizes` are lied about, by name; `status` answers all.
    """

    root: Path
    log: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    status: int = 0
    url: str = ""

    def use(self, monkeypatch: pytest.MonkeyPatch, cache: Path, offline: bool = False) -> None:
        """Have `huggingface_hub`, which reads its environment but once, use this one, as variables would say."""
        address = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        values = {"ENDPOINT": self.url, "HUGGINGFACE_CO_URL_TEMPLATE": address}
        values |= {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": offline}
        for module in (constants, file_download):  # versions before 1.0 have some of them in both
            for name, value in values.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)

    @property
    def fetched(self) -> list[str]:
        """The files that were sent."""
        return [path.partition("/resolve/")[2].partition("/")[2] for method, path in self.log if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        hub: Hub = self.server.hub
        path = unquote(self.path)
        if path.startswith("/api/models/"):
            return self._tell(path.removeprefix("/api/models/").partition("?")[0])
        if "/resolve/" in path:
            hub.log.append((self.command, path))
        repository, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        file = hub.root / repository / name
        checks = {
            "": hub.status,
            "RepoNotFound": not (hub.root / repository).is_dir(),
            "RevisionNotFound": revision not in REVISIONS,
            "EntryNotFound": not file.is_file(),
        }
        missing = next((code for code, holds in checks.items() if holds), "")
        content = b"" if missing or hub.status else file.read_bytes()
        self.send_response(hub.status or (404 if missing else 200))
        headers = {"X-Error-Code": missing} if missing else {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        length = hub.sizes.get(name, len(content)) if self.command == "HEAD" else len(content)
        for key, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()
        return content

    def _tell(self, path: str) -> bytes:
        """What a repository holds, of OWNER/NAME, OWNER/NAME/revision/... or OWNER/NAME/tree/..."""
        repository, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        folder = self.server.hub.root / repository
        files = {
            file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()
        }
        tree = [{"type": "file", "path": name, "size": size, "oid": ""} for name, size in files.items()]
        info = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        content = json.dumps(tree if rest[:1] == ["tree"] else info).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Serve the repositories in a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.hub = Hub(root, url=f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.hub
        finally:
            server.shutdown()
