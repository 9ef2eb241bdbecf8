"""A photograph, or a clip, and a camera path to pictures on the disk, one frame after the other."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw

from datasets.camera_files.nerfstudio import exact_path
from datasets.path_config import ViewPath
from datasets.trajectories import check_frames
from datasets.trajectory_files import write_trajectory
from datasets.user_image import Photograph
from dnnlib.imaging import contact_sheet, fit_within, read_image, save_png
from dnnlib.locks import sole_user
from dnnlib.settings import plain
from dnnlib.text_files import read_json
from dnnlib.util import UserError, atomic_path, present, writable_directory
from dnnlib.video import AddFrame, gif_writer, mp4_writer
from torch_utils.cameras import Camera, View
from torch_utils.known_pixels import keep_known
from torch_utils.memory import in_parts
from torch_utils.warping import same_place, turned_view
from training.generation import NovelViewSampler
from training.path_config import RenderConfig
from training.precond import NVPrecond

_MOST_KEY_FRAMES = 16  # that stochastic conditioning remembers, so that memory does not grow with the path
_SHEET_COLUMNS = 6
_SPREAD_WHITE = 32  # standard deviation, in levels of 255, that is white in a map of the spread
_SHEET_CELL = 160  # pixels, at least
_ROWS = ("truth", "homography", "spread")  # of the sheet, below the samples
_EXPORTS = {"realestate10k": "realestate10k.txt", "colmap": "colmap", "matrices": "matrices_opencv_w2c.txt"}
_TRAJECTORY = "trajectory.json"
_IDENTITY = "path.json"  # of the frames of a folder until `trajectory.json` is there, which has it then
_FRAMES = ("frame_*.png", *(f"{kind}_*.png" for kind in _ROWS), _TRAJECTORY, _IDENTITY)
_SUMMARIES = ("video.gif", "video.mp4", "sheet.png", *_EXPORTS.values(), "colmap/*.txt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PathRenderer:
    """Frames along a path. Iterating yields, for each camera, uint8 [samples, 3, R, R].

    Attributes:
        seeds: one for each sample of a frame.
        batch_size: images at once; changes nothing but speed and memory.
    """

    sampler: NovelViewSampler
    path: ViewPath
    config: RenderConfig = field(default_factory=RenderConfig)
    seeds: Sequence[int] = (0,)
    batch_size: int = 4

    def __post_init__(self) -> None:
        check_frames(len(self.path.cameras))

    @property
    def square_cameras(self) -> list[Camera]:
        """The cameras of the pictures that come out."""
        side = self.sampler.resolution
        return [camera.square(side) for camera in self.path.cameras]

    def __len__(self) -> int:
        return len(self.path.cameras)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self.render({})

    def render(self, made: Mapping[int, Callable[[], torch.Tensor]]) -> Iterator[torch.Tensor]:
        """All frames; those that were made before, by number, are taken as they are, and key frames among them too."""
        condition, cameras = self.config.condition, self.square_cameras
        known = self.config.known_pixels and not self.path.truth
        source = self.path.photograph.source
        views = [[source] for _ in self.seeds]  # of each sample: the photograph, then its key frames
        span = len(self) if condition == "first" else self.config.key_every
        for start, stop in pairwise([0, *range(span + 1, len(self), span), len(self)]):
            pools = [seen[-1:] if condition == "chain" else seen for seen in views]
            missing = self._frames([number for number in range(start, stop) if number not in made], pools)
            for number in range(start, stop):
                images = made[number]() if number in made else next(missing)
                if known and number not in made:
                    view = self.path.photograph.view
                    images = torch.stack([keep_known(image, view, cameras[number]) for image in images])
                yield images
            camera = cameras[stop - 1]
            views = [
                [seen[0], *seen[1:][1 - _MOST_KEY_FRAMES :], View(image, camera)]
                for seen, image in zip(views, images, strict=True)
            ]

    def _frames(self, frames: Sequence[int], pools: Sequence[Sequence[View]]) -> Iterator[torch.Tensor]:
        images = self._images([(frame, sample) for frame in frames for sample in range(len(self.seeds))], pools)
        for _ in frames:
            yield torch.stack(list(islice(images, len(self.seeds))))

    def _images(self, items: Sequence[tuple[int, int]], pools: Sequence[Sequence[View]]) -> Iterator[torch.Tensor]:
        """The image of each (frame, sample), [3, R, R], computed in batches."""

        def make(batch: Sequence[tuple[int, int]]) -> torch.Tensor:
            fresh, cameras = self.config.fresh_noise, self.path.cameras
            seeds = [(self.seeds[s], frame) if fresh else self.seeds[s] for frame, s in batch]
            return self.sampler([pools[s] for _, s in batch], [cameras[frame] for frame, _ in batch], seeds)

        for start in range(0, len(items), self.batch_size):
            for images in in_parts(make, items[start : start + self.batch_size]):
                yield from images


class Report(Protocol):
    """Judges a path frame by frame; `metrics.neighbours.NeighbourReport` is one."""

    def add(self, image: torch.Tensor, camera: Camera) -> None:
        """The next frame: uint8 [3, R, R] and its camera."""

    def summary(self) -> dict[str, Any]:
        """Return what was found, ready for JSON."""


class PathFolder:
    """The folder of a rendered path: numbered frames, videos, a contact sheet, and the path itself.

    `frame_000000.png` is the sample of the first seed, `frame_000000_seed1.png` that of seed 1; `spread_000000.png` the
    standard deviation over samples, white at 32 levels; `homography_000000.png` the photograph turned to where the
    camera looks, transparent where it shows nothing; `truth_000000.png` the true frame, where it is known (the videos
    then show source view, sample and truth side by side); `trajectory.json` the cameras of the frames, as nerfstudio
    reads them, and all that was set and found.

    Args:
        identity: see `path_identity`. The frames of a path with the same one are kept, and those that it lacks made;
            any others are refused with UserError, since they would be taken for this path's.
        overwrite: remove instead all that belongs to an earlier path.
    """

    def __init__(self, folder: Path, overwrite: bool = False, identity: Mapping[str, Any] | None = None) -> None:
        self.folder = writable_directory(folder)
        self._identity = None if identity is None else json.loads(json.dumps(identity))
        self._overwrite = overwrite
        if not overwrite and any(True for pattern in _FRAMES for _ in folder.glob(pattern)):
            self._check_identity()

    def _remove_all(self) -> None:
        for file in [file for pattern in (*_FRAMES, *_SUMMARIES) for file in self.folder.glob(pattern)]:
            if not file.is_dir():
                file.unlink()
        with suppress(OSError):  # it was not there, or somebody keeps files of their own in it
            (self.folder / _EXPORTS["colmap"]).rmdir()

    def _check_identity(self) -> None:
        """Raise UserError unless the frames that are there are of this very path."""
        known, differing = self._stored_identity(), ""
        if self._identity is not None and known:
            names = sorted(name for name, value in self._identity.items() if known.get(name) != value)
            if not names:
                return
            differing = f" (another {', '.join(names)})"
        raise UserError(
            f"{self.folder} holds the frames of another path{differing}: give `overwrite` or another `outdir`"
        )

    def _stored_identity(self) -> dict[str, Any]:
        """Return that of the frames that are there; empty where nobody wrote it."""
        for name, key in ((_IDENTITY, None), (_TRAJECTORY, "identity")):
            if (self.folder / name).is_file():
                document = read_json(self.folder / name)
                found = document.get(key) if key and isinstance(document, dict) else document
                return found if isinstance(found, dict) else {}
        return {}

    def _made(self, renderer: PathRenderer) -> dict[int, Callable[[], torch.Tensor]]:
        """Return, by number, what reads each frame that is there already."""
        seeds = [None, *renderer.seeds[1:]]
        files = {number: [self.frame(number, seed) for seed in seeds] for number in range(len(renderer))}
        return {
            number: partial(_read_frames, samples)
            for number, samples in files.items()
            if all(file.is_file() for file in samples)
        }

    def frame(self, number: int, seed: int | None = None) -> Path:
        """The file of a frame; `seed` for samples after the first."""
        return self.folder / (f"frame_{number:06d}.png" if seed is None else f"frame_{number:06d}_seed{seed}.png")

    def write(
        self, renderer: PathRenderer, reports: Sequence[Report] = (), details: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """Render a path into the folder; yields the file of every frame as it appears.

        Until the last one nobody else may render there: UserError says so where somebody does.

        Args:
            renderer: its config says what is written; true views must have its sampler's resolution.
            reports: judge the samples of the first seed.
            details: more for `trajectory.json`.
        """
        with sole_user(self.folder, "rendering"):
            if self._overwrite:
                self._remove_all()
            yield from self._write(renderer, reports, details or {})

    def _write(self, renderer: PathRenderer, reports: Sequence[Report], details: Mapping[str, Any]) -> Iterator[Path]:
        path, config, cameras = renderer.path, renderer.config, renderer.square_cameras
        view = path.photograph.view
        source = _pixels(path.photograph.source.square(renderer.sampler.resolution).image)
        true_pictures: list[np.ndarray | None] = [None] * len(cameras)
        if path.truth:
            true_pictures = [_pixels(true.image) for true in path.truth]
        made = self._made(renderer) if self._identity is not None else {}
        if self._identity is not None:
            with atomic_path(self.folder / _IDENTITY) as temporary:
                temporary.write_text(json.dumps(self._identity, indent=1) + "\n")
        with ExitStack() as stack:
            videos = self._open_videos(stack, config.fps)
            rendered = renderer.render(made)
            for number, (camera, samples, true) in enumerate(zip(cameras, rendered, true_pictures, strict=True)):
                pictures = [_pixels(image) for image in samples]
                for picture, seed in zip(pictures, [None, *renderer.seeds[1:]], strict=True):
                    if number not in made:
                        save_png(self.frame(number, seed), picture)
                if len(pictures) > 1:
                    save_png(self.folder / f"spread_{number:06d}.png", spread_map(samples))
                if config.baseline == "homography" and same_place(view.camera, camera):
                    save_png(self.folder / f"homography_{number:06d}.png", _masked(view, camera))
                if true is not None:
                    save_png(self.folder / f"truth_{number:06d}.png", true)
                for report in reports:
                    report.add(samples[0], camera)
                for add in videos:
                    add(pictures[0] if true is None else np.concatenate([source, pictures[0], true], axis=1))
                yield self.frame(number)
        found = {name: value for report in reports for name, value in report.summary().items()}
        self._finish(renderer, {**details, **found})

    def _open_videos(self, stack: ExitStack, fps: float) -> list[AddFrame]:
        videos = [stack.enter_context(gif_writer(self.folder / "video.gif", fps))]
        try:
            videos.append(stack.enter_context(mp4_writer(self.folder / "video.mp4", fps)))
        except UserError as error:
            _log.warning("no video.mp4: %s. The GIF and the frames are written.", error)
        return videos

    def _finish(self, renderer: PathRenderer, details: Mapping[str, Any]) -> None:
        path, config, cameras = renderer.path, renderer.config, renderer.square_cameras
        names = [self.frame(number).name for number in range(len(cameras))]
        photograph = path.photograph
        settings = plain({**asdict(renderer.sampler.config), **asdict(config), **path.details, **details})
        exact = exact_path(photograph.start, path.cameras)
        extra = {"photograph": photograph.record(), "seeds": list(renderer.seeds), **settings, "exact": exact}
        if self._identity is not None:
            extra["identity"] = self._identity
        write_trajectory(self.folder / _TRAJECTORY, cameras, names=names, extra=extra)
        for kind in config.export:
            target = self.folder / _EXPORTS[kind]
            if kind == "colmap":
                target.mkdir(exist_ok=True)
            write_trajectory(target, cameras, kind, names)
        (self.folder / _IDENTITY).unlink(missing_ok=True)
        save_png(self.folder / "sheet.png", self._sheet(photograph, len(cameras), renderer.seeds))

    def _sheet(self, photograph: Photograph, frames: int, seeds: Sequence[int]) -> Image.Image:
        """The photograph with its crop, and evenly spaced frames; samples, truth and what else there is below."""
        count = min(frames, _SHEET_COLUMNS)
        shown = [round(k * (frames - 1) / max(count - 1, 1)) for k in range(count)]
        names = [f"seed {seed}" for seed in seeds] if len(seeds) > 1 else ["sample"]
        rows = {
            name: [self.frame(n, seed if k else None) for n in shown]
            for k, (name, seed) in enumerate(zip(names, seeds, strict=True))
        }
        for kind in _ROWS:
            files = [self.folder / f"{kind}_{n:06d}.png" for n in shown]
            if any(file.exists() for file in files):
                rows[kind] = files
        pictures = [[read_image(file) if file.exists() else None for file in files] for files in rows.values()]
        side = present(pictures[0][0]).shape[0]
        cell = side * -(-_SHEET_CELL // side)
        source = photograph_with_crop(photograph, 2 * cell, cell)
        firsts = [source, *[None] * (len(rows) - 1)]
        cells = [[first, *row] for first, row in zip(firsts, pictures, strict=True)]
        return contact_sheet(
            cells, ["source", *(f"frame {n}" for n in shown)], list(rows), cell, [source.shape[1], *[cell] * count]
        )


def path_identity(renderer: PathRenderer, networks: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what the frames of a path show, ready for JSON; `networks` by what tells theirs apart."""
    photograph, config = renderer.path.photograph.view, renderer.config
    rows = torch.stack([camera.to_normalized() for camera in (photograph.camera, *renderer.path.cameras)])
    digests = {
        "photograph": hashlib.sha256(photograph.image.contiguous().numpy().tobytes()).hexdigest(),
        "cameras": hashlib.sha256(rows.numpy().tobytes()).hexdigest(),
    }
    how = {name: getattr(config, name) for name in ("condition", "key_every", "fresh_noise", "known_pixels")}
    return plain({**digests, "seeds": list(renderer.seeds), **how, **asdict(renderer.sampler.config), **networks})


def _read_frames(files: Sequence[Path]) -> torch.Tensor:
    """The samples of a frame, uint8 [S, 3, R, R]."""
    return torch.stack([rearrange(torch.from_numpy(read_image(file)), "h w c -> c h w").contiguous() for file in files])


def spread_map(samples: torch.Tensor) -> np.ndarray:
    """Standard deviation of uint8 [S, 3, R, R] over samples, mean of the colours: uint8 [R, R], white at 32 levels.

    What the source view leaves open, and a model that gives one answer would average.
    """
    spread = samples.to(torch.float32).std(dim=0, correction=0).mean(dim=0)
    return (spread * (255 / _SPREAD_WHITE)).clamp(max=255).to(torch.uint8).numpy()


def photograph_with_crop(photograph: Photograph, width: int, height: int) -> np.ndarray:
    """The photograph, as large as fits a cell, with the square that the networks see outlined: [H, W, 3]."""
    view = photograph.view
    image = fit_within(Image.fromarray(_pixels(view.image)), width, height)
    scale = image.width / view.camera.width
    outline = [tuple(round(scale * value) for value in corner) for corner in photograph.outline]
    inside = [(min(max(x, 1), image.width - 2), min(max(y, 1), image.height - 2)) for x, y in outline]
    ImageDraw.Draw(image).line([*inside, inside[0]], fill=(255, 220, 0), width=2)
    return np.asarray(image)


def evaluations(renderer: PathRenderer) -> int:
    """Return how often `watch_evaluations` calls back while a path is rendered one image at a time."""
    images = len(renderer) * len(renderer.seeds)
    sampler = renderer.sampler
    return images * sum(sampler.evaluations.values())


@contextmanager
def watch_evaluations(sampler: NovelViewSampler, callback: Callable[[], None]) -> Iterator[None]:
    """Call back after every evaluation of one of the sampler's networks; an exception in it ends the sampling."""
    networks: list[NVPrecond] = [net for net in (sampler.net, sampler.gnet, sampler.sr_model) if net is not None]
    with ExitStack() as stack:
        for net in networks:
            stack.callback(net.register_forward_hook(lambda *_: callback()).remove)
        yield


def _pixels(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] to [H, W, 3]."""
    return rearrange(image, "c h w -> h w c").numpy()


def _masked(photograph: View, camera: Camera) -> Image.Image:
    image, inside = turned_view(photograph, camera)
    return Image.fromarray(
        rearrange(torch.cat([image, inside[None] * 255]).to(torch.uint8), "c h w -> h w c").numpy(), "RGBA"
    )
