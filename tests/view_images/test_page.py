"""The page in a real browser: drop a photograph, look, walk, follow a path, compare, download."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.trajectories import PATHS
from datasets.user_image import read_photograph
from tests.datasets.colmap_models import write_binary_model
from tests.view_images.driving import (
    click,
    done,
    drop,
    errors,
    fetched,
    fresh,
    message,
    photograph,
    set_value,
    shown,
    transform,
    until,
    value,
)
from torch_utils.cameras import Camera
from torch_utils.warping import turned_view

ActionChains = pytest.importorskip("selenium.webdriver").ActionChains
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys


def drag(page: Any, right: int, down: int, shift: bool = False) -> None:
    actions = ActionChains(page)
    if shift:
        actions.key_down(Keys.SHIFT)
    actions.drag_and_drop_by_offset(page.find_element("id", "stage"), right, down)
    if shift:
        actions.key_up(Keys.SHIFT)
    actions.perform()


def follow(page: Any, name: str, frames: int) -> None:
    set_value(page, "name", name)
    set_value(page, "frames", frames)
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == str(frames - 1))


def test_at_first_there_is_nothing_but_a_place_for_the_photograph(browser: Any, address: str) -> None:
    fresh(browser, address)
    seen = [e.get_property("id") for e in browser.find_elements("css selector", "[id]") if e.is_displayed()]
    assert [name for name in seen if name not in ("message", "look", "sight")] == ["drop"]


def test_then_everything_but_the_picture_and_what_moves_it_is_folded(page: Any) -> None:
    assert all(not e.get_property("open") for e in page.find_elements("css selector", "details"))
    assert not page.find_element("id", "downloads").is_displayed()
    assert not page.find_element("id", "fov").is_displayed()
    assert page.find_element("id", "stage").is_displayed()


def test_a_photograph_is_dropped_anywhere_and_needs_no_extension(browser: Any, address: str, tmp_path: Path) -> None:
    fresh(browser, address)
    photograph(tmp_path / "holiday.png").rename(tmp_path / "holiday")
    drop(browser, tmp_path / "holiday", x=1200, y=650)  # beside the area
    until(lambda: "field of view" in message(browser))
    click(browser, "show")
    until(lambda: done(browser))
    assert shown(browser).shape == (16, 16, 3)


def test_the_keyboard_opens_a_photograph(browser: Any, address: str) -> None:
    fresh(browser, address)
    browser.execute_script("window.asked = 0; document.getElementById('file').click = () => window.asked++")
    for _ in range(5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.switch_to.active_element.get_property("id") == "drop":
            break
    for key in (Keys.ENTER, Keys.SPACE):
        ActionChains(browser).send_keys(key).perform()
    assert browser.execute_script("return window.asked") == 2


def test_dragging_turns_the_camera_and_the_picture_follows_the_hand(page: Any) -> None:
    """Across all of it, by the field of view."""
    width = page.find_element("id", "stage").size["width"]
    drag(page, width // 4, 0)
    until(lambda: done(page))
    assert float(value(page, "pan_deg")) == pytest.approx(-58 / 4, abs=0.2)
    assert float(value(page, "tilt_deg")) == 0
    drag(page, 0, width // 4)
    until(lambda: done(page) and float(value(page, "tilt_deg")) > 14)


def test_shift_and_drag_goes_sideways_so_that_the_subject_follows_the_hand(page: Any) -> None:
    width = page.find_element("id", "stage").size["width"]
    drag(page, -width // 4, width // 8, shift=True)
    until(lambda: done(page))
    across = 3.5 * 2 * np.tan(np.radians(58 / 2))  # units, at the subject
    assert float(value(page, "right")) == pytest.approx(across / 4, rel=0.02)
    assert float(value(page, "up")) == pytest.approx(across / 8, rel=0.02)
    assert float(value(page, "pan_deg")) == 0


def test_the_wheel_and_the_keys_walk_in_the_direction_of_looking(page: Any) -> None:
    stage = page.find_element("id", "stage")
    ActionChains(page).scroll_from_origin(_origin(stage), 0, -100).perform()
    until(lambda: done(page))
    assert float(value(page, "forward")) == pytest.approx(0.125, abs=0.01)
    set_value(page, "forward", 0)
    set_value(page, "pan_deg", 90)
    ActionChains(page).move_to_element(stage).click().key_down("w").pause(0.4).key_up("w").perform()
    until(lambda: done(page))
    assert float(value(page, "right")) > 0.1
    assert float(value(page, "forward")) == pytest.approx(0, abs=1e-3)


def _origin(element: Any) -> Any:
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element)


def test_a_draft_is_seen_while_the_camera_moves(page: Any) -> None:
    stage = page.find_element("id", "stage")
    ActionChains(page).click_and_hold(stage).move_by_offset(60, 0).perform()
    until(lambda: page.find_element("id", "badge").text == "draft")
    assert np.allclose(transform(page, "view"), np.eye(3), atol=1e-9)  # it is through the camera of now
    ActionChains(page).move_by_offset(0, 40).release().perform()
    until(lambda: done(page) and not page.find_element("id", "badge").is_displayed())


def test_the_overlay_has_the_camera_of_the_rendered_view(page: Any, tmp_path: Path) -> None:
    """Their homographies agree to 0.1 pixels, and what the browser draws is what the library warps."""
    for name, number in (("pan_deg", 12), ("tilt_deg", -7), ("roll_deg", 9), ("zoom", 1.4)):
        set_value(page, name, number)
    until(lambda: done(page))
    stage = page.find_element("id", "stage").size["width"]
    frame = json.loads(fetched(page, page.find_element("id", "path").get_property("href")))["frames"][0]
    rotation = np.array(frame["transform_matrix"])[:3, :3].T * [[1], [-1], [-1]]  # to OpenCV's axes
    k = np.array([[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1]])
    k = np.diag([stage / frame["w"], stage / frame["h"], 1]) @ k
    focal = 0.5 * stage / np.tan(np.radians(58 / 2))
    source = np.array([[focal, 0, 1.5 * stage / 2], [0, focal, stage / 2], [0, 0, 1]])  # 90x60 pixels
    expected, drawn = k @ rotation @ np.linalg.inv(source), transform(page, "photograph")
    corners = np.array([[x, y, 1] for x in (0.25, 1, 1.25) for y in (0, 0.5, 1)]).T * [[stage], [stage], [1]]
    ours, theirs = drawn @ corners, expected @ corners
    assert np.abs(ours[:2] / ours[2] - theirs[:2] / theirs[2]).max() < 0.1
    assert np.allclose(transform(page, "view"), np.eye(3), atol=1e-6)

    page.execute_script("document.getElementById('view').hidden = true")
    drawn = np.asarray(Image.open(io.BytesIO(page.find_element("id", "stage").screenshot_as_png)).convert("RGB"))
    view = read_photograph(tmp_path / "photo.png").view
    camera = Camera(torch.from_numpy(k), torch.from_numpy(np.c_[rotation, [0, 0, 0]]), stage, stage)
    warped, inside = turned_view(view, camera)
    inside = inside.numpy() & (warped.amax(0) > 0).numpy()
    inside[:8], inside[-8:], inside[:, :8], inside[:, -8:] = False, False, False, False  # round corners, focus ring
    difference = np.abs(drawn[:stage, :stage].astype(int) - warped.permute(1, 2, 0).numpy().astype(int))[inside]
    assert inside.mean() > 0.5
    assert difference.mean() < 3


def test_the_square_is_dragged_in_the_whole_photograph(page: Any, tmp_path: Path) -> None:
    """And what is seen is still the camera of the rendered view, to 0.1 pixels."""
    page.execute_script("document.getElementById('cropping').open = true")
    whole = page.find_element("id", "whole")
    until(lambda: whole.size["width"] > 100)
    width = whole.size["width"]
    ActionChains(page).move_to_element(whole).click_and_hold().move_by_offset(-width // 8, 0).release().perform()
    until(lambda: done(page) and crop_of(page))
    crop = crop_of(page)
    assert crop[0] == pytest.approx(0.375, abs=0.02)
    assert crop[1] == pytest.approx(0.5, abs=0.02)
    set_value(page, "pan_deg", 4)
    until(lambda: done(page))
    frame = json.loads(fetched(page, page.find_element("id", "path").get_property("href")))["frames"][0]
    taken = read_photograph(tmp_path / "photo.png", crop=tuple(crop)).view.camera
    rotation = np.array(frame["transform_matrix"])[:3, :3].T * [[1], [-1], [-1]] @ taken.rotation.numpy().T
    stage = page.find_element("id", "stage").size["width"]
    k = np.array([[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1]])
    k = np.diag([stage / frame["w"], stage / frame["h"], 1]) @ k
    source = np.diag([stage / 60, stage / 60, 1]) @ taken.intrinsics.numpy()
    expected, drawn = k @ rotation @ np.linalg.inv(source), transform(page, "photograph")
    corners = np.array([[x, y, 1] for x in (0.3, 0.6, 0.9) for y in (0.2, 0.5, 0.8)]).T * [[stage], [stage], [1]]
    ours, theirs = drawn @ corners, expected @ corners
    assert np.abs(ours[:2] / ours[2] - theirs[:2] / theirs[2]).max() < 0.1
    whole.send_keys(Keys.ARROW_LEFT * 30)  # no further than there is a square
    until(lambda: done(page) and crop_of(page)[0] < 0.26)
    page.refresh()
    until(lambda: done(page) and crop_of(page)[0] < 0.26)
    click(page, "middle")
    until(lambda: done(page) and crop_of(page) is None)


def crop_of(page: Any) -> list[float] | None:
    """That of the picture which is shown."""
    address = page.find_element("id", "path").get_property("href")
    return json.loads(fetched(page, address))["photograph"]["crop"] if address else None


def test_sliders_and_numbers_move_the_camera(page: Any) -> None:
    set_value(page, "pan_deg", 20)
    until(lambda: done(page))
    first = shown(page)
    assert float(value(page, "pan_deg_slider")) == 20
    set_value(page, "right_slider", 1.5)
    assert float(value(page, "right")) == 1.5
    until(lambda: done(page) and np.abs(shown(page).astype(int) - first).max() > 8)
    click(page, "reset")
    until(lambda: done(page))
    assert float(value(page, "right")) == float(value(page, "pan_deg")) == 0


def test_a_click_without_a_move_renders_nothing_and_another_lens_does(page: Any) -> None:
    click(page, "show")
    until(lambda: done(page))
    before = page.find_element("id", "view").get_property("src")
    ActionChains(page).click(page.find_element("id", "stage")).pause(0.3).perform()
    assert page.find_element("id", "view").get_property("src") == before
    set_value(page, "fov", 40)
    until(lambda: done(page) and page.find_element("id", "view").get_property("src") != before)


def test_paths_are_offered_with_how_far_they_go(page: Any) -> None:
    names = [option.get_property("text") for option in page.find_elements("css selector", "#name option")]
    assert names == [*PATHS, "from a file"]
    set_value(page, "name", "pan")
    click(page, "paths")
    page.execute_script("document.getElementById('paths').open = true")
    assert value(page, "amount") == "15"
    assert "degrees to the right" in page.find_element("id", "unit").text
    assert not page.find_element("id", "convention").is_displayed()


def test_a_path_is_stepped_through_and_downloaded(page: Any, tmp_path: Path) -> None:
    follow(page, "truck", 3)
    assert message(page) == "Done; judged."
    pictures = []
    for k in range(3):
        set_value(page, "frame", k)
        until(lambda k=k: f"frame_{k:06d}" in page.find_element("id", "view").get_property("src"))
        pictures.append(shown(page))
    assert not np.array_equal(pictures[0], pictures[2])
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    for name, file in (
        ("gif", "video.gif"),
        ("path", "trajectory.json"),
        ("mp4", "video.mp4"),
        ("png", "frame_000002.png"),
    ):
        link = page.find_element("id", name)
        if link.is_displayed():  # MP4 is optional
            link.click()
            until((tmp_path / f"photo-{file}").exists, file)
    page.find_element("id", "zip").click()
    until((tmp_path / "photo.zip").exists)
    trajectory = json.loads((tmp_path / "photo-trajectory.json").read_text())
    assert (len(trajectory["frames"]), trajectory["photograph"]["name"]) == (3, "photo.png")
    with Image.open(tmp_path / "photo-video.gif") as video:
        assert video.n_frames == 3
    inside = zipfile.ZipFile(tmp_path / "photo.zip").namelist()
    assert {"photo/frame_000000.png", "photo/trajectory.json", "photo/sheet.png"} <= set(inside)


def test_one_walks_on_from_the_frame_of_a_path_that_is_seen(page: Any) -> None:
    follow(page, "truck", 3)
    assert not page.find_elements("css selector", "#steps[hidden]")
    for _ in range(2):  # and no further
        drag(page, 0, 20)
        until(lambda: done(page))
        assert float(value(page, "right")) == pytest.approx(0.75, abs=0.01)
    assert page.find_elements("css selector", "#steps[hidden]")  # the stepper goes with the path


def test_several_samples_and_their_spread(page: Any) -> None:
    set_value(page, "samples", 2)
    until(lambda: done(page))
    chips = page.find_elements("css selector", "#shown button")
    assert [chip.text for chip in chips] == ["Sample 1", "Sample 2", "Spread"]
    names = []
    for chip in chips:
        chip.click()
        until(
            lambda: (
                page.find_element("id", "png").get_property("href")
                == page.find_element("id", "view").get_property("src")
            )
        )
        names.append(page.find_element("id", "view").get_property("src").rsplit("/")[-1])
    assert names == ["frame_000000.png", "frame_000000_seed1.png", "spread_000000.png"]


def test_the_photograph_is_compared_with_the_view(page: Any) -> None:
    set_value(page, "pan_deg", 20)
    until(lambda: done(page))
    assert not page.find_element("id", "original").is_displayed()
    set_value(page, "compare", 50)
    picture = np.asarray(Image.open(io.BytesIO(page.find_element("id", "stage").screenshot_as_png)).convert("RGB"))
    side = picture.shape[1]
    row, left = picture[side // 2], side // 4
    assert row[left, 0] == pytest.approx((0.25 / 1.5 + 1 / 6) * 255, abs=4)  # the photograph's red grows to the right
    view = np.asarray(Image.fromarray(shown(page)).resize((side, side), Image.Resampling.BILINEAR))
    right = np.s_[8:-8, side // 2 + 8 : -8]
    assert np.abs(view[right].astype(int) - picture[:side][right].astype(int)).mean() < 20


def test_the_file_of_a_path(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    file.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 -.5 0 1 0 0 0 0 1 0\n")
    set_value(page, "name", "from a file")
    click(page, "follow")
    until(lambda: "Choose the file of a path first" in message(page))
    page.execute_script("document.getElementById('paths').open = true")
    page.find_element("id", "pathfile").send_keys(str(file))
    until(lambda: "poses.txt: matrices, 2 cameras" in page.find_element("id", "pathfacts").text)
    assert "Say what the matrices are" in message(page)
    click(page, "follow")
    until(lambda: "do not tell what they are" in message(page))
    assert "--" not in message(page)
    assert "poses.txt" in message(page)
    assert "Axes" in message(page)
    set_value(page, "convention", "opencv")
    set_value(page, "pose", "w2c")
    click(page, "follow")
    until(lambda: done(page))
    assert page.find_element("id", "frame").get_property("max") == "1"


def test_the_two_files_of_a_model_of_colmap_are_dropped_together(page: Any, tmp_path: Path) -> None:
    folder = write_binary_model(tmp_path / "model", "PINHOLE 90 60 80 80 45 30", ["a.png", "b.png", "c.png"], step=-0.1)
    drop(page, folder / "images.bin", folder / "cameras.bin")
    until(lambda: "COLMAP, 3 cameras" in page.find_element("id", "pathfacts").text)
    assert not page.find_element("id", "convention").is_displayed()
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "2")
    page.refresh()
    until(lambda: "COLMAP, 3 cameras" in page.find_element("id", "pathfacts").text)
    set_value(page, "frames", 2)
    click(page, "follow")
    until(lambda: done(page) and page.find_element("id", "frame").get_property("max") == "1")
    drop(page, folder / "images.bin")
    until(lambda: "images.bin: half of a model of COLMAP" in message(page))


def test_what_is_wrong_is_said_in_words_of_the_page(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("hello")
    drop(page, tmp_path / "notes.jpg")
    until(lambda: "notes.jpg is not a whole image" in message(page))
    set_value(page, "fov", 300)
    until(lambda: "The field of view is 300 degrees" in message(page))
    assert page.find_element("id", "message").get_attribute("class") == "error"
    set_value(page, "fov", "")
    until(lambda: done(page))
    assert errors(page) == []


def test_the_page_loads_nothing_from_elsewhere_and_breaks_no_rule_of_its_own(page: Any, address: str) -> None:
    names = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert all(name.startswith((address, "data:")) for name in names)
    assert errors(page) == []  # a breach of the content security policy is one
