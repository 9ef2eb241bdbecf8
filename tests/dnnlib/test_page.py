"""The page's server, with a stand-in for the networks; tests/test_view_images.py drives the real thing in a browser."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from dnnlib import UserError
from dnnlib.page import Cancelled, Send, Studio, create_app

pytest.importorskip("flask")


def open_photograph(file: Path) -> dict[str, Any]:
    if file.read_bytes() == b"broken":
        raise UserError(f"{file} is not a whole image")
    return {"fov": 58.0}


def render(file: Path, request: dict[str, Any], folder: Path, send: Send) -> None:
    if request.get("frames") == 0:
        raise UserError(f"{folder}/path.txt: 0 frames")
    if "crash" in request:
        raise RuntimeError("secret")
    send({"progress": 0.5})
    (folder / "frame.png").write_bytes(file.read_bytes())
    send({"frame": "frame.png"})


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path, open_photograph, render)


def ask(studio: Studio, **request: object) -> list[dict]:
    client = create_app(studio).test_client()
    photograph = client.post("/photographs?name=my photo.jpg", data=b"pixels").get_json()
    assert photograph == {"photograph": "photograph-0", "fov": 58.0}
    answer = client.post("/renders", json={"photograph": photograph["photograph"], **request})
    return [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]


def test_a_photograph_goes_in_and_news_come_out(studio: Studio) -> None:
    assert ask(studio) == [{"folder": "result-1"}, {"progress": 0.5}, {"frame": "frame.png"}]
    client = create_app(studio).test_client()
    with client.get("/files/result-1/frame.png") as answer:
        assert answer.get_data() == b"pixels"
    with client.get("/") as answer:
        assert "<title>" in answer.get_data(as_text=True)


def test_paths_are_told_in_their_order(studio: Studio) -> None:
    studio.paths = {"pan": {"amount": 15, "unit": "degrees"}, "dolly": {"amount": 1, "unit": "units"}}
    answer = create_app(studio).test_client().get("/paths")
    assert json.loads(answer.get_data(), object_pairs_hook=list)[0][0] == "pan"
    assert answer.get_json() == studio.paths


def test_errors_are_said_without_paths_of_the_server(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    client = create_app(studio).test_client()
    answer = client.post("/photographs?name=my photo.jpg", data=b"broken")
    assert (answer.status_code, answer.get_json()) == (400, {"error": "my photo.jpg is not a whole image"})
    studio.folder.joinpath("photograph-0").rename(studio.folder / "elsewhere")
    studio = Studio(studio.folder, open_photograph, render)
    assert ask(studio, frames=0)[-1] == {"error": "path.txt: 0 frames"}
    studio = Studio(studio.folder / "next", open_photograph, render)
    assert ask(studio, crash=True)[-1] == {"error": "this failed, for a reason that the terminal shows"}
    assert "secret" in caplog.text


@pytest.mark.parametrize("name", [None, "photograph-9", "../photograph-0", "photograph-0/.."])
def test_a_photograph_that_is_not_there(studio: Studio, name: str | None) -> None:
    (event,) = studio.events({"photograph": name})
    assert "drop it on the page again" in event["error"]


def test_files_outside_the_folder_are_not_served(studio: Studio, tmp_path: Path) -> None:
    studio.folder = tmp_path / "inside"
    studio.folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    client = create_app(studio).test_client()
    for name in ("../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt"):
        assert client.get(f"/files/{name}").status_code == 404


def test_only_names_of_this_machine_are_answered(studio: Studio) -> None:
    client = create_app(studio, ["127.0.0.1", "localhost"]).test_client()
    for host, status in (("localhost:8000", 200), ("elsewhere.example", 400)):
        with client.get("/", headers={"Host": host}) as answer:
            assert answer.status_code == status


def test_old_folders_go(studio: Studio) -> None:
    folders = [studio.new_folder("result") for _ in range(20)]
    assert sum(folder.exists() for folder in folders) == 16
    assert folders[-1].exists()


def test_who_leaves_ends_the_work(tmp_path: Path) -> None:
    ended = threading.Event()

    def endless(file: Path, request: dict[str, Any], folder: Path, send: Send) -> None:
        try:
            while True:
                send({"progress": 0})
        except Cancelled:
            ended.set()
            raise

    studio = Studio(tmp_path, open_photograph, endless)
    name = studio.add_photograph("a.png", b"pixels")["photograph"]
    events = studio.events({"photograph": name})
    next(events)
    events.close()
    assert ended.wait(10)
