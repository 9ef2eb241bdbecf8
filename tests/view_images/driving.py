"""How a test uses the page in a browser."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnlib.page import Studio, create_app, serve
from tests.golden import tiny_network
from training.generation import NovelViewSampler
from training.sampling_config import SamplingConfig
from training.viewer import PageRenderer

TOKEN = "word-of-this-run"


class ShortReport:
    """Says next to nothing of a path."""

    def add(self, *_: object) -> None: ...

    def summary(self) -> dict[str, Any]:
        return {}

    def __str__(self) -> str:
        return "judged"


@contextmanager
def site(folder: Path, port: int = 0, token: str = TOKEN) -> Iterator[str]:
    """The page with a tiny network, at an address."""
    sampler = NovelViewSampler(tiny_network(), config=SamplingConfig(num_steps=2))
    studio = Studio(folder, PageRenderer(sampler, ShortReport))
    with socket.create_server(("127.0.0.1", port)) as listener:
        app = create_app(studio, token, ["127.0.0.1"])
        with serve(app, studio, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{token}/"


def photograph(file: Path, width: int = 90, height: int = 60) -> Path:
    """A smooth picture, all places of which differ."""
    y, x = np.mgrid[:height, :width]
    waves = 127.5 + 127.5 * np.sin(x / width * 9) * np.cos(y / height * 7)
    Image.fromarray(np.stack([x / width * 255, y / height * 255, waves], axis=-1).astype(np.uint8)).save(file)
    return file


def until(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"the page does not get there {what}"
        time.sleep(0.03)


def drop(browser: Any, *files: Path, x: int = 300, y: int = 300) -> None:
    """A real drag of files from outside onto the page."""
    data = {"items": [], "files": list(map(str, files)), "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "data": data, "x": x, "y": y})


def fresh(browser: Any, address: str) -> None:
    """The page as somebody sees it who comes for the first time."""
    browser.get(f"{address}static/page.css")
    browser.execute_script("sessionStorage.clear()")
    browser.get(address)
    until(lambda: browser.find_elements("css selector", "#name option"))


def open_photograph(browser: Any, address: str, file: Path) -> None:
    fresh(browser, address)
    drop(browser, file)
    until(lambda: "field of view" in message(browser))


def message(browser: Any) -> str:
    return browser.find_element("id", "message").text


def done(browser: Any) -> bool:
    return message(browser).startswith("Done") and not browser.find_element("id", "busy").is_displayed()


def click(browser: Any, name: str) -> None:
    """A click on an element that may be folded away or out of sight."""
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); if (e.closest('details')) e.closest('details').open = true;"
        "e.click();",
        name,
    )


def set_value(browser: Any, name: str, value: object) -> None:
    """What a person does who types a value and leaves the field."""
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "for (const type of ['input', 'change']) e.dispatchEvent(new Event(type, {bubbles: true}));",
        name,
        value,
    )


def value(browser: Any, name: str) -> str:
    return browser.find_element("id", name).get_property("value")


def fetched(browser: Any, address: str) -> bytes:
    script = """const done = arguments[1];
      fetch(arguments[0]).then(r => r.arrayBuffer()).then(b => done(Array.from(new Uint8Array(b))));"""
    return bytes(browser.execute_async_script(script, address))


def shown(browser: Any) -> np.ndarray:
    """The pixels of the view as the server sent them."""
    return np.asarray(Image.open(io.BytesIO(fetched(browser, browser.find_element("id", "view").get_property("src")))))


def transform(browser: Any, name: str) -> np.ndarray:
    """The homography [3, 3] by which the browser draws an element, in pixels."""
    numbers = browser.execute_script(
        "return Array.from(new DOMMatrix(getComputedStyle(document.getElementById(arguments[0])).transform)"
        ".toFloat64Array())",
        name,
    )
    return np.array(numbers).reshape(4, 4).T[np.ix_([0, 1, 3], [0, 1, 3])]


def errors(browser: Any) -> list[str]:
    """What the browser's console says is wrong, but for answers that were refused."""
    entries = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [entry for entry in entries if "the server responded with a status of 4" not in entry]
