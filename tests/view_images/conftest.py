"""One browser and one server for all tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1300,900",
)  # fmt: skip


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    pytest.importorskip("flask")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.set_script_timeout(30)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")  # each test is a visitor, and a server takes 32
def address(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.view_images.driving import site

    with site(tmp_path_factory.mktemp("studio")) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str, tmp_path: Path) -> Any:
    """The page, with a photograph on it."""
    from tests.view_images.driving import errors, open_photograph, photograph

    open_photograph(browser, address, photograph(tmp_path / "photo.png"))
    errors(browser)  # those of earlier tests
    return browser
