"""nerfstudio's files: transforms.json, as Blender's exporters and instant-ngp write it too, and camera_path.json."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datasets.camera_files.lens import Lens, check_model, focal_px, nerfstudio_lens
from datasets.camera_files.poses import OPENGL_C2W, PosedFrame, check_pose, tensor_of
from dnnlib.text_files import number
from dnnlib.util import natural_key
from torch_utils.cameras import Camera, intrinsics_matrix

_SOME_HEIGHT = 1080  # pixels of a picture whose proportions alone are told
SizeOf = Callable[[str], tuple[int, int] | None]  # of the picture of a name, where there is one


def read_transforms(
    document: Any, size_of: SizeOf = lambda name: None, like: tuple[float, float] = (1, 1)
) -> list[PosedFrame]:
    """The frames of a transforms.json, in the natural order of their file names, as nerfstudio sorts them.

    Args:
        document: the parsed file.
        size_of: asked where the file does not tell the size of a frame.
        like: see `nerfstudio_lens`.

    Raises ValueError that names the frame by its place in the file.
    """
    frames = document.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError('no list of "frames"; expected a transforms.json as nerfstudio or Blender write it')
    read = [_read_frame(document, frame, f"frame {k}", size_of, like) for k, frame in enumerate(frames)]
    return sorted(read, key=lambda frame: natural_key(frame.name)) if all(frame.name for frame in read) else read


def _read_frame(
    document: Mapping[str, Any], frame: Mapping[str, Any], place: str, size_of: SizeOf, like: tuple[float, float]
) -> PosedFrame:
    name = str(frame.get("file_path", ""))
    try:
        matrix = tensor_of(frame["transform_matrix"])
        values = {**document, **frame}
        size = None if "w" in values and "h" in values else size_of(name)
        lens = nerfstudio_lens(values, size, like)
    except KeyError as error:
        raise ValueError(f"{place}: no {error}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None
    return PosedFrame(OPENGL_C2W.to_extrinsics(check_pose(matrix, place)), lens, name)


def exact_path(camera: Camera, path: Sequence[Camera]) -> dict[str, Any]:
    """All digits of a photograph's camera and of those of its path, for `recall_path`."""
    rows = [torch.cat([one.focal_and_center, one.extrinsics.flatten()]).tolist() for one in (camera, *path)]
    return {"width": camera.width, "height": camera.height, "cameras": rows}


def recall_path(document: Mapping[str, Any], camera: Camera) -> list[Camera] | None:
    """The cameras of `exact_path`, to the bit; None for another file, or where the photograph has another camera.

    What is computed from rounded poses and lenses differs in the last digits, which show in pictures.
    """
    exact = document.get("exact")
    if not isinstance(exact, Mapping) or (exact.get("width"), exact.get("height")) != (camera.width, camera.height):
        return None
    rows = torch.tensor(exact["cameras"], dtype=torch.float64).reshape(-1, 16)
    own = torch.cat([camera.focal_and_center, camera.extrinsics.flatten()])
    if len(rows) < 2 or not torch.equal(rows[0], own):
        return None
    for k, row in enumerate(rows[1:]):
        check_pose(row[4:].reshape(3, 4), f"camera {k}")
        fx, fy, cx, cy = row[:4].tolist()
        Lens(fx, fy, cx, cy, (camera.width, camera.height))
    return [
        replace(camera, intrinsics=intrinsics_matrix(*row[:4]), extrinsics=row[4:].reshape(3, 4)) for row in rows[1:]
    ]


def read_camera_path(document: Mapping[str, Any]) -> list[PosedFrame]:
    """The frames of a path that the nerfstudio viewer exported: fov spans the height, in degrees.

    Raises ValueError that names the frame by its place in the file.
    """
    kind = str(document.get("camera_type", "perspective")).lower()
    if kind != "perspective":
        check_model(kind.upper())
        raise ValueError(f"a path of a {kind} camera; export it as perspective")
    frames = []
    for k, frame in enumerate(document["camera_path"]):
        place = f"frame {k}"
        try:
            matrix = tensor_of(frame["camera_to_world"])
            if matrix.numel() not in (12, 16):
                raise ValueError(f"camera_to_world has {matrix.numel()} numbers where 16 are expected")
            height = number(document.get("render_height", _SOME_HEIGHT), "render_height")
            wide = height * number(frame.get("aspect", 1), "aspect")
            width = number(document.get("render_width", wide), "render_width")
            focal = focal_px(height, math.radians(number(frame["fov"], "fov")))
            lens = Lens(focal, focal, width / 2, height / 2, (width, height))
        except KeyError as error:
            raise ValueError(f"{place}: no {error}") from None
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            raise ValueError(f"{place}: {error}") from None
        frames.append(PosedFrame(OPENGL_C2W.to_extrinsics(check_pose(matrix.reshape(-1, 4), place)), lens))
    return frames


def format_transforms(cameras: Sequence[Camera], names: Sequence[str], extra: Mapping[str, Any]) -> str:
    """JSON with a line for each frame; `extra` are more entries at the top."""
    rows = []
    for camera, name in zip(cameras, names, strict=True):
        lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), camera.focal_and_center.tolist(), strict=True))
        matrix = OPENGL_C2W.from_extrinsics(camera.extrinsics).tolist()
        frame = {"file_path": name, "w": camera.width, "h": camera.height, **lens, "transform_matrix": matrix}
        rows.append("  " + json.dumps(frame))
    head = json.dumps({"camera_model": "OPENCV", **extra}, indent=1).removesuffix("\n}")
    return head + ',\n "frames": [\n' + ",\n".join(rows) + "\n ]\n}\n"


def picture_size_beside(folder: Path) -> SizeOf:
    """Sizes of the pictures that a file in this folder names, from their headers."""
    from dnnlib.imaging import image_size
    from dnnlib.util import UserError

    def size_of(name: str) -> tuple[int, int] | None:
        try:
            return image_size(folder / name) if name and (folder / name).is_file() else None
        except UserError:
            return None

    return size_of
