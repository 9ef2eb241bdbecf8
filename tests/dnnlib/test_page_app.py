"""The page over HTTP, with a stand-in for the networks; tests/view_images drives the real thing in a browser."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dnnlib.page_stand_in import TOKEN, client

pytest.importorskip("flask")


class Visitor:
    """A visitor who has brought a photograph."""

    def __init__(self, web: Any, name: str = "my photo.jpg", content: bytes = b"pixels") -> None:
        self.web = web
        self.base = f"/{TOKEN}/visits/{web.post(f'/{TOKEN}/visits').get_json()['visit']}"
        self.answer = self.bring(name, content).get_json()

    def bring(self, name: str, content: bytes) -> Any:
        return self.web.post(f"{self.base}/photographs", query_string={"name": name}, data=content)

    def render(self, **request: object) -> str:
        body = {"photograph": self.answer["photograph"], **request}
        return self.web.post(f"{self.base}/results", json=body).get_json()["result"]

    def news(self, result: str) -> list[dict]:
        """Those that last."""
        text = self.web.get(f"{self.base}/results/{result}/events").get_data(as_text=True)
        news = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        return [event for event in news if "progress" not in event]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Any]:
    with client(tmp_path) as (web, _):
        yield web


def test_a_photograph_goes_in_and_news_come_out(web: Any) -> None:
    visitor = Visitor(web)
    assert (visitor.answer["name"], visitor.answer["fov"]) == ("my photo.jpg", 58.0)
    assert web.get(f"{visitor.base}/photographs/{visitor.answer['photograph']}").get_json() == visitor.answer
    result = visitor.render()
    lasting = visitor.news(result)
    assert lasting == [{"frame": "frame.png", "samples": [], "spread": None}, {"done": {"report": "", "files": []}}]
    assert visitor.news(result) == lasting  # whoever comes later hears them, too
    with web.get(f"{visitor.base}/files/{result}/frame.png") as answer:
        assert (answer.get_data(), answer.mimetype) == (b"pixels", "image/png")
    with web.get(f"{visitor.base}/results/{result}/all.zip") as answer:
        assert zipfile.ZipFile(io.BytesIO(answer.get_data())).namelist() == ["my photo/frame.png"]
    body = {"photograph": visitor.answer["photograph"], "frames": 2}
    assert len(web.post(f"{visitor.base}/plans", json=body).get_json()["cameras"]) == 2


def test_paths_are_told_in_their_order(web: Any) -> None:
    answer = web.get(f"/{TOKEN}/paths")
    assert [name for name, _ in json.loads(answer.get_data(), object_pairs_hook=list)] == ["pan", "dolly"]


def bring_path(visitor: Visitor, *files: tuple[str, bytes]) -> Any:
    data = {"file": [(io.BytesIO(content), name) for name, content in files]}
    return visitor.web.post(f"{visitor.base}/path-files", data=data, content_type="multipart/form-data")


def test_notes_are_said_as_errors_are(web: Any) -> None:
    visitor = Visitor(web)
    path = bring_path(visitor, ("walk.txt", b"1")).get_json()["path_file"]
    body = {"photograph": visitor.answer["photograph"], "path_file": path, "frames": 1}
    assert web.post(f"{visitor.base}/plans", json=body).get_json()["notes"] == ["walk.txt: Frames says how many"]


def test_the_files_of_a_path_are_kept_until_others_come(web: Any) -> None:
    visitor = Visitor(web)
    answers = [bring_path(visitor, ("a/images.bin", b"1"), ("cameras.bin", b"2")).get_json() for _ in range(5)]
    assert [answers[0][name] for name in ("name", "kind", "cameras")] == ["images.bin, cameras.bin", "files", 2]
    for answer, gone in ((answers[0], True), (answers[4], False)):
        body = {"photograph": visitor.answer["photograph"], "path_file": answer["path_file"], "frames": 1}
        planned = web.post(f"{visitor.base}/plans", json=body)
        assert planned.status_code == (400 if gone else 200)
        if gone:
            assert planned.get_json()["error"] == "the file of the path is gone: choose it again"
        else:
            assert planned.get_json()["fov_from"] == "images.bin, cameras.bin"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "0 files: choose one"),
        ([("a.txt", b"")] * 9, "9 files: choose one"),
        ([("a.txt", b""), ("b/a.txt", b"")], "two of the files are called a.txt"),
        ([("walk.txt", b"broken")], "walk.txt: line 1"),
        ([("a.txt", b""), ("walk.txt", b"broken")], "walk.txt: line 1"),
    ],
)
def test_what_is_no_path_is_one_line_and_leaves_nothing(
    web: Any, tmp_path: Path, files: list[tuple[str, bytes]], said: str
) -> None:
    visitor = Visitor(web)
    before = sorted(tmp_path.rglob("*"))
    answer = bring_path(visitor, *files)
    assert (answer.status_code, said in answer.get_json()["error"]) == (400, True)
    assert str(tmp_path) not in answer.get_json()["error"]
    assert sorted(tmp_path.rglob("*")) == before
    assert web.post(f"{visitor.base}/path-files", data=b"no form").status_code == 400


def test_errors_are_said_without_paths_of_the_server(
    web: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    visitor = Visitor(web)
    answer = visitor.bring("my photo.jpg", b"broken")
    assert (answer.status_code, answer.get_json()) == (400, {"error": "my photo.jpg is not a whole image"})
    assert visitor.news(visitor.render(frames=0)) == [{"error": "path.txt: Frames is 0"}]
    assert visitor.news(visitor.render(crash=True)) == [{"error": "this failed, for a reason that the terminal shows"}]
    assert "secret" in caplog.text
    answer = visitor.bring("my photo.jpg", b"crash")
    assert (answer.status_code, answer.get_json()["error"][:11]) == (500, "this failed")


def test_what_is_refused_is_deleted(web: Any, tmp_path: Path) -> None:
    visitor = Visitor(web)
    before = sorted(tmp_path.rglob("*"))
    for content in (b"broken", b"crash"):
        assert visitor.bring("x.html", content).status_code >= 400
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "site",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_change_nothing(web: Any, tmp_path: Path, site: dict[str, str]) -> None:
    visitor = Visitor(web)
    before = sorted(tmp_path.rglob("*"))
    for path in ("visits", "photographs", "path-files", "plans", "results"):
        address = f"/{TOKEN}/visits" if path == "visits" else f"{visitor.base}/{path}"
        assert web.post(address, data=b"{}", headers=site).status_code == 403
    assert web.delete(f"{visitor.base}/results/1", headers=site).status_code == 403
    assert (
        web.get(f"{visitor.base}/files/{visitor.answer['photograph']}/photograph.jpg", headers=site).status_code == 403
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_the_page_itself_may_be_opened_from_anywhere_and_asks_its_own_server(web: Any) -> None:
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    with web.get(f"/{TOKEN}/", headers=opened) as answer:
        assert "<title>" in answer.get_data(as_text=True)
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert web.post(f"/{TOKEN}/visits", headers=own).status_code == 200


def test_nothing_is_there_without_the_word_of_this_run(web: Any) -> None:
    for path in ("/", "/paths", "/visits", "/wrong/", "/wrong/paths", "/static/page.mjs"):
        answer = web.get(path)
        assert answer.status_code == 404
        assert "the terminal shows" in answer.get_json()["error"]


def test_every_answer_is_hardened(web: Any) -> None:
    visitor = Visitor(web)
    file = f"{visitor.base}/files/{visitor.answer['photograph']}/photograph.jpg"
    for path in (f"/{TOKEN}/", f"/{TOKEN}/static/page.mjs", f"/{TOKEN}/paths", file, "/"):
        with web.get(path) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy


def test_the_page_has_no_inline_script_or_style(web: Any) -> None:
    with web.get(f"/{TOKEN}/") as answer:
        html = answer.get_data(as_text=True)
    assert '<script type="module" src="static/page.mjs"></script>' in html
    assert html.count("<script") == 1
    for inline in ("<style", " style=", " onclick", " onload", "javascript:"):
        assert inline not in html


def test_only_pictures_videos_and_paths_are_served(web: Any, tmp_path: Path) -> None:
    visitor = Visitor(web)
    photograph = visitor.answer["photograph"]
    (folder,) = tmp_path.rglob(photograph)
    (tmp_path / "secret.png").write_text("secret")
    for name in ("x.html", "x.svg", "x.txt", "X.PNG", "x.js"):
        (folder / name).write_text("<script>")
    for name in ("original", "x.html", "x.svg", "x.txt", "X.PNG", "x.js", "../secret.png", "..%2f..%2fsecret.png"):
        assert web.get(f"{visitor.base}/files/{photograph}/{name}").status_code == 404
    for folder_name in ("..", "%2e%2e", "."):
        assert web.get(f"{visitor.base}/files/{folder_name}/secret.png").status_code == 404


@pytest.mark.parametrize("name", [None, 7, [], "photograph-9", "../photograph", "."])
def test_a_photograph_that_is_not_there(web: Any, name: object) -> None:
    visitor = Visitor(web)
    for path in ("results", "plans"):
        answer = web.post(f"{visitor.base}/{path}", json={"photograph": name})
        assert (answer.status_code, "drop it on the page again" in answer.get_json()["error"]) == (400, True)


@pytest.mark.parametrize(
    "body", [b"[]", b"", b"7", b"{", b'{"a": NaN}', b"[" * 10**5, b"\xff", b'{"a":' + b"9" * 5000 + b"}"]
)
def test_a_request_of_another_kind_is_one_line(web: Any, body: bytes) -> None:
    visitor = Visitor(web)
    answer = web.post(f"{visitor.base}/results", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, list(answer.get_json())) == (400, ["error"])


@pytest.mark.parametrize(
    "name", ["x" * 5000, "x." + "y" * 5000, "../../x.png", "a/b\\c.png", "\x1b[31m.png", "", ".", "..", "...png"]
)
def test_names_become_no_paths(web: Any, tmp_path: Path, name: str) -> None:
    visitor = Visitor(web, name)
    shown = visitor.answer["name"]
    assert 0 < len(shown) <= 100
    assert shown.isprintable()
    assert not set("/\\") & set(shown)
    assert not shown.startswith(".")
    result = visitor.render()
    visitor.news(result)
    with web.get(f"{visitor.base}/results/{result}/all.zip") as answer:
        (inside,) = zipfile.ZipFile(io.BytesIO(answer.get_data())).namelist()
    assert inside.count("/") == 1
    assert ".." not in inside.split("/")


def test_too_much_is_refused_before_it_is_read(web: Any) -> None:
    visitor = Visitor(web)
    answer = web.post(f"{visitor.base}/photographs", environ_overrides={"CONTENT_LENGTH": str(101 << 20)})
    assert (answer.status_code, "larger than 100 MiB" in answer.get_json()["error"]) == (413, True)
    answer = web.post(f"{visitor.base}/results", environ_overrides={"CONTENT_LENGTH": str(9 << 20)})
    assert answer.status_code == 413


def test_only_names_of_this_machine_are_answered(tmp_path: Path) -> None:
    with client(tmp_path, ["127.0.0.1", "localhost"]) as (web, _):
        for host, status in (("localhost:8000", 200), ("elsewhere.example", 400)):
            assert web.get(f"/{TOKEN}/paths", headers={"Host": host}).status_code == status


def test_a_visitor_who_is_forgotten_is_told(web: Any) -> None:
    assert web.post(f"/{TOKEN}/visits/unknown/results", json={}).status_code == 410
