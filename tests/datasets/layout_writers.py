"""Writers of the layouts that the project reads but does not write, from the descriptions of their makers."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from datasets.clips import Clips
from datasets.conventions import OPENCV_TO_CAMERA, reread
from datasets.synthetic import SyntheticClips
from dnnlib.imaging import save_png
from torch_utils.cameras import Camera, View, homogeneous


def write_lvsm(root: Path, split: str, clips: Clips) -> None:
    """images/<clip>/00000.png and metadata/<clip>.json with intrinsics in pixels and world-to-camera matrices."""
    for number, name in enumerate(clips.names):
        clip = clips.open(number)
        images, metadata = root / split / "images" / name, root / split / "metadata"
        images.mkdir(parents=True)
        metadata.mkdir(exist_ok=True)
        frames = []
        for position in clip.frames:
            view = clip.view(position)
            save_png(images / f"{position:05d}.png", view.image.permute(1, 2, 0).numpy())
            frames.append(
                {
                    "image_path": f"/elsewhere/{name}/{position:05d}.png",
                    "fxfycxcy": view.camera.focal_and_center.tolist(),
                    "w2c": homogeneous(view.camera.extrinsics).tolist(),
                }
            )
        (metadata / f"{name}.json").write_text(json.dumps({"scene_name": name, "frames": frames}))
    (root / split / "full_list.txt").write_text("\n".join(f"/elsewhere/metadata/{name}.json" for name in clips.names))


def write_nerfstudio(root: Path, split: str, clips: Clips) -> None:
    """<scene>/transforms.json with camera-to-world matrices whose y points up and z back; frames in any order."""
    for number, name in enumerate(clips.names):
        clip, folder = clips.open(number), root / split / name
        (folder / "images").mkdir(parents=True)
        frames = []
        for position in clip.frames:
            view = clip.view(position)
            file = f"images/frame_{position:05d}.png"
            save_png(folder / file, view.image.permute(1, 2, 0).numpy())
            to_world = torch.linalg.inv(homogeneous(view.camera.extrinsics))
            to_world[:, 1:3] *= -1
            frames.append({"file_path": file, "transform_matrix": to_world.tolist()})
        fx, fy, cx, cy = clip.view(0).camera.focal_and_center.tolist()
        width, height = view.camera.width, view.camera.height
        shared = {
            "fl_x": 2 * fx,
            "fl_y": 2 * fy,
            "cx": 2 * cx,
            "cy": 2 * cy,
            "w": 2 * width,
            "h": 2 * height,
            "k1": 0.0,
        }
        (folder / "transforms.json").write_text(json.dumps({**shared, "frames": frames[::-1]}))


class Misread:
    """A clip whose file holds poses in a convention that its reader does not expect."""

    def __init__(self, walks: SyntheticClips, number: int, actual: str, declared: str = OPENCV_TO_CAMERA) -> None:
        clip = walks.open(number)
        self.cameras, self.frames, self._clip = clip.cameras.clone(), clip.frames, clip
        extrinsics = clip.cameras[:, 6:].unflatten(1, (3, 4))
        self.cameras[:, 6:] = reread(extrinsics, actual, declared).flatten(1)

    def view(self, position: int) -> View:
        image = self._clip.view(position).image
        return View(image, Camera.from_normalized(self.cameras[position], *image.shape[:0:-1]))
