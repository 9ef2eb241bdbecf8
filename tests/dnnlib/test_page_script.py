"""The page's JavaScript: whole, and free of what its own security policy would refuse."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import dnnlib.page
from datasets.trajectories import Move
from datasets.trajectory_files import PATH_SUFFIXES
from datasets.user_image import Photograph
from dnnlib import UserError
from torch_utils.cameras import Camera, View

STATIC = Path(dnnlib.page.__file__).with_name("static")
MODULES = sorted(STATIC.glob("*.mjs"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_parses_and_does_nothing_that_the_policy_forbids(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= 400
    for word in ("eval(", "new Function", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "var "):
        assert word not in text
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    result = subprocess.run([node, "--check", str(module)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_element_that_is_asked_for_is_on_the_page() -> None:
    html = (STATIC / "page.html").read_text()
    made = set(re.findall(r'\bid="(\w+)"', html))
    asked = {name for module in MODULES for name in re.findall(r'\$\("(\w+)"\)', module.read_text())}
    assert asked <= made | set(vars_of_moves())


def test_the_page_offers_to_choose_every_kind_of_path_file() -> None:
    (offered,) = re.findall(r'id="pathfile"[^>]* accept="([^"]+)"', (STATIC / "page.html").read_text())
    assert offered.split(",") == list(PATH_SUFFIXES)


def vars_of_moves() -> tuple[str, ...]:
    """Their fields are made by the script."""
    return tuple(vars(Move()))


@pytest.mark.parametrize("center", [(0.5, 0.5), (0.42, 0.55)])
@pytest.mark.parametrize("crop", [None, (0.5, 0.5), (0.35, 0.52), (0.5, 0.62), (0.02, 0.5)])
def test_the_square_of_the_script_is_that_of_the_library(
    crop: tuple[float, float] | None, center: tuple[float, float]
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    program = f"""
import {{square}} from "{STATIC.as_uri()}/camera.mjs";
const size = {{width: 600, height: 400}}, lens = {{fov: 50, center: {list(center)}}};
console.log(JSON.stringify(square(size, lens, {json.dumps(crop)})));
"""
    result = subprocess.run([node, "--input-type=module", "-e", program], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    view = View(torch.zeros(3, 400, 600, dtype=torch.uint8), Camera.from_fov(50, 600, 400))
    photograph = Photograph("", view, 50, "given").with_lens(50, "path", [center[0] * 600, center[1] * 400])
    try:
        photograph = photograph.cropped(crop)
    except UserError:
        assert found is None
        return
    start, camera = photograph.start.square(), photograph.view.camera
    span = math.degrees(2 * math.atan(start.width / 2 / float(start.intrinsics[0, 0])))
    assert found["fov"] == pytest.approx(span, abs=0.05)  # of the library's squares, whose sides are whole pixels
    source = found["source"]
    numbers = [source[name] for name in ("fx", "fy", "cx", "cy")]
    assert numbers == pytest.approx((camera.focal_and_center / 400).tolist(), abs=1e-9)
    assert source["rotation"] == pytest.approx(camera.rotation.flatten().tolist(), abs=1e-12)


def test_the_camera_of_the_script_is_that_of_the_library(tmp_path: Path) -> None:
    """moved, moveTo and homography, against cameras of `Move`; in a browser tests/view_images compares again."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    move = {"pan_deg": 21, "tilt_deg": -13, "roll_deg": 8, "right": 0.4, "up": -0.3, "forward": 0.9, "zoom": 1.3}
    program = f"""
import {{START, homography, moved, moveTo}} from "{STATIC.as_uri()}/camera.mjs";
const move = {json.dumps(move)}, start = moved(START, 58, 2), camera = moved(move, 58, 2);
const back = moveTo(camera, 58, 2), matrix = homography(start, camera);
console.log(JSON.stringify([camera.rotation, camera.translation, camera.fx, back, matrix]));
"""
    result = subprocess.run([node, "--input-type=module", "-e", program], capture_output=True, text=True, check=True)
    rotation, translation, focal, back, matrix = json.loads(result.stdout)
    photograph = Camera.from_fov(58, 1, 1)
    camera = Move(**move).camera(photograph, 2)
    close = dict(atol=1e-12, rtol=0)
    assert torch.allclose(torch.tensor(rotation, dtype=torch.float64), camera.rotation.flatten(), **close)
    assert torch.allclose(torch.tensor(translation, dtype=torch.float64) * 3.5, camera.translation, **close)
    assert focal == pytest.approx(float(camera.intrinsics[0, 0]), abs=1e-6)
    assert back == pytest.approx(move)
    pixels = torch.tensor([[0.1, 0.2], [0.9, 0.5], [0.4, 0.8]], dtype=torch.float64)
    points = photograph.unproject(pixels, torch.full((3,), 3.5))
    seen = torch.tensor(matrix, dtype=torch.float64).reshape(3, 3) @ torch.cat([pixels, torch.ones(3, 1)], dim=1).mT
    assert torch.allclose((seen[:2] / seen[2]).mT, camera.project(points)[0], atol=1e-6)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_borders_of_controls_have_the_contrast_of_wcag_aa(theme: int) -> None:
    """Three to one against what is around them; of text a browser is asked in tests/view_images."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", (STATIC / "page.css").read_text())
    colours = {name: both[theme] for name, *both in found}

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for around in ("paper", "panel"):
        low, high = sorted(luminance(colours[name]) for name in ("line", around))
        assert (high + 0.05) / (low + 0.05) >= 3
