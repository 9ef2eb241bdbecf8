"""The page in a real browser: drop a photograph, move, see another picture, follow a path, download."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import view_images
from datasets.trajectories import PATHS
from dnnlib.page import create_app
from tests.golden import fill
from training.generation import NovelViewSampler
from training.model_io import save_network
from training.precond import NVPrecond
from training.sampling_config import SamplingConfig

webdriver = pytest.importorskip("selenium.webdriver")
serving = pytest.importorskip("werkzeug.serving")
ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[8], channels_per_head=8)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1300,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    torch.manual_seed(0)
    sampler = NovelViewSampler(fill(NVPrecond(16, **SMALL)), config=SamplingConfig(num_steps=2))
    app = create_app(view_images.studio(sampler, tmp_path_factory.mktemp("studio")), ["127.0.0.1"])
    server = serving.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the page does not get there"
        time.sleep(0.05)


def drop(browser: object, file: Path) -> None:
    """A real drag of a file from outside onto the page."""
    where = browser.find_element("id", "drop").rect
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        point = {"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "data": data, **point})


def shown(browser: object) -> np.ndarray:
    """The pixels of the view, as the page has them."""
    script = """const image = document.getElementById("view"), done = arguments[0];
      fetch(image.src).then(r => r.arrayBuffer()).then(b => done(Array.from(new Uint8Array(b))));"""
    return np.asarray(Image.open(io.BytesIO(bytes(browser.execute_async_script(script)))))


def message(browser: object) -> str:
    return browser.find_element("id", "message").text


def set_value(browser: object, name: str, value: object) -> None:
    """As typing does, without starting to render."""
    browser.execute_script("setAxis(...arguments)", name, value)


@pytest.fixture
def page(browser: object, address: str, tmp_path: Path) -> object:
    """The page, with a photograph on it."""
    y, x = np.mgrid[:60, :90]
    pixels = np.stack([x * 2.5, y * 4, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    browser.get(address)
    drop(browser, tmp_path / "photo.png")
    until(lambda: "Drag in the picture" in message(browser))
    return browser


def test_drop_move_look_and_download(page: object, tmp_path: Path) -> None:
    assert page.find_element("id", "photograph").is_displayed()
    page.find_element("id", "show").click()
    until(lambda: message(page).startswith("Done"))
    assert message(page) == "Done."
    first = shown(page)
    assert first.shape == (16, 16, 3)
    set_value(page, "pan_deg", 20)
    page.find_element("id", "show").click()
    until(lambda: message(page).startswith("Done") and np.abs(shown(page).astype(int) - first).max() > 8)

    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.find_element("id", "png").click()
    until((tmp_path / "frame_000000.png").exists)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "frame_000000.png")), shown(page))


def test_the_photograph_itself_is_the_first_view(page: object) -> None:
    square = shown(page)
    assert square.shape[0] == square.shape[1]
    assert square[..., 1].mean() == pytest.approx(118, abs=3)  # green goes from 0 to 236, downwards
    assert not page.find_element("id", "downloads").is_displayed()


def test_paths_are_offered_with_how_far_they_go(page: object) -> None:
    names = [option.text for option in page.find_elements("css selector", "#name option")]
    assert names == [*PATHS, "from a file"]
    page.find_element("xpath", "//option[text()='pan']").click()
    assert page.find_element("id", "amount").get_property("value") == "15"
    assert "degrees to the right" in page.find_element("id", "unit").text
    assert not page.find_element("id", "convention").is_displayed()


def test_dragging_in_the_picture_turns_the_camera(page: object) -> None:
    """The picture follows the hand: across all of it, by the field of view."""
    stage = page.find_element("id", "stage")
    webdriver.ActionChains(page).drag_and_drop_by_offset(stage, stage.size["width"] // 4, 0).perform()
    until(lambda: message(page).startswith("Done"))
    assert float(page.find_element("id", "pan_deg").get_property("value")) == pytest.approx(-58 / 4, abs=0.3)
    assert float(page.find_element("id", "tilt_deg").get_property("value")) == 0


def test_a_path_is_stepped_through_and_downloaded(page: object, tmp_path: Path) -> None:
    page.execute_script("document.getElementById('frames').value = 3")
    page.execute_script("document.getElementById('name').value = 'truck'")
    page.find_element("id", "follow").click()
    until(lambda: message(page).startswith("Done"))
    assert "TSED" in message(page)
    assert float(page.find_element("id", "progress").get_property("value")) == 1
    slider = page.find_element("id", "frame")
    assert slider.get_property("max") == "2"
    pictures = []
    for k in range(3):
        page.execute_script("arguments[0].value = arguments[1]; arguments[0].oninput()", slider, k)
        pictures.append(shown(page))
    assert not np.array_equal(pictures[0], pictures[2])

    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    for name, file in (("gif", "video.gif"), ("path", "trajectory.json"), ("mp4", "video.mp4")):
        link = page.find_element("id", name)
        if link.is_displayed():  # MP4 is optional
            link.click()
            until((tmp_path / file).exists)
    assert len(json.loads((tmp_path / "trajectory.json").read_text())["frames"]) == 3
    with Image.open(tmp_path / "video.gif") as video:
        assert video.n_frames == 3


def test_the_file_of_a_path(page: object, tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    file.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 -.5 0 1 0 0 0 0 1 0\n")
    page.find_element("xpath", "//option[text()='from a file']").click()
    page.find_element("id", "follow").click()
    until(lambda: "Choose the file of a path first" in message(page))
    page.find_element("id", "pathfile").send_keys(str(file))
    page.find_element("id", "follow").click()
    until(lambda: "plain matrices do not tell their convention" in message(page))
    for name, value in (("convention", "opencv"), ("pose", "w2c")):
        page.execute_script("document.getElementById(arguments[0]).value = arguments[1]", name, value)
    page.find_element("id", "follow").click()
    until(lambda: message(page).startswith("Done"))
    assert page.find_element("id", "frame").get_property("max") == "1"


def test_what_is_wrong_is_said(page: object, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("hello")
    drop(page, tmp_path / "notes.jpg")
    until(lambda: "notes.jpg is not a whole image" in message(page))
    page.execute_script("document.getElementById('fov').value = 300")
    page.find_element("id", "show").click()
    until(lambda: "the field of view is 300 degrees" in message(page))
    severe = [
        entry for entry in page.get_log("browser") if entry["level"] == "SEVERE" and "400" not in entry["message"]
    ]
    assert severe == []  # but the answer to what is no image


def test_the_page_loads_nothing_from_elsewhere(page: object, address: str) -> None:
    names = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert all(name.startswith((address, "data:", "blob:")) for name in names)


@pytest.fixture
def network(tmp_path: Path) -> str:
    save_network(tmp_path / "net.safetensors", fill(NVPrecond(16, **SMALL)))
    return str(tmp_path / "net.safetensors")


def test_the_command_line_serves_this_machine_and_says_so_where_it_serves_others(network: str) -> None:
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        command = [sys.executable, "view_images.py", "--net", network, "--host", host, "--port", "0"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            port = int(re.search(r":([0-9]+) in a browser", process.stdout.readline())[1])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                assert b"Look around" in answer.read()
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert ("it asks for no password" in errors) == warned
        assert "Traceback" not in errors


def test_a_port_in_use_is_one_line(network: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(view_images.main, ["--net", network, "--port", port])
    assert result.exit_code == 2
    assert f"Error: cannot listen at 127.0.0.1, port {port}" in result.output
    assert "try --port 0" in result.output
