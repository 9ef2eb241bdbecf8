"""Another web site in the same browser, which even knows the address of the page, gets nothing and changes nothing."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.view_images.driving import open_photograph, photograph, site, until

EVIL = Path(__file__).with_name("evil.html").read_text()


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[str]:
    """The address of another site, on this machine, too, at another port."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text(EVIL)
    handler = functools.partial(_Quiet, directory=str(tmp_path / "evil"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("origin", ["127.0.0.1", "localhost"])
def test_another_site_gets_nothing_and_changes_nothing(browser: Any, evil: str, tmp_path: Path, origin: str) -> None:
    studio = tmp_path / "studio"
    with site(studio) as address:
        open_photograph(browser, address, photograph(tmp_path / "photo.png"))
        visit, picture = browser.execute_script(
            "const {visit, photograph} = JSON.parse(sessionStorage.visit); return [visit, photograph];"
        )
        before = sorted(studio.rglob("*"))
        assert [file.name for file in before if file.is_file()] == ["original", "photograph.jpg"]
        browser.get(evil.replace("127.0.0.1", origin))
        found = browser.execute_async_script(
            "attack(...[...arguments].slice(0, 3)).then(arguments[3])", address, visit, picture
        )
        assert sorted(studio.rglob("*")) == before
        assert found == {
            "upload": "failed",  # an opaque answer would have the type "opaque": resource policy withholds even that
            "upload with preflight": "failed",
            "render": "failed",
            "visit": "failed",
            "cancel": "failed",
            "read": "failed",
            "image": "refused",
            "script": "refused",
            "heard": "silence",
            "frames": 0,
        }


def test_the_attack_would_be_seen(browser: Any, evil: str) -> None:
    """Its means work against a site that defends nothing: the evil one itself."""
    browser.get(evil)
    found = browser.execute_async_script("attack(...[...arguments].slice(0, 3)).then(arguments[3])", evil, "v", "p")
    assert found["upload with preflight"] == 501  # answered, and read
    assert found["read"] == 404
    assert found["frames"] > 0


def test_a_page_of_another_site_does_not_reach_the_page_it_opens(browser: Any, address: str, evil: str) -> None:
    browser.get(evil)
    browser.execute_script("window.opened = open(arguments[0])", address)
    until(lambda: len(browser.window_handles) == 2)
    until(lambda: browser.execute_script("return opened.closed"))  # cut off by the opener policy
    first, second = browser.window_handles
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)
