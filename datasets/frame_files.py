"""Layouts that keep each frame in a file of its own: the published tree, LVSM's JSON files, nerfstudio's scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from datasets.camera_files.lens import Lens
from datasets.camera_files.nerfstudio import read_transforms
from datasets.camera_files.poses import OPENCV_W2C, read_json
from datasets.camera_files.realestate10k import parse_realestate10k, read_realestate10k_text
from datasets.clips import UnusableClip, view_from_row
from datasets.image_folder import is_picture
from dnnlib.imaging import image_size, read_image
from torch_utils.cameras import Camera, View
from torch_utils.depth import read_stored_depth


@dataclass(frozen=True, eq=False)
class FileClip:
    """A clip whose frames are files; see `datasets.layouts.StoredClip`."""

    cameras: torch.Tensor
    timestamps: Sequence[int]
    files: dict[int, str]  # position to file name below `folder`
    folder: Path
    depth: bool = False  # whether views carry what lies beside the frames

    @property
    def frames(self) -> Sequence[int]:
        return list(self.files)

    def read(self, position: int) -> bytes:
        return (self.folder / self.files[position]).read_bytes()

    def view(self, position: int) -> View:
        file = self.folder / self.files[position]
        image = read_image(file, upright=False)
        depth = read_stored_depth(file, *image.shape[:2]) if self.depth else None
        return view_from_row(image, self.cameras[position], depth)


class TreeClips:
    """The published tree: a text file of cameras and a folder of frames for each clip."""

    def __init__(self, camera_folder: Path, frame_folder: Path, depth: bool = False) -> None:
        _read_clip.cache_clear()  # files may have changed since another data set read them
        self.names = sorted(path.stem for path in camera_folder.glob("*.txt"))
        self._camera_folder, self._frame_folder, self._depth = camera_folder, frame_folder, depth

    def with_depth(self) -> TreeClips:
        """The same clips, whose views carry the depth that lies beside the frames."""
        return TreeClips(self._camera_folder, self._frame_folder, depth=True)

    def open(self, number: int) -> FileClip:
        name = self.names[number]
        clip = _read_clip(_read_tree_clip, self._camera_folder / f"{name}.txt", self._frame_folder / name)
        return replace(clip, depth=self._depth)

    def audit(self) -> Iterator[tuple[str, str]]:
        known = set(self.names)
        for folder in sorted(path for path in self._frame_folder.glob("*") if path.is_dir()):
            if folder.name not in known:
                yield "frames without a camera file", folder.name
                continue
            try:
                _, timestamps, _ = read_cameras(self._camera_folder / f"{folder.name}.txt")
            except UnusableClip:
                continue  # is reported where the clip is opened
            listed = {name for time in timestamps for name in (f"{time}", f"{time}.depth")}  # depth lies beside frames
            strays = sorted(_pictures(folder).keys() - listed)
            if strays:
                yield "frames that the camera file lacks", f"{folder.name}: {len(strays)}, such as {strays[0]}"


class JsonClips:
    """LVSM's: ``metadata/<clip>.json`` lists frames, each with image_path, fxfycxcy in pixels and a 4x4 w2c."""

    def __init__(self, folder: Path) -> None:
        _read_clip.cache_clear()
        self.names = sorted(path.stem for path in (folder / "metadata").glob("*.json"))
        self._folder = folder

    def open(self, number: int) -> FileClip:
        name = self.names[number]
        return _read_clip(_read_json_clip, self._folder / "metadata" / f"{name}.json", self._folder / "images" / name)

    def audit(self) -> Iterator[tuple[str, str]]:
        return _unlisted_folders(self._folder / "images", self.names)


class SceneClips:
    """nerfstudio's: ``<scene>/transforms.json`` lists frames with camera-to-world matrices in OpenGL axes."""

    def __init__(self, folder: Path) -> None:
        _read_clip.cache_clear()
        self.names = sorted(path.parent.name for path in folder.glob("*/transforms.json"))
        self._folder = folder

    def open(self, number: int) -> FileClip:
        scene = self._folder / self.names[number]
        return _read_clip(_read_scene, scene / "transforms.json", scene)

    def audit(self) -> Iterator[tuple[str, str]]:
        return _unlisted_folders(self._folder, self.names)


@lru_cache(maxsize=256)  # of 40 kB for 280 frames
def _read_clip(reader: Callable[[Path, Path], FileClip], description: Path, folder: Path) -> FileClip:
    """The clip that a file describes; raises UnusableClip whatever is wrong with it."""
    try:
        clip = reader(description, folder)
        Camera.from_normalized(clip.cameras, 1, 1)  # for its checks; the size is not known yet
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, UnusableClip):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        where = f"{folder.name}/{description.name}" if description.parent == folder else description.name
        raise UnusableClip("unreadable camera file", f"{where}: {reason}") from None
    if not clip.files:
        raise UnusableClip("no frames", f"{folder} has none of {len(clip.cameras)}")
    return clip


def read_cameras(file: Path) -> tuple[str, list[int], torch.Tensor]:
    """URL, timestamps and cameras of a camera file of RealEstate10K; raises UnusableClip."""
    try:
        url, timestamps, cameras = parse_realestate10k(read_realestate10k_text(file))
        if not timestamps:
            raise ValueError("it has no line of a camera")
        return url, timestamps, cameras
    except (OSError, ValueError) as error:
        raise UnusableClip("unreadable camera file", f"{file.name}: {error}") from None


def _read_tree_clip(camera_file: Path, folder: Path) -> FileClip:
    _, timestamps, cameras = read_cameras(camera_file)
    stored = _pictures(folder)
    names = (stored.get(str(timestamp)) for timestamp in timestamps)
    return FileClip(cameras, timestamps, {position: name for position, name in enumerate(names) if name}, folder)


def _read_json_clip(file: Path, folder: Path) -> FileClip:
    """The paths in the file are those of the machine that wrote it: only the last part counts."""
    frames = read_json(file)["frames"]
    files = _existing([Path(frame["image_path"]).name for frame in frames], folder)
    numbers = (map(float, frame["fxfycxcy"]) for frame in frames)
    lenses = [Lens(fx, fy, cx, cy, size=None) for fx, fy, cx, cy in numbers]
    poses = torch.tensor([frame["w2c"] for frame in frames], dtype=torch.float64)
    return FileClip(_rows(lenses, files, folder, OPENCV_W2C.to_extrinsics(poses)), range(len(frames)), files, folder)


def _read_scene(file: Path, folder: Path) -> FileClip:
    """Frames whose lens bends straight lines are refused: they can be undistorted, which is not done here."""
    frames = read_transforms(read_json(file))
    if not frames:
        raise ValueError("it lists no frames")
    lenses = [frame.lens for frame in frames if frame.lens is not None]
    for lens in (frame.lens for frame in frames):
        if lens is None:
            raise ValueError("its cameras have no lens: no fl_x, no camera_angle_x")
        if lens.distorted:
            bent = f"{lens.model}, coefficients up to {lens.distortion:g}"
            raise UnusableClip("lens distortion", f"{folder.name}: undistort its frames first ({bent})")
    files = _existing([frame.name for frame in frames], folder)
    poses = torch.stack([frame.extrinsics for frame in frames])
    return FileClip(_rows(lenses, files, folder, poses), range(len(frames)), files, folder)


def _rows(lenses: Sequence[Lens], files: Mapping[int, str], folder: Path, extrinsics: torch.Tensor) -> torch.Tensor:
    """The 18 numbers of RealEstate10K: float64 [N, 18], from lenses and world-to-camera [N, 3, 4].

    Where a lens does not tell its size, that of the first frame is taken; it is of no matter where there is no frame.
    """
    size = (1, 1)
    if files and any(lens.size is None for lens in lenses):
        size = image_size(folder / next(iter(files.values())))
    intrinsics = torch.tensor([lens.fractions(*size) for lens in lenses], dtype=torch.float64)
    return torch.cat([intrinsics, torch.zeros(len(lenses), 2, dtype=torch.float64), extrinsics.flatten(1)], dim=1)


def _pictures(folder: Path) -> dict[str, str]:
    """Stem to name of the pictures in a folder; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    return {path.stem: path.name for path in folder.iterdir() if is_picture(path)}


def _existing(names: Sequence[str], folder: Path) -> dict[int, str]:
    """Position to name of the frames that are there; Blender leaves their ``.png`` out."""
    found = {}
    for position, name in enumerate(names):
        if file := next((file for file in (name, f"{name}.png") if (folder / file).is_file()), None):
            found[position] = file
    return found


def _unlisted_folders(parent: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    known = set(names)
    for folder in sorted(path for path in parent.glob("*") if path.is_dir()):
        if folder.name not in known:
            yield "frames without a camera file", folder.name
