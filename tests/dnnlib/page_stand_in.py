"""A stand-in for the networks behind the page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dnnlib import UserError
from dnnlib.page import (
    Made,
    NewFrame,
    OfferedPath,
    Opened,
    OpenedPath,
    Plan,
    Progress,
    Send,
    Studio,
    Upload,
    create_app,
)  # fmt: skip

TOKEN = "word-of-this-run"


class StandIn:
    """Photographs are any bytes but `broken` and `crash`; a request says how its rendering ends."""

    paths: Mapping[str, OfferedPath] = {"pan": OfferedPath(15, "degrees"), "dolly": OfferedPath(1, "units")}

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def in_words_of_the_page(self, text: str) -> str:
        return text.replace("`frames`", "Frames")

    def open(self, upload: Upload) -> Opened:
        content = upload.file.read_bytes()
        if content == b"broken":
            raise UserError(f"{upload.file} is not a whole image")
        if content == b"crash":
            raise RuntimeError("secret")
        upload.file.with_name("photograph.jpg").write_bytes(content)
        return Opened(3, 2, 58.0, "default")

    def open_path(self, path: Upload) -> OpenedPath:
        files = sorted(path.file.iterdir()) if path.file.is_dir() else [path.file]
        for file in files:
            if file.read_bytes() == b"broken":
                raise UserError(f"{file}: line 1")
        return OpenedPath("files", len(files), False)

    def plan(self, upload: Upload, path: Upload | None, request: Mapping[str, Any]) -> Plan:
        notes = [f"{path.file}: `frames` says how many"] if path else []
        return Plan(58.0, path.name if path else "default", (0.5, 0.5), [[1.0] * 16] * request["frames"], notes)

    def render(self, upload: Upload, path: Upload | None, request: Mapping[str, Any], folder: Path, send: Send) -> Made:
        if request.get("frames") == 0:
            raise UserError(f"{folder}/path.txt: `frames` is 0")
        if "crash" in request:
            raise RuntimeError("secret")
        send(Progress(0.5))
        while request.get("wait") and not self.go_on.wait(0.01):
            send(Progress(0.5))
        (folder / "frame.png").write_bytes(upload.file.read_bytes())
        send(NewFrame("frame.png"))
        return Made()


@contextmanager
def client(folder: Path, hosts: list[str] | None = None, **options: Any) -> Iterator[tuple[Any, Studio]]:
    """The page's test client, and what is behind it."""
    renderer = StandIn()
    studio = Studio(folder, renderer, **options)
    with studio:
        try:
            yield create_app(studio, TOKEN, hosts).test_client(), studio
        finally:
            renderer.go_on.set()
