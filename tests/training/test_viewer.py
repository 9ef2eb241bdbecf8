"""What the page asks for, and what may stand in its requests."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.trajectories import Move, named_path
from datasets.trajectory_files import write_trajectory
from datasets.user_image import Photograph, read_photograph
from dnnlib import UserError, imaging
from dnnlib.page import Made, NewFrame, Opened, OpenedPath, Plan, Progress, Studio, Upload
from dnnlib.page.studio import Visit
from metrics.neighbours import NeighbourReport
from tests.datasets.colmap_models import write_binary_model, write_text_model
from tests.golden import tiny_network
from torch_utils.cameras import Camera
from training import viewer
from training.generation import NovelViewSampler
from training.sampling_config import SamplingConfig
from training.viewer import PageRenderer


@pytest.fixture(scope="module")
def sampler() -> NovelViewSampler:
    return NovelViewSampler(tiny_network(), config=SamplingConfig(num_steps=2))


@pytest.fixture
def renderer(sampler: NovelViewSampler) -> PageRenderer:
    return PageRenderer(sampler, NeighbourReport)


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "original")
    return Upload("my photo.png", tmp_path / "original")


def render(renderer: PageRenderer, upload: Upload, folder: Path, **request: Any) -> tuple[list, Made]:
    folder.mkdir(exist_ok=True)
    news: list[Progress | NewFrame] = []
    return news, renderer.render(upload, None, request, folder, news.append)


def planned(renderer: PageRenderer, upload: Upload, request: Mapping[str, Any], path: Upload | None = None) -> Plan:
    """As the page is answered, in its words; what is brought has the number 1."""
    visit = Visit(upload.file.parent)
    visit.photographs["1"] = upload, Opened(30, 20, 58.0, "default")
    if path is not None:
        visit.path_files["1"] = path, OpenedPath("", 1, False)
    return Studio(visit.folder, renderer).plan(visit, {"photograph": "1", **request})


def plan(renderer: PageRenderer, upload: Upload, request: Mapping[str, Any], path: Upload | None = None) -> list:
    return planned(renderer, upload, request, path).cameras


def test_opening_tells_lens_and_size_and_leaves_a_picture_to_show(renderer: PageRenderer, upload: Upload) -> None:
    assert renderer.open(upload) == Opened(30, 20, 58.0, "default")
    with Image.open(upload.file.with_name("photograph.jpg")) as image:
        assert (image.format, image.size) == ("JPEG", (30, 20))


def test_what_is_no_photograph_is_said_by_the_name_that_the_visitor_knows(
    renderer: PageRenderer, upload: Upload
) -> None:
    Image.new("RGB", (1, 48)).save(upload.file, "PNG")
    studio, visit = Studio(upload.file.parent, renderer), Visit(upload.file.parent)
    with pytest.raises(UserError, match=r"^thin\.png is 1x48 pixels"):
        studio.add_photograph(visit, "thin.png", io.BytesIO(upload.file.read_bytes()))


def test_too_many_pixels_are_refused_before_they_are_decoded(
    renderer: PageRenderer, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imaging, "MOST_PIXELS", 599)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(UserError, match="too many pixels"):
        renderer.open(upload)


def test_one_photograph_is_decoded_at_a_time(
    renderer: PageRenderer, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = [], 0

    def read(file: Path, fov_deg: float | None, name: str) -> Photograph:
        nonlocal most
        at_once.append(file)
        most = max(most, len(at_once))
        time.sleep(0.02)
        at_once.pop()
        return read_photograph(file, fov_deg)

    monkeypatch.setattr(renderer, "_read", read)
    threads = [threading.Thread(target=renderer.open, args=(upload,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_draft_has_the_camera_of_the_picture_it_announces(
    renderer: PageRenderer, upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras: list[Camera] = []
    make = NovelViewSampler.__call__

    def watch(
        self: NovelViewSampler, sources: Any, targets: Any, seeds: Any, conditioning_image: Any = None
    ) -> torch.Tensor:
        cameras.extend(targets)
        return make(self, sources, targets, seeds, conditioning_image)

    monkeypatch.setattr(NovelViewSampler, "__call__", watch)
    wish = {"move": {"pan_deg": 7, "forward": 0.5, "zoom": 1.2}, "fov": 50, "scene_scale": 2}
    assert render(renderer, upload, tmp_path / "draft", **wish, preview=True) == (
        [NewFrame("frame_000000.png")],
        Made(),
    )
    render(renderer, upload, tmp_path / "view", **wish)
    draft, view = cameras
    assert torch.equal(draft.intrinsics, view.intrinsics)
    assert torch.equal(draft.extrinsics, view.extrinsics)
    (camera,) = plan(renderer, upload, wish)
    square = view.crop_center()
    assert camera[:4] == pytest.approx((square.focal_and_center / square.width).tolist())
    assert camera[4:] == pytest.approx(view.extrinsics.flatten().tolist())


def test_key_frames_are_a_path_of_moves(renderer: PageRenderer, upload: Upload) -> None:
    keys = [{"time": 0}, {"time": 1, "pan_deg": 20, "right": 0.5}]
    cameras = plan(renderer, upload, {"keys": keys, "frames": 3})
    for key, camera in zip(keys, cameras[::2], strict=True):
        move = {name: value for name, value in key.items() if name != "time"}
        assert camera == pytest.approx(plan(renderer, upload, {"move": move})[0])


def test_a_draft_takes_the_base_network_alone(sampler: NovelViewSampler) -> None:
    net = tiny_network()
    guided = NovelViewSampler(net, gnet=net, config=SamplingConfig(guidance=2.0))
    draft = viewer.draft_sampler(guided)
    assert draft.evaluations == {"net": 3}
    assert viewer.draft_sampler(sampler).evaluations == {"net": 2}


def test_samples_and_their_spread_are_told_with_each_frame(
    renderer: PageRenderer, upload: Upload, tmp_path: Path
) -> None:
    news, end = render(renderer, upload, tmp_path / "path", path="pan", frames=2, samples=2, seed=5)
    frames = [event for event in news if isinstance(event, NewFrame)]
    assert frames[1] == NewFrame("frame_000001.png", ["frame_000001_seed6.png"], "spread_000001.png")
    assert [event.progress for event in news if isinstance(event, Progress)][-1] == 1
    assert "trajectory.json" in end.files
    assert "too few matches to tell whether they fit" in end.report
    assert json.loads((tmp_path / "path" / "trajectory.json").read_text())["photograph"]["name"] == "my photo.png"


POSES = "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 -.5 0 1 0 0 0 0 1 0\n"


@pytest.fixture
def poses(tmp_path: Path) -> Upload:
    file = tmp_path / "poses.txt"
    file.write_text(POSES)
    return Upload("poses.txt", file)


def test_a_file_of_matrices_needs_their_convention(renderer: PageRenderer, upload: Upload, poses: Upload) -> None:
    wish = {"path_file": "1", "convention": "opencv", "pose": "w2c"}
    assert renderer.open_path(poses) == OpenedPath("matrices", 2, True)
    assert len(plan(renderer, upload, wish, poses)) == 2
    assert len(plan(renderer, upload, {**wish, "frames": 1}, poses)) == 1
    with pytest.raises(UserError, match=r"poses.txt: .* Axes opencv .* Matrices are c2w"):
        plan(renderer, upload, {"path_file": "1"}, poses)


def test_what_is_left_out_of_a_file_is_told_in_words_of_the_page(
    renderer: PageRenderer, upload: Upload, tmp_path: Path
) -> None:
    write_text_model(tmp_path, "RADIAL 30 20 25 12 10 0.1 0", "1 1 0 0 0 0 0 0 1 a.png\n\n")
    notes = planned(renderer, upload, {"path_file": "1", "fov": 50}, Upload("model", tmp_path)).notes
    assert notes[0].startswith("lens distortion is left out (RADIAL")
    assert notes[1] == "the principal point is off the middle, which is left out: the lens is told by Field of view"


@pytest.mark.parametrize("form", ["keys.json", "binary", "text", "zip", "poses.npy", "transforms.json"])
def test_the_page_reads_what_the_command_line_reads(
    form: str, renderer: PageRenderer, upload: Upload, tmp_path: Path
) -> None:
    """And with the same cameras: each of these goes half a unit to the right."""
    file, wish = tmp_path / form, {"path_file": "1"}
    like = Camera.from_fov(58, 30, 20)
    cameras = named_path("truck", like, 2, 0.5)
    if form == "keys.json":
        file.write_text('{"key_frames": [{"truck": 0.5}]}')
        wish |= {"frames": 2}
    elif form == "poses.npy":
        np.save(file, np.stack([camera.extrinsics.numpy() for camera in cameras]))
        wish |= {"convention": "opencv", "pose": "w2c"}
    elif form == "transforms.json":
        write_trajectory(file, cameras)
    else:
        file.mkdir()
        write_trajectory(file, cameras, "colmap")
        if form == "binary":
            write_binary_model(file, "PINHOLE 30 20 18 18 15 10", ["a.png", "b.png"], step=-0.5)
        if form == "zip":
            shutil.make_archive(str(tmp_path / "model"), "zip", file)
            file = tmp_path / "model.zip"
    path = Upload(form, file)
    assert renderer.open_path(path).cameras == 2  # with the photograph's own
    first, last = plan(renderer, upload, wish, path)
    assert [last[7] - first[7], last[11], last[15]] == pytest.approx([-0.5, 0, 0], abs=1e-6)


def test_moves_begin_with_the_camera_that_is_turned_to_the_crop(
    renderer: PageRenderer, upload: Upload, tmp_path: Path
) -> None:
    photograph = read_photograph(upload.file, 50, (0.4, 0.5))
    planned = renderer.plan(upload, None, {"move": {}, "fov": 50, "crop": [0.4, 0.5]})
    assert planned.cameras[0][:4] == pytest.approx(
        (photograph.start.focal_and_center / photograph.start.width).tolist()
    )
    assert planned.cameras[0][4:] == pytest.approx(np.eye(3, 4).flatten().tolist())
    assert planned.center == [0.5, 0.5]
    middle = {"move": {}, "fov": 50, "center": [0.4, 0.5]}  # as the file of a path told it
    assert renderer.plan(upload, None, middle).center == pytest.approx([0.4, 0.5])
    _, _ = render(renderer, upload, tmp_path / "view", move={}, fov=50, crop=[0.4, 0.5])
    document = json.loads((tmp_path / "view" / "trajectory.json").read_text())
    assert document["photograph"]["crop"] == [0.4, 0.5]


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"move": {}, "path": "pan"},
        {"move": []},
        {"move": {"pan_deg": "7"}},
        {"move": {"pan_deg": 1e999}},
        {"move": {"pan_deg": 10**400}},
        {"move": {"forward": True}},
        {"move": {"zoom": 0}},
        {"path": "pan", "frames": 0},
        {"path": "pan", "frames": 601},
        {"path": "pan", "frames": 1.5},
        {"path": "zoom", "amount": -1},
        {"path": "/etc/passwd"},
        {"path": ["pan"]},
        {"path": "pan", "fov": 300},
        {"path": "pan", "scene_scale": -1},
        {"keys": []},
        {"keys": [{"time": 0}]},
        {"keys": [{"time": 0}, {"time": 0}]},
        {"keys": [{"time": 0}, 7]},
        {"keys": {"time": 0}},
        {"keys": [{"time": 0}, {"time": 1, "zoom": -1}]},
        {"keys": [{"time": 0}, {"time": 1}], "frames": 1},
        {"file": "/etc/passwd"},
        {"path_file": None},
        {"path_file": "1", "convention": "banana", "pose": "w2c"},
        {"path_file": "1", "convention": ["opencv"], "pose": "w2c"},
        {"path_file": "1", "path": "pan"},
        {"path_file": "1", "frames": 601},
        {"move": {}, "crop": [0, 0.5]},
        {"move": {}, "crop": [0.5]},
        {"move": {}, "crop": "0.5,0.5"},
        {"move": {}, "crop": [0.5, 2]},
        {"move": {}, "crop": [None, 0.5]},
        {"move": {}, "center": [0, 0]},
    ],
)
def test_what_cannot_be_meant_is_one_line_without_flags_and_files_of_the_server(
    renderer: PageRenderer, upload: Upload, poses: Upload, tmp_path: Path, wish: dict
) -> None:
    with pytest.raises(UserError) as caught:
        plan(renderer, upload, wish, poses)
    text = str(caught.value)
    assert "--" not in text
    assert "`" not in text
    assert str(tmp_path) not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "wish", [{"seed": -1}, {"seed": 2**60}, {"samples": 9}, {"condition": "banana"}, {"condition": []}, {"samples": 0}]
)
def test_how_to_render_is_checked_too(renderer: PageRenderer, upload: Upload, tmp_path: Path, wish: dict) -> None:
    with pytest.raises(UserError):
        render(renderer, upload, tmp_path / "view", move={}, **wish)


def test_a_photograph_that_went_is_said_to_be_gone(renderer: PageRenderer, upload: Upload) -> None:
    shutil.rmtree(upload.file.parent)
    with pytest.raises((UserError, FileNotFoundError)):
        renderer.plan(upload, None, {"move": vars(Move())})
