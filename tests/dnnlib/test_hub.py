"""dnnlib.hub against a server on this machine that speaks as the Hub does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dnnlib import hub as module
from dnnlib.hub import hub_folder, is_hub_name
from dnnlib.util import UserError
from tests.hub_server import COMMIT, Hub, serve
from tests.scripts import run_python

FILES = {"config.json": 100, "weights.safetensors": 1000}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """One repository, with files in its root and in a folder, and one that is not for us."""
    for folder, text in ((".", "root"), ("net", "net")):
        (tmp_path / "hub" / "anna" / "views" / folder).mkdir(parents=True, exist_ok=True)
        for name in (*FILES, "pipeline.py"):
            (tmp_path / "hub" / "anna" / "views" / folder / name).write_text(f"{text} {name}")
    with serve(tmp_path / "hub") as found:
        yield found


@pytest.fixture
def online(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub.use(monkeypatch, tmp_path / "cache")
    return hub


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert all(map(is_hub_name, ("anna/views", "anna/views@v1", f"anna/vi.ew-s_2@{COMMIT}", "anna/views@refs/pr/1")))
    paths = (
        "runs/tiny",
        "anna/net.safetensors",
        "anna/net.pkl",
        "views",
        "a/b/c",
        "/anna/views",
        "../views",
        "./views",
    )
    assert not any(map(is_hub_name, (*paths, "anna/..", "anna/views@", "anna/vi ews", "anna/views\n")))


def test_the_first_folder_that_has_it_is_fetched_once_and_nothing_else(online: Hub) -> None:
    folder = hub_folder("anna/views", ("net", ""), FILES)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: f"net {name}" for name in FILES}
    assert online.fetched == ["net/config.json", "net/weights.safetensors"]
    assert hub_folder("anna/views", ("net", ""), FILES) == folder
    assert len(online.fetched) == 2
    assert (hub_folder("anna/views@v1", ("gnet", ""), FILES) / "config.json").read_text() == "root config.json"
    assert {revision for _, path in online.log if (revision := path.split("/")[4])} == {"main", "v1", COMMIT}


def test_offline_takes_the_cache_and_asks_nobody(online: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = hub_folder("anna/views", ("net", ""), FILES)
    asked = len(online.log)
    online.use(monkeypatch, tmp_path / "cache", offline=True)
    assert hub_folder("anna/views", ("net", ""), FILES) == folder
    with pytest.raises(UserError, match=r"^anna/other is not in the cache of the Hub, and HF_HUB_OFFLINE is set"):
        hub_folder("anna/other", ("net", ""), FILES)
    assert len(online.log) == asked


def test_without_a_connection_the_cache_serves(online: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = hub_folder("anna/views", ("net", ""), FILES)
    online.status = 503
    for url in (online.url, "http://127.0.0.1:9"):  # a server that is broken; nobody there
        online.url = url
        online.use(monkeypatch, tmp_path / "cache")
        assert hub_folder("anna/views", ("net", ""), FILES) == folder
        with pytest.raises(UserError, match=r"^anna/other is no file or folder here, and http\S+ cannot be reached"):
            hub_folder("anna/other", ("net", ""), FILES)


@pytest.mark.parametrize(
    ("name", "folders", "message"),
    [
        ("anna/other", [""], "there is no such file or folder here, and on the Hub no such repository"),
        ("anna/views@v2", [""], "the repository has no such revision"),
        ("anna/views", ["gnet", "more"], "has no config.json and weights.safetensors in gnet/ or more/"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, folders: list[str], message: str, online: Hub) -> None:
    with pytest.raises(UserError, match=message) as caught:
        hub_folder(name, folders, FILES)
    assert "\n" not in str(caught.value)
    assert online.fetched == []


def test_large_files_are_not_fetched(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online.sizes["net/config.json"] = 101
    with pytest.raises(UserError, match=r"net/config\.json has 101 B, and at most 100 B are taken"):
        hub_folder("anna/views", ("net",), FILES)
    assert online.fetched == []
    online.sizes["net/config.json"] = 5  # what comes is longer
    with pytest.raises(UserError, match="anna/views: the Hub's client failed"):
        hub_folder("anna/views", ("net",), FILES)
    monkeypatch.setattr(module, "LEFT_FREE", 1 << 60)
    with pytest.raises(UserError, match="and at most 0 B are taken"):
        hub_folder("anna/views", ("",), FILES)


def test_the_environment_names_hub_and_cache(hub: Hub, tmp_path: Path) -> None:
    code = f"import sys; from dnnlib.hub import hub_folder; print(hub_folder(sys.argv[1], ('net', ''), {FILES}))"
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = run_python("-c", code, "anna/views", **environment)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home"), done.stderr
    done = run_python("-c", code, "anna/other", **environment, HF_HUB_OFFLINE="1")
    assert "UserError: anna/other is not in the cache of the Hub, and HF_HUB_OFFLINE is set" in done.stderr
