"""What the page of view_images.py shows: photographs opened, camera paths planned, views rendered."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args, overload

import torch
from PIL import Image

from datasets.camera_files.poses import Axes, Direction
from datasets.key_frames import KeyFrame, key_frame_path
from datasets.path_config import ViewPath
from datasets.path_plans import plan_path
from datasets.trajectories import PATHS, Move, unit_of_paths
from datasets.user_image import Photograph, read_photograph
from dnnlib.imaging import save_png
from dnnlib.util import UserError
from torch_utils.cameras import Camera
from training.generation import NovelViewSampler
from training.path_config import RenderConfig
from training.trajectory import PathFolder, PathRenderer, Report, evaluations, watch_evaluations

if TYPE_CHECKING:
    from dnnlib.page import Send, Upload

_MOST_FRAMES, _MOST_SAMPLES = 600, 8
_DRAFT_STEPS = 3
_LARGEST_NUMBER = 2**53  # that a browser counts exactly
_DOWNLOADS = ("video.mp4", "video.gif", "trajectory.json")
_PATH_SUFFIXES = (".txt", ".json")
_CONVENTIONS = {"convention": get_args(Axes), "pose": get_args(Direction)}
_READ_PHOTOGRAPHS = 8  # that are kept in memory, some 5 MB each
_UNKNOWN = "this is no request that the page sends: load it again"
_MOVES = tuple(vars(Move()))
# What messages of the library and of the command line call by their own names.
_LABELS = {
    "amount": "Amount",
    "convention": "Axes",
    "axes": "Axes",
    "pose": "Matrices are",
    "direction": "Matrices are",
    "fov": "Field of view",
    "fov_deg": "Field of view",
    "frames": "Frames",
    "scene-scale": "Scene scale",
    "scene_scale": "Scene scale",
    "trajectory": "Path",
}


class PageRenderer:
    """The `Renderer` of the page: requests are JSON objects from a browser, and nothing in them is believed.

    A request has `photograph`; `fov`, `scene_scale`, `seed`, `samples`, `condition`, which may be left out; and one of
    `move`, the fields of a `Move`; `path`, a name in `PATHS`, with `frames` and `amount`; `file`, of a path, with
    `text`, `convention` and `pose`; `keys`, moves with a `time` each, and `frames`. `preview` asks for a draft of a
    move at once: by the base network alone, unguided, in three steps, through the very camera of the picture that is
    rendered without it.
    """

    paths: Mapping[str, Mapping[str, Any]] = {
        name: {"amount": path.amount, "unit": path.unit} for name, path in PATHS.items()
    }

    def __init__(self, sampler: NovelViewSampler, report: Callable[[], Report]) -> None:
        """`report` makes what judges the frames of a path."""
        self._sampler, self._draft, self._report = sampler, draft_sampler(sampler), report
        self._depth = sampler.net.typical_depth
        self._unit = unit_of_paths(self._depth)
        self._reading = threading.Lock()  # a large photograph takes a gigabyte while it is decoded: one at a time
        self._read = lru_cache(_READ_PHOTOGRAPHS)(read_photograph)

    def open(self, upload: Upload) -> dict[str, Any]:
        """Writes `photograph.jpg`, upright and of the size that is worked with."""
        photograph = self._photograph(upload, None)
        pixels = photograph.view.image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(upload.file.with_name("photograph.jpg"), quality=92)
        return {
            "fov": round(photograph.fov_deg, 3),
            "fov_from": photograph.fov_from,
            "width": photograph.view.camera.width,
            "height": photograph.view.camera.height,
        }

    def plan(self, upload: Upload, request: Mapping[str, Any]) -> dict[str, Any]:
        """The cameras of a request: `fov`, that of the photograph, and what `_numbers` tells of each."""
        photograph, cameras = self._cameras(upload, request)
        return {"fov": photograph.fov_deg, "fov_from": photograph.fov_from, "cameras": self._numbers(cameras)}

    def render(self, upload: Upload, request: Mapping[str, Any], folder: Path, send: Send) -> dict[str, Any]:
        photograph, cameras = self._cameras(upload, request)
        preview = bool(request.get("preview"))
        sampler = self._draft if preview else self._sampler
        seed = _whole(request, "seed", 0, _LARGEST_NUMBER, 0)
        seeds = range(seed, seed + (1 if preview else _whole(request, "samples", 1, _MOST_SAMPLES, 1)))
        config = RenderConfig.of({}, condition=str(request.get("condition", "first")))
        renderer = PathRenderer(sampler, ViewPath(photograph, cameras), config, list(seeds), batch_size=1)
        if preview and len(cameras) == 1:
            (images,) = renderer
            save_png(folder / "frame_000000.png", images[0].permute(1, 2, 0).numpy())
            send({"frame": "frame_000000.png"})
            return {}

        report, done, total = self._report(), 0, evaluations(renderer)

        def tick() -> None:
            nonlocal done
            done += 1
            send({"progress": min(done / total, 1)})

        with watch_evaluations(sampler, tick):
            for number, frame in enumerate(PathFolder(folder).write(renderer, [report])):
                send({"frame": frame.name, **_beside(folder, number)})
        files = [name for name in _DOWNLOADS if (folder / name).exists()]
        return {"report": str(report) if len(cameras) > 1 else "", "files": files}

    def _photograph(self, upload: Upload, fov_deg: float | None) -> Photograph:
        with self._reading:
            return replace(self._read(upload.file, fov_deg), name=upload.name)

    def _cameras(self, upload: Upload, request: Mapping[str, Any]) -> tuple[Photograph, list[Camera]]:
        """The photograph as the request's lens takes it, and the cameras of the request."""
        photograph = self._photograph(upload, _number(request, "fov", None))
        scale = _number(request, "scene_scale", 1.0)
        kinds = [kind for kind in ("move", "path", "file", "keys") if kind in request]
        if len(kinds) != 1:
            raise UserError(_UNKNOWN)
        wish = request[kinds[0]]
        if kinds == ["path"]:
            if not (isinstance(wish, str) and wish in PATHS):
                raise UserError(f"there is no such path: choose {', '.join(PATHS)}, or the file of one")
            frames, amount = _whole(request, "frames", 1, _MOST_FRAMES, 12), _number(request, "amount", None)
            return plan_path(photograph, wish, frames, amount, scale, typical_depth=self._depth)
        if kinds == ["keys"]:
            keys = [KeyFrame(_number(key, "time", 0.0), _move(key)) for key in _mappings(wish)]
            frames = _whole(request, "frames", 2, _MOST_FRAMES, 24)
            return photograph, key_frame_path(keys, photograph.view.camera, frames, scale * self._unit)
        (wish,) = _mappings([wish])
        if kinds == ["move"]:
            return photograph, [_move(wish).camera(photograph.view.camera, scale * self._unit)]
        return self._file_cameras(upload, photograph, wish, _whole(request, "frames", 1, _MOST_FRAMES, None), scale)

    def _file_cameras(
        self, upload: Upload, photograph: Photograph, wish: Mapping[str, Any], frames: int | None, scale: float
    ) -> tuple[Photograph, list[Camera]]:
        name, text = (str(wish.get(key, "")) for key in ("name", "text"))
        suffix = Path(name).suffix.lower()
        if suffix not in _PATH_SUFFIXES:
            raise UserError(f"the file of a path ends in {' or '.join(_PATH_SUFFIXES)} here")
        convention: list[Any] = [_choice(wish, key, choices) for key, choices in _CONVENTIONS.items()]
        with TemporaryDirectory(dir=upload.file.parent) as folder:
            path = Path(folder) / f"path{suffix}"
            path.write_text(text, encoding="utf-8", errors="replace")
            try:
                photograph, cameras = plan_path(photograph, str(path), frames, None, scale, *convention)
            except RecursionError:
                raise UserError(f"{Path(name).name} is nested too deeply to be a path") from None
            except UserError as error:
                raise UserError(_in_words_of_the_page(str(error).replace(str(path), Path(name).name))) from None
        if len(cameras) > _MOST_FRAMES:
            raise UserError(f"the path has {len(cameras)} frames: set Frames to {_MOST_FRAMES} or fewer")
        return photograph, cameras

    def _numbers(self, cameras: list[Camera]) -> list[list[float]]:
        """Of each camera (fx, fy, cx, cy), its square's side being 1, and world-to-camera [3, 4] in units of moves."""
        numbers = []
        for camera in cameras:
            square = camera.crop_center()
            pose = torch.cat([square.rotation, square.translation[:, None] / self._unit], dim=1)
            numbers.append([*(square.focal_and_center / square.width).tolist(), *pose.flatten().tolist()])
        return numbers


def draft_sampler(sampler: NovelViewSampler) -> NovelViewSampler:
    """The base network alone, unguided, in a few steps of first order."""
    unguided: dict[str, Any] = {"guidance": 1.0, "guidance_interval": None}
    steps = min(sampler.config.num_steps, _DRAFT_STEPS)
    config = replace(sampler.config, num_steps=steps, solver="euler", S_churn=0.0, **unguided)
    return replace(sampler, gnet=None, sr_model=None, config=config)


def _beside(folder: Path, number: int) -> dict[str, Any]:
    """The other samples of a frame, and their spread."""
    samples = sorted(folder.glob(f"frame_{number:06d}_seed*.png"), key=lambda file: int(file.stem.rsplit("seed")[-1]))
    spread = folder / f"spread_{number:06d}.png"
    return {"samples": [file.name for file in samples], "spread": spread.name} if samples else {}


def _mappings(values: object) -> list[Mapping[str, Any]]:
    if not (isinstance(values, list) and all(isinstance(value, Mapping) for value in values)):
        raise UserError(_UNKNOWN)
    return values


def _move(values: Mapping[str, Any]) -> Move:
    return Move(**{name: _number(values, name, getattr(Move(), name)) for name in _MOVES})


@overload
def _number(values: Mapping[str, Any], name: str, default: float) -> float: ...
@overload
def _number(values: Mapping[str, Any], name: str, default: None) -> float | None: ...
def _number(values: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise UserError(f"{_label(name)} is no number that could be meant")
    return float(value)


@overload
def _whole(values: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int: ...
@overload
def _whole(values: Mapping[str, Any], name: str, low: int, high: int, default: None) -> int | None: ...
def _whole(values: Mapping[str, Any], name: str, low: int, high: int, default: int | None) -> int | None:
    value = _number(values, name, default)
    if value is not None and not (value == int(value) and low <= value <= high):
        raise UserError(f"{_label(name)} is {value:g}: give a whole number from {low} to {high}")
    return None if value is None else int(value)


def _choice(values: Mapping[str, Any], name: str, choices: Sequence[str]) -> str | None:
    value = values.get(name) or None
    if value is not None and value not in choices:
        raise UserError(f"{_label(name)} can be {' or '.join(choices)}, or as the file says")
    return value


def _label(name: str) -> str:
    return _LABELS.get(name, name.removesuffix("_deg").capitalize())


def _in_words_of_the_page(text: str) -> str:
    """A message with the page's labels for options and parameters."""
    return re.sub(r"--([a-z][a-z-]+)|`([a-z_]+)`", lambda match: _label(match[1] or match[2]), text)
