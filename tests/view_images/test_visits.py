"""What lasts, what waits and what ends: cancelling, two tabs, loading again, restarts, phones, dark, key frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.view_images.driving import (
    click,
    done,
    drop,
    errors,
    fetched,
    message,
    open_photograph,
    photograph,
    set_value,
    site,
    until,
    value,
)

ActionChains = pytest.importorskip("selenium.webdriver").ActionChains


def begin_long_path(page: Any) -> None:
    set_value(page, "name", "pan")
    set_value(page, "frames", 600)
    click(page, "follow")
    until(lambda: "/ " in page.find_element("id", "number").get_property("textContent"))


def busy(page: Any) -> bool:
    return page.find_element("id", "busy").is_displayed()


@pytest.fixture
def second_tab(page: Any, address: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The handles of the page's tab and of another one, with a photograph, which is in front."""
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    open_photograph(page, address, photograph(tmp_path / "other.png", 60, 60))
    second = page.current_window_handle
    yield first, second
    page.switch_to.window(second)
    page.close()
    page.switch_to.window(first)


def test_what_is_being_made_tells_the_time_that_is_left_and_is_cancelled(page: Any) -> None:
    begin_long_path(page)
    until(lambda: page.find_element("id", "left").text.endswith(" left"))
    assert 0 < float(value(page, "progress")) < 1
    click(page, "cancel")
    until(lambda: not busy(page))
    assert message(page) == "Cancelled; what was made is here."
    made = int(page.find_element("id", "frame").get_property("max"))
    assert 0 <= made < 599
    assert page.find_element("id", "zip").is_displayed()
    click(page, "show")  # and one goes on
    until(lambda: done(page))


def test_two_tabs_have_a_photograph_each_and_wait_for_each_other(page: Any, second_tab: tuple[str, str]) -> None:
    first, second = second_tab
    page.switch_to.window(first)
    begin_long_path(page)
    page.switch_to.window(second)
    click(page, "show")
    until(lambda: page.find_element("id", "left").text == "waiting, place 1 in the queue")
    page.switch_to.window(first)
    assert busy(page)
    click(page, "cancel")
    page.switch_to.window(second)
    until(lambda: done(page))
    assert page.execute_script("return document.getElementById('photograph').naturalWidth") == 60
    page.switch_to.window(first)
    assert page.execute_script("return document.getElementById('photograph').naturalWidth") == 90


def test_all_of_it_survives_that_the_page_is_loaded_again(page: Any) -> None:
    set_value(page, "scale", 1.5)
    set_value(page, "pan_deg", 12)
    until(lambda: done(page))
    click(page, "addkey")
    set_value(page, "name", "truck")
    set_value(page, "frames", 3)
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "2")
    picture = page.find_element("id", "png").get_property("href")
    page.refresh()
    until(lambda: done(page))
    assert page.find_element("id", "frame").get_property("max") == "2"
    assert page.find_element("id", "png").get_property("href") == picture
    assert [value(page, name) for name in ("scale", "name", "frames", "pan_deg")] == ["1.5", "truck", "3", "12"]
    assert len(page.find_elements("css selector", "#timeline button")) == 2
    assert page.find_element("id", "keyframes").get_property("open")
    assert page.find_element("id", "zip").is_displayed()


def test_what_is_being_made_goes_on_when_the_page_is_loaded_again(page: Any) -> None:
    begin_long_path(page)
    page.refresh()
    until(lambda: busy(page) and page.find_element("id", "number").text)
    assert float(value(page, "progress")) > 0
    click(page, "cancel")
    until(lambda: message(page).startswith("Cancelled"))


def test_everything_is_reset_together_by_another_photograph(page: Any, tmp_path: Path) -> None:
    set_value(page, "fov", 40)
    set_value(page, "pan_deg", 12)
    click(page, "addkey")
    set_value(page, "name", "truck")
    set_value(page, "frames", 2)
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "1")
    drop(page, photograph(tmp_path / "other.png", 60, 60))
    until(lambda: "other.png" in message(page))
    for name in ("steps", "downloads", "view", "shown", "busy"):
        assert not page.find_element("id", name).is_displayed()
    assert [value(page, name) for name in ("fov", "pan_deg")] == ["", "0"]
    assert not page.find_elements("css selector", "#timeline button")


def test_a_refused_path_leaves_what_was_seen(page: Any) -> None:
    set_value(page, "name", "zoom")
    set_value(page, "frames", 2)
    click(page, "follow")
    until(lambda: done(page))
    set_value(page, "amount", -1)
    click(page, "follow")
    until(lambda: page.find_element("id", "message").get_attribute("class") == "error")
    assert page.find_element("id", "frame").get_property("max") == "1"
    assert page.find_element("id", "steps").is_displayed()
    assert not busy(page)


def test_a_server_that_is_gone_and_one_that_was_started_again(browser: Any, tmp_path: Path) -> None:
    with site(tmp_path / "first", token="first") as address:
        open_photograph(browser, address, photograph(tmp_path / "photo.png"))
        picture = browser.find_element("id", "photograph").get_property("src")
    click(browser, "show")
    until(lambda: "The server does not answer. Is view_images.py still running?" in message(browser))
    port = int(address.split(":")[2].split("/")[0])
    with site(tmp_path / "second", port, token="second") as again:
        assert again != address
        click(browser, "show")
        until(lambda: "open the address that the terminal shows" in message(browser))
        browser.get(again)
        until(lambda: browser.find_elements("css selector", "#name option"))
        until(lambda: browser.find_element("id", "drop").is_displayed())  # nothing of the other run is shown
        fetch = "fetch(arguments[0], {cache: 'no-store'}).then(answer => arguments[1](answer.status))"
        for stale in (picture, picture.replace("/first/", "/second/")):
            assert browser.execute_async_script(fetch, stale) in (404, 410)
    errors(browser)


def test_a_result_that_is_lost_on_the_way_is_said(browser: Any, tmp_path: Path) -> None:
    with site(tmp_path / "first") as address:
        open_photograph(browser, address, photograph(tmp_path / "photo.png"))
        begin_long_path(browser)
    until(lambda: "Cancelled" in message(browser) or "does not answer" in message(browser))
    assert not busy(browser)
    errors(browser)


@pytest.fixture
def phone(page: Any) -> Iterator[Any]:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield page
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_the_view_stays_beside_what_moves_it(phone: Any) -> None:
    phone.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    slider = phone.find_element("id", "forward_slider")
    phone.execute_script("arguments[0].scrollIntoView({block: 'end'})", slider)
    box = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom];"
    stage, control = (phone.execute_script(box, phone.find_element("id", name)) for name in ("stage", "forward_slider"))
    for left, top, right, bottom in (stage, control):
        assert left >= 0
        assert top >= 0
        assert right <= 390
        assert bottom <= 801
    assert control[1] >= stage[3]
    assert phone.execute_script("return document.documentElement.scrollWidth") == 390


WRAPPED = """
return [...document.querySelectorAll("h1, button, summary, a")].filter(element => {
  if (!element.checkVisibility() || element.id === "drop") return false;
  const range = document.createRange();
  range.selectNodeContents(element);
  return new Set([...range.getClientRects()].map(line => Math.round(line.top / 8))).size > 1;
}).map(element => element.outerHTML);
"""


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_no_label_is_broken_into_lines(phone: Any, width: int) -> None:
    set_value(phone, "samples", 2)
    until(lambda: done(phone))
    metrics = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    phone.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert phone.execute_script(WRAPPED) == []
    assert phone.execute_script("return document.documentElement.scrollWidth") == width


CONTRASTS = """
const channel = value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const parse = text => {
  const numbers = text.match(/[\\d.]+/g).map(Number), scale = text.startsWith("color(") ? 1 : 255;
  return {rgb: numbers.slice(0, 3).map(value => value / scale), alpha: numbers[3] ?? 1};
};
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.alpha === 1) return colour.rgb;
  }
  return [1, 1, 1];
};
const hasText = element => element.matches("input[type=number], select")
  || [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
return [...document.querySelectorAll("body *")].filter(element => element.checkVisibility() && !element.disabled
  && hasText(element) && !element.closest("#stage")).map(element => {
    const [a, b] = [parse(getComputedStyle(element).color).rgb, behind(element)].map(luminance).sort((a, b) => b - a);
    return [(a + 0.05) / (b + 0.05), element.outerHTML.slice(0, 60)];
  });
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(page: Any, theme: str, tmp_path: Path) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})
    try:
        paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (theme == "light")
        page.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
        set_value(page, "samples", 2)
        until(lambda: done(page))
        for wrong in (False, True):
            if wrong:
                set_value(page, "fov", 300)
                until(lambda: page.find_element("id", "message").get_attribute("class") == "error")
            found = page.execute_script(CONTRASTS)
            assert len(found) > 40
            assert [entry for entry in found if entry[0] < 4.5] == []
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_key_frames_are_added_moved_tried_and_rendered(page: Any) -> None:
    for name, number in (("pan_deg", 20), ("right", 0.5)):
        set_value(page, name, number)
        click(page, "addkey")
    marks = page.find_elements("css selector", "#timeline button")
    assert [mark.text for mark in marks] == ["1", "2", "3"]  # the photograph's camera is the first
    width = page.find_element("id", "timeline").size["width"]
    ActionChains(page).drag_and_drop_by_offset(marks[1], width // 4, 0).perform()
    assert page.find_elements("css selector", "#timeline button")[1].value_of_css_property("left") != "50%"
    assert value(page, "pan_deg") == "20"  # the camera goes to the key frame that is held
    assert value(page, "right") == "0"
    until(lambda: done(page))
    set_value(page, "keycount", 5)
    click(page, "sketchkeys")
    until(lambda: "what the photograph knows" in message(page))
    click(page, "renderkeys")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "4")
    click(page, "dropkey")
    assert len(page.find_elements("css selector", "#timeline button")) == 2


def test_two_fingers_go_ahead_as_they_part(page: Any) -> None:
    box = page.find_element("id", "stage").rect
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *spans: float) -> None:
        points = [{"x": x + side * span, "y": y, "id": side + 1} for span in spans for side in (-1, 1)]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    try:
        touch("touchStart", 50)
        touch("touchMove", 75)
        touch("touchMove", 100)
        touch("touchEnd")
        until(lambda: done(page))
        assert float(value(page, "forward")) == pytest.approx(3.5 / 2, rel=0.02)
        assert float(value(page, "right")) == pytest.approx(0, abs=0.02)
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_the_lens_of_a_path_lasts_until_another_one(page: Any, tmp_path: Path) -> None:
    """And whoever walks on from a frame of it keeps it: the picture is the one that was announced."""
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    frames = [{"file_path": f"{k}.png", "transform_matrix": pose} for k in range(2)]
    lens = {"w": 100, "h": 100, "fl_x": 100, "fl_y": 100, "cx": 50, "cy": 50}
    (tmp_path / "path.json").write_text(json.dumps({**lens, "frames": frames}))
    page.execute_script("document.getElementById('paths').open = true")
    set_value(page, "name", "from a file")
    page.find_element("id", "pathfile").send_keys(str(tmp_path / "path.json"))
    until(lambda: "path.json: nerfstudio, 2 cameras" in page.find_element("id", "pathfacts").text)
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "1")
    placeholder = "return document.getElementById('fov').placeholder"
    assert page.execute_script(placeholder) == "53.1"
    page.find_element("id", "stage").send_keys("d")
    until(lambda: done(page) and page.find_elements("css selector", "#steps[hidden]"))
    trajectory = json.loads(fetched(page, page.find_element("id", "path").get_property("href")))
    assert trajectory["photograph"]["fov_deg"] == pytest.approx(53.13, abs=0.01)
    set_value(page, "name", "pan")
    set_value(page, "frames", 2)
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "1")
    assert page.execute_script(placeholder) == "58"
