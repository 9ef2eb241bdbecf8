"""dnnlib.download against a real HTTP server on this machine that cuts, stalls, lies and changes its mind."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib import download as module
from dnnlib.download import download
from dnnlib.util import UserError

ROOT = Path(__file__).parents[2]
BLOCK = module._BLOCK
BODY = np.random.default_rng(0).bytes(9 * BLOCK)
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server serves, and how badly: `faults` are used up, one a request; `always` holds when they are.

    `log` has (Range asked for, status, bytes of the body sent) of every request.
    """

    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"'})
    status: int = 200
    ranges: bool = True
    minds_if_range: bool = True
    parts_name_version: bool = True
    faults: list[str] = field(default_factory=list)
    always: str = ""
    pause_s: float = 0.0
    log: list[tuple[str | None, int, int]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site: Site = self.server.site
        fault = site.faults.pop(0) if site.faults else site.always
        if fault.isdecimal():
            self._answer(int(fault), b"", {}, "")
            return
        if fault == "changed":
            site.body, site.headers = site.body[::-1], {"ETag": '"v2"'}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        known = self.headers.get("If-Range") in (None, *site.headers.values())
        if asked and site.ranges and (known or not site.minds_if_range):
            start = int(asked[1])
            if start >= len(site.body):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(site.body)}"}, "")
                return
            if fault == "wrong part":
                start += 1
            end = start + 1000 if fault == "short part" else len(site.body)
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(site.body)}"}
            headers |= site.headers if site.parts_name_version else {}
            self._answer(206, site.body[start:end], headers, fault)
        else:
            self._answer(site.status, site.body, site.headers, fault)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], fault: str) -> None:
        site: Site = self.server.site
        promised = len(body) + (
            1000 if fault == "promises too much" else -1000 if fault == "promises too little" else 0
        )
        sent = body[: max(1, len(body) // 3)] if fault in ("cut", "stall") else body
        site.log.append((self.headers.get("Range"), status, len(sent)))
        self.send_response(status)
        for name, value in {"Content-Length": str(promised), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        time.sleep(site.pause_s)
        try:
            self.wfile.write(sent)
            if fault == "stall":
                self.wfile.flush()
                self.server.closing.wait(2)
        except OSError:
            pass  # the client has gone
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.closing = True, threading.Event()
        server.site = Site(url=f"http://127.0.0.1:{server.server_port}/models/net.safetensors")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.site
        server.closing.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKOFF_S", 0.002)
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.3)


def names(folder: Path) -> list[str]:
    """Files in the cache, without the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_fetched_once_recorded_and_reused(site: Site, tmp_path: Path) -> None:
    path = download(site.url, tmp_path / "new" / "cache", progress=False)
    assert path.read_bytes() == BODY
    assert re.fullmatch(r"net-[0-9a-f]{8}\.safetensors", path.name)
    assert names(path.parent) == [path.name, path.name + ".sha256"]
    assert (path.parent / (path.name + ".sha256")).read_text() == f"{SHA256}  {path.name}\n"  # as sha256sum writes it
    assert download(site.url, path.parent, progress=False) == path
    assert download(site.url, path.parent, sha256=SHA256.upper(), progress=False) == path
    assert site.log == [(None, 200, len(BODY))]


def test_cache_folder_comes_from_the_environment(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVID_CACHE", str(tmp_path / "chosen"))
    assert download(site.url).parent == tmp_path / "chosen"
    monkeypatch.delenv("VIVID_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert download(site.url).parent == tmp_path / "home" / ".cache" / "vivid"


def test_same_name_elsewhere_is_another_file(site: Site, tmp_path: Path) -> None:
    first = download(site.url, tmp_path)
    second = download(site.url.replace("models", "other"), tmp_path)
    assert first != second
    assert len(site.log) == 2


@pytest.mark.parametrize("validator", [{"ETag": '"v1"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_goes_on_where_it_was_cut(site: Site, tmp_path: Path, validator: dict[str, str], fault: str) -> None:
    site.headers, site.faults = validator, [fault, fault]
    assert download(site.url, tmp_path).read_bytes() == BODY
    assert site.log == [
        (None, 200, 3 * BLOCK),
        (f"bytes={3 * BLOCK}-", 206, 2 * BLOCK),
        (f"bytes={5 * BLOCK}-", 206, 4 * BLOCK),
    ]


def test_a_stall_is_not_waited_out(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.faults = ["stall"]  # 2 s, then the server hangs up
    assert download(site.url, tmp_path).read_bytes() == BODY
    assert "Read timed out" in caplog.text


@pytest.mark.parametrize(
    "server",
    [{"ranges": False}, {"headers": {}}, {"headers": {"ETag": 'W/"v1"'}}],
    ids=["ignores Range", "has no version", "has a weak version"],
)
def test_starts_again_where_it_cannot_go_on(site: Site, tmp_path: Path, server: dict[str, object]) -> None:
    vars(site).update(server)
    site.faults = ["cut"]
    assert download(site.url, tmp_path).read_bytes() == BODY
    assert [entry[1:] for entry in site.log] == [(200, 3 * BLOCK), (200, 9 * BLOCK)]


@pytest.mark.parametrize("server", [{"minds_if_range": False}, {"parts_name_version": False}])
def test_never_joins_two_versions(site: Site, tmp_path: Path, server: dict[str, object]) -> None:
    vars(site).update(server)
    site.faults = ["cut", "changed"]
    assert download(site.url, tmp_path).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("fault", ["wrong part", "short part", "503", "429", "416", "promises too much"])
def test_gets_over_a_fault_that_passes(site: Site, tmp_path: Path, fault: str) -> None:
    site.faults = ["cut", fault]
    assert download(site.url, tmp_path).read_bytes() == BODY


def test_every_attempt_that_brings_something_gives_new_patience(site: Site, tmp_path: Path) -> None:
    site.body = BODY * 30
    site.faults = ["cut"] * (2 * module._ATTEMPTS)
    assert download(site.url, tmp_path).read_bytes() == site.body
    assert len(site.log) == 2 * module._ATTEMPTS + 1


def test_a_body_shorter_than_promised_is_never_accepted(site: Site, tmp_path: Path) -> None:
    site.headers, site.always = {}, "promises too much"
    with pytest.raises(UserError, match=r"net\.safetensors: .*\(5 times\).* put the file at .*net-\w+\.safetensors"):
        download(site.url, tmp_path)
    assert len(site.log) == module._ATTEMPTS
    assert all(name.endswith((".part", ".part.version")) for name in names(tmp_path))


def test_a_promise_of_too_little_is_found_out_by_the_hash(site: Site, tmp_path: Path) -> None:
    site.always = "promises too little"
    with pytest.raises(UserError, match=f"its SHA-256 is [0-9a-f]{{64}}, not {SHA256}"):
        download(site.url, tmp_path, sha256=SHA256)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "page",
    [
        {"headers": {"Content-Type": "text/html; charset=utf-8"}},
        {
            "headers": {"Content-Type": "application/octet-stream"},
            "body": b"\xef\xbb\xbf\n <!DOCTYPE html><html>Sign in",
        },
        {"body": b"<HTML><body>moved</body></html>"},
    ],
)
def test_a_web_page_is_refused(site: Site, tmp_path: Path, page: dict[str, object]) -> None:
    vars(site).update(page)
    with pytest.raises(UserError, match="a web page is there, not the file"):
        download(site.url, tmp_path)
    assert names(tmp_path) == []
    assert len(site.log) == 1


@pytest.mark.parametrize("status", [404, 403, 410, 451])
def test_a_refusal_says_what_to_do(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(UserError) as caught:
        download(site.url, tmp_path)
    assert len(site.log) == 1
    assert len(str(caught.value).splitlines()) == 1
    place = re.search(r"put the file at (\S+)$", str(caught.value))[1]
    Path(place).write_bytes(b"by hand")
    assert download(site.url, tmp_path).read_bytes() == b"by hand"
    with pytest.raises(UserError, match=f"says {status}"):  # not what was asked for: fetched again
        download(site.url, tmp_path, sha256=SHA256)


@pytest.mark.parametrize("url", ["net.pkl", "file:///etc/passwd", "ftp://x/y", "http://", "https:///x", "http://[x/y"])
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no http or https address"):
        download(url, tmp_path)


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"Connection refused \(5 times\)"):
            download(f"http://127.0.0.1:{held.getsockname()[1]}/x.pkl", tmp_path)


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: b"x" + body[1:]])
def test_a_damaged_copy_is_said_and_fetched_again(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    path = download(site.url, tmp_path)
    path.write_bytes(damage(BODY))
    with caplog.at_level(logging.WARNING):
        assert download(site.url, tmp_path).read_bytes() == BODY
    assert str(path) in caplog.text
    assert len(site.log) == 2


def test_a_cache_that_is_a_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        download(site.url, tmp_path / "file")


def start(url: str, cache: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from dnnlib.download import download; print(download(sys.argv[1], progress=False).stat().st_size)"
    )
    environment = {**os.environ, "VIVID_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", code, url], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_three_processes_share_one_download(site: Site, tmp_path: Path) -> None:
    site.pause_s = 1.0
    processes = [start(site.url, tmp_path) for _ in range(3)]
    assert [process.communicate(timeout=120)[0] for process in processes] == [f"{len(BODY)}\n"] * 3
    assert site.log == [(None, 200, len(BODY))]


def test_a_killed_process_leaves_its_part_to_the_next(site: Site, tmp_path: Path) -> None:
    site.faults = ["stall"]
    process = start(site.url, tmp_path)
    deadline = time.monotonic() + 120
    while not [part for part in tmp_path.glob("*.part") if part.stat().st_size] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert download(site.url, tmp_path).read_bytes() == BODY
    assert site.log[-1][1] == 206


@settings(deadline=None, max_examples=20)
@given(
    faults=st.lists(
        st.sampled_from(["", "cut", "wrong part", "short part", "503", "416", "changed", "promises too much"]),
        max_size=4,
    ).filter(
        lambda faults: len(faults) + faults.count("promises too much") < 5
    ),  # which costs a second of five attempts
    ranges=st.booleans(),
    minds_if_range=st.booleans(),
)
def test_whatever_happens_the_file_is_a_whole_version(
    tmp_path_factory: pytest.TempPathFactory, faults: list[str], ranges: bool, minds_if_range: bool
) -> None:
    for server in site.__wrapped__():
        server.faults, server.ranges, server.minds_if_range = list(faults), ranges, minds_if_range
        path = download(server.url, tmp_path_factory.mktemp("cache"))
        assert path.read_bytes() in (BODY, BODY[::-1])


def test_parts_without_a_version_are_not_joined(site: Site, tmp_path: Path) -> None:
    site.faults, site.parts_name_version = ["cut", "changed"], False
    site.minds_if_range = False  # and sends the rest of another version
    assert download(site.url, tmp_path).read_bytes() == BODY[::-1]


def test_an_empty_answer_is_no_file(site: Site, tmp_path: Path) -> None:
    site.body = b""
    with pytest.raises(UserError, match="sent nothing"):
        download(site.url, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_what_is_larger_than_the_disk_is_not_begun(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"there is room for 1000 B"):
        download(site.url, tmp_path)


def test_links_of_others_in_the_cache_lead_nowhere(site: Site, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    cache = tmp_path / "cache"
    cache.mkdir()
    for suffix in (".part", ".part.version", ".sha256", ".lock"):
        (cache / (module._cache_name(site.url) + suffix)).symlink_to(precious)
    assert download(site.url, cache).read_bytes() == BODY
    assert precious.read_text() == "mine"


def test_passwords_in_addresses_are_not_told(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = site.url.replace("://", "://name:secret@") + "?token=secret#secret"
    site.always, site.faults = "404", ["500"]
    with caplog.at_level(logging.INFO), pytest.raises(UserError) as caught:
        download(address, tmp_path)
    assert "secret" not in str(caught.value) + caplog.text
    assert module.public_address("https://a@b.c/d?e") == "https://b.c/d"


@pytest.mark.parametrize(("start", "target", "allowed"), [
    ("https://a.b/c", "http://a.b/c", False),
    ("https://a.b/c", "//d.e/c", True),
    ("http://a.b/c", "http://a.b/d", True),
])  # fmt: skip
def test_redirects_from_https_stay_there(start: str, target: str, allowed: bool) -> None:
    response = requests.Response()
    response.status_code, response.url, response.headers["Location"] = 302, start, target
    if allowed:
        assert module._Session().get_redirect_target(response) == target
    else:
        with pytest.raises(module._Refused, match="from https to http"):
            module._Session().get_redirect_target(response)


def test_without_a_home_the_line_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an entry in the system's list, as containers and batch systems have."""

    def expanduser(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VIVID_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", expanduser)
    with pytest.raises(UserError, match=r"no home folder .* set VIVID_CACHE"):
        download("http://127.0.0.1:9/net.pkl")
