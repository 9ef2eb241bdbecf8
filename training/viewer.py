"""What the page of view_images.py shows: photographs opened, camera paths planned, views rendered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from PIL import Image

from datasets.key_frames import key_frame_path
from datasets.path_config import ViewPath
from datasets.path_plans import PathPlan, describe_file, plan_path
from datasets.trajectories import PATHS, Move, unit_of_paths
from datasets.user_image import Photograph, read_photograph
from dnnlib.imaging import save_png
from dnnlib.page import Made, NewFrame, OfferedPath, Opened, OpenedPath, Plan, Progress, Upload
from dnnlib.util import UserError, present
from torch_utils.cameras import Camera
from training.generation import NovelViewSampler
from training.page_requests import MOST_FRAMES, FilePath, KeyPath, ViewRequest, in_words_of_the_page
from training.path_config import RenderConfig
from training.trajectory import PathFolder, PathRenderer, Report, evaluations, watch_evaluations

if TYPE_CHECKING:
    from dnnlib.page import Send

_DRAFT_STEPS = 3
_TITLES = {"realestate10k": "RealEstate10K", "camera_path": "nerfstudio viewer", "colmap": "COLMAP"}  # of formats
_DOWNLOADS = ("video.mp4", "video.gif", "trajectory.json")
_READ_PHOTOGRAPHS = 8  # that are kept in memory, some 5 MB each


class PageRenderer:
    """The `Renderer` of the page; requests are those of `ViewRequest`.

    A draft is made by the base network alone, unguided, in three steps, through the very camera of the picture that is
    rendered without `preview`.
    """

    paths: Mapping[str, OfferedPath] = {name: OfferedPath(path.amount, path.unit) for name, path in PATHS.items()}
    in_words_of_the_page = staticmethod(in_words_of_the_page)

    def __init__(self, sampler: NovelViewSampler, report: Callable[[], Report]) -> None:
        """`report` makes what judges the frames of a path."""
        self._sampler, self._draft, self._report = sampler, draft_sampler(sampler), report
        self._depth = sampler.net.typical_depth
        self._unit = unit_of_paths(self._depth)
        self._reading = threading.Lock()  # a large photograph takes a gigabyte while it is decoded: one at a time
        self._read = lru_cache(_READ_PHOTOGRAPHS)(_read)
        self._as_taken = lru_cache(_READ_PHOTOGRAPHS)(_as_taken)

    def open(self, upload: Upload) -> Opened:
        """Writes `photograph.jpg`, upright and of the size that is worked with."""
        photograph = self._photograph(upload, None)
        pixels, camera = rearrange(photograph.view.image, "c h w -> h w c").numpy(), photograph.view.camera
        Image.fromarray(pixels).save(upload.file.with_name("photograph.jpg"), quality=92)
        return Opened(camera.width, camera.height, round(photograph.fov_deg, 3), photograph.fov_from)

    def open_path(self, path: Upload) -> OpenedPath:
        kind, cameras = describe_file(path.file)
        return OpenedPath(_TITLES.get(kind, kind), cameras, kind == "matrices")

    def plan(self, upload: Upload, path: Upload | None, request: Mapping[str, Any]) -> Plan:
        """The cameras of a request, each as `_numbers` tells it."""
        photograph, cameras, notes = self._planned(upload, path, ViewRequest.of(request))
        camera = photograph.view.camera
        center = [float(camera.intrinsics[0, 2]) / camera.width, float(camera.intrinsics[1, 2]) / camera.height]
        return Plan(photograph.fov_deg, photograph.fov_from, center, self._numbers(cameras), notes)

    def render(self, upload: Upload, path: Upload | None, request: Mapping[str, Any], folder: Path, send: Send) -> Made:
        wanted = ViewRequest.of(request)
        photograph, cameras, _ = self._planned(upload, path, wanted)
        sampler = self._draft if wanted.preview else self._sampler
        seeds = range(wanted.seed, wanted.seed + (1 if wanted.preview else wanted.samples))
        config = RenderConfig.of({}, condition=wanted.condition)
        renderer = PathRenderer(sampler, ViewPath(photograph, cameras), config, list(seeds), batch_size=1)
        if wanted.preview and len(cameras) == 1:
            (images,) = renderer
            save_png(folder / "frame_000000.png", rearrange(images[0], "c h w -> h w c").numpy())
            send(NewFrame("frame_000000.png"))
            return Made()

        report, done, total = self._report(), 0, evaluations(renderer)

        def tick() -> None:
            nonlocal done
            done += 1
            send(Progress(min(done / total, 1)))

        with watch_evaluations(sampler, tick):
            for number, frame in enumerate(PathFolder(folder).write(renderer, [report])):
                send(_news_of(frame, number))
        files = [name for name in _DOWNLOADS if (folder / name).exists()]
        return Made(str(report) if len(cameras) > 1 else "", files)

    def _photograph(self, upload: Upload, fov_deg: float | None) -> Photograph:
        with self._reading:
            return self._read(upload.file, fov_deg, upload.name)

    def _planned(self, upload: Upload, path: Upload | None, request: ViewRequest) -> PathPlan:
        """The photograph as the request's lens takes it, and the cameras of the request."""
        photograph = self._as_taken(self._photograph(upload, request.fov_deg), request.center, request.crop)
        start, scale, wish = photograph.start, request.scene_scale, request.wish
        if isinstance(wish, Move):
            return PathPlan(photograph, [wish.camera(start, scale * self._unit)])
        if isinstance(wish, KeyPath):
            return PathPlan(photograph, key_frame_path(wish.keys, start, wish.frames, scale * self._unit))
        if isinstance(wish, FilePath):
            return self._of_file(present(path), photograph, wish, scale)
        return plan_path(photograph, wish.name, wish.frames, wish.amount, scale, typical_depth=self._depth)

    def _of_file(self, path: Upload, photograph: Photograph, wish: FilePath, scale: float) -> PathPlan:
        file, how = str(path.file), (wish.convention, wish.pose)
        plan = plan_path(photograph, file, wish.frames, None, scale, *how, self._depth)
        if len(plan.cameras) > MOST_FRAMES:
            raise UserError(f"the path has {len(plan.cameras)} frames: set Frames to {MOST_FRAMES} or fewer")
        return plan

    def _numbers(self, cameras: list[Camera]) -> list[list[float]]:
        """Return each camera's (fx, fy, cx, cy), for a side of 1, and world-to-camera [3, 4], in units of moves."""
        numbers = []
        for camera in cameras:
            square = camera.square()
            pose = torch.cat([square.rotation, square.translation[:, None] / self._unit], dim=1)
            numbers.append([*(square.focal_and_center / square.width).tolist(), *pose.flatten().tolist()])
        return numbers


def _read(file: Path, fov_deg: float | None, name: str) -> Photograph:
    return replace(read_photograph(file, fov_deg), name=name)


def _as_taken(
    photograph: Photograph, center: tuple[float, float] | None, crop: tuple[float, float] | None
) -> Photograph:
    """The photograph with the principal point that a path's file told, fractions of its sides, and its crop."""
    if center is not None:
        camera = photograph.view.camera
        place = [center[0] * camera.width, center[1] * camera.height]
        photograph = photograph.with_lens(photograph.fov_deg, photograph.fov_from, place)
    return photograph.cropped(crop)


def draft_sampler(sampler: NovelViewSampler) -> NovelViewSampler:
    """The base network alone, unguided, in a few steps of first order."""
    unguided: dict[str, Any] = {"guidance": 1.0, "guidance_interval": None}
    steps = min(sampler.config.num_steps, _DRAFT_STEPS)
    config = replace(sampler.config, num_steps=steps, solver="euler", S_churn=0.0, **unguided)
    return replace(sampler, gnet=None, sr_model=None, config=config)


def _news_of(frame: Path, number: int) -> NewFrame:
    """A frame with its other samples, and their spread."""
    others = frame.parent.glob(f"frame_{number:06d}_seed*.png")
    samples = [file.name for file in sorted(others, key=lambda file: int(file.stem.rsplit("seed")[-1]))]
    return NewFrame(frame.name, samples, f"spread_{number:06d}.png" if samples else None)
