"""Damaged and absurd files for every reader: python -m tests.fuzz.readers --minutes=5

Whole files are changed at random: bytes, lengths, ends, and in JSON and text the values. A reader may take them or
refuse them with a UserError in one line (of a clip: UnusableClip); all else is a fault, and so is more than 5 s.
"""

from __future__ import annotations

import collections
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from dnnlib.imaging import read_image, save_png
from dnnlib.util import UserError
from tests.datasets.colmap_models import write_binary_model
from tests.golden import DATA, TINY

MOST_S = 5.0
MOST_BYTES = 500 << 20
_TEXTS = ("nan", "inf", "-1", "0", "1e999", "9" * 5000, "-9223372036854775809", "\x1b]0;x\x07", "\0", "é" * 50, "../x")
_VALUES = (None, True, [], {}, "", "x", -1, 0, 1e308, 10**400, float("nan"), [[]], {"a": 1}, "../../x", "\x1b", 2**63)
NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
_NUMBERS = (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 7 + b"\1")

Reader = Callable[[Path], Any]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with one to four changes."""
    for _ in range(rng.randint(1, 4)):
        changed = _json(data, rng) if data[:1] in (b"{", b"[") and rng.random() < 0.7 else None
        data = _bytes(data, rng) if changed is None else changed
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    place, kind = rng.randint(0, max(len(data) - 1, 0)), rng.randrange(7)
    if rng.random() < 0.5:
        place = min(place, rng.randint(0, 400))  # heads tell lengths
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + rng.randbytes(rng.randint(1, 16)) + data[place:]
    if kind == 3:
        return data[:place] + rng.choice(_NUMBERS) + data[place + 8 :]
    if kind == 4:
        return data[:place] + rng.choice(_TEXTS).encode() + data[place + rng.randint(0, 12) :]
    if kind == 5:
        return data[:place] + data[place : place + rng.randint(1, 200)] * rng.randint(2, 40) + data[place:]
    return data[:place] + data[place + rng.randint(1, 100) :]


def _json(data: bytes, rng: random.Random) -> bytes | None:
    """JSON with one value, somewhere inside, in another's place; None where it is none any more."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    parent, key = [content], 0
    while isinstance(parent[key], (dict, list)) and parent[key] and rng.random() < 0.9:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    if rng.random() < 0.2 and isinstance(parent, dict):
        del parent[key]
    else:
        parent[key] = rng.choice(_VALUES)
    sys.set_int_max_str_digits(0)  # for this one moment: the reader has its own limit
    try:
        return json.dumps(content).encode()
    finally:
        sys.set_int_max_str_digits(4300)


class Originals(dict[str, tuple[Path, str, Reader]]):
    """Whole files: name -> (folder to copy, the file in it to change, what reads the copied folder)."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def add(self, name: str, file: str, reader: Reader) -> Path:
        """A new folder, in which the caller writes the file."""
        (self.folder / name).mkdir()
        self[name] = (self.folder / name, file, reader)
        return self.folder / name


def write_originals(folder: Path) -> Originals:
    """One of every file that is read."""
    found = Originals(folder)
    for write in (_write_training, _write_clips, _write_cameras, _write_paths, _write_pictures, _write_results):
        write(found)
    return found


def _write_training(found: Originals) -> None:
    from training.checkpoint import load_newest_state, save_state
    from training.model_io import load_network, save_network
    from training.precond import NVPrecond
    from training.reporting import _forget_after

    place = found.add("released", "net.pkl", lambda copy: load_network(copy / "net.pkl"))
    shutil.copy(DATA / "released-layout-uncond.pkl", place / "net.pkl")
    place = found.add("network", "net.safetensors", lambda copy: load_network(copy / "net.safetensors"))
    save_network(place / "net.safetensors", NVPrecond(**TINY).eval(), {"images": 7})
    place = found.add("state", "training-state-0000001.000.pt", load_newest_state)
    save_state(place, 1000, {"net": {"weight": torch.ones(3, 4)}, "losses": [1.0]})
    place = found.add("stats", "stats.jsonl", lambda copy: _forget_after(10, copy / "stats.jsonl"))
    (place / "stats.jsonl").write_text('{"images": 4, "loss": 1.0}\n{"images": 12, "loss": 0.5}\n')


def _write_clips(found: Originals) -> None:
    from datasets.chunks import ChunkClips
    from datasets.pack_writer import write_pack
    from datasets.packed import PackedClips, Recipe
    from datasets.pairs import FramePair, read_pairs, write_pairs
    from datasets.synthetic import SyntheticClips, write_chunks

    def view(clips: Any) -> Any:
        return clips.names and clips.open(0).view(0)

    for name, kind in (("chunk", "*.torch"), ("chunk index", "index.json")):
        place = found.add(name, kind, lambda copy: view(ChunkClips(copy / "test")))
        write_chunks(place, "test", SyntheticClips("test", 1, frames=3, width=16, height=16))
    for name, kind in (("shard", "*.safetensors"), ("pack index", "pack.json")):
        place = found.add(name, kind, lambda copy: view(PackedClips(copy)))
        write_pack(ChunkClips(found.folder / "chunk" / "test"), place, Recipe((16,), "png"))
    place = found.add("pairs", "pairs.json", lambda copy: read_pairs(copy / "pairs.json"))
    write_pairs(place / "pairs.json", [FramePair("a", 0, 1), FramePair("b", 2, 1)])


def _write_cameras(found: Originals) -> None:
    from datasets.trajectory_files import FORMATS, read_trajectory, write_trajectory
    from torch_utils.cameras import Camera

    camera = Camera.from_fov(64, 48, 60)
    for kind in FORMATS:
        file = {"realestate10k": "path.txt", "nerfstudio": "transforms.json", "colmap": "images.txt"}.get(kind, "m.txt")
        conventions = ("opencv", "w2c") if kind == "matrices" else ()
        place = found.add(
            kind, file, lambda copy, file=file, more=conventions: read_trajectory(copy / file, camera, *more)
        )
        write_trajectory(place if kind == "colmap" else place / file, [camera] * 3, kind)
    place = found.add("lenses", "cameras.txt", lambda copy: read_trajectory(copy / "images.txt", camera))
    write_trajectory(place, [camera] * 3, "colmap")
    place = found.add("binary model", "*s.bin", lambda copy: read_trajectory(copy, camera))
    write_binary_model(place, "PINHOLE 64 48 60 60 32 24", ["a.png", "b.png"])
    for name, kind in (("text", "colmap"), ("binary", "binary model")):
        place = found.add(f"archive, {name}", "model.zip", lambda copy: read_trajectory(copy / "model.zip", camera))
        shutil.make_archive(str(place / "model"), "zip", found.folder / kind)
    place = found.add("array", "m.npy", lambda copy: read_trajectory(copy / "m.npy", camera, "opencv", "w2c"))
    np.save(place / "m.npy", np.tile(np.eye(4), (3, 1, 1)))


def _write_paths(found: Originals) -> None:
    """Files that are only read as paths before a photograph."""
    from datasets.camera_files.nerfstudio import exact_path
    from datasets.path_plans import describe_file, plan_path
    from datasets.trajectory_files import write_trajectory
    from datasets.user_image import Photograph
    from torch_utils.cameras import Camera, View

    camera = Camera.from_fov(64, 48, 60)
    view = View(torch.zeros(3, camera.height, camera.width, dtype=torch.uint8), camera)
    photograph = Photograph("photograph", view, 60.0, "default")

    def read(file: Path) -> None:
        describe_file(file)
        plan_path(photograph, str(file), 3)

    identity = np.eye(4).tolist()
    frames = [{"camera_to_world": identity, "fov": 50, "aspect": 1.5}] * 2
    for name, file, content in (
        ("key frames", "keys.json", json.dumps({"key_frames": [{"pan": 9, "truck": 1}, {"zoom": 2, "time": 3}]})),
        ("TUM", "tum.txt", "# time x y z qx qy qz qw\n0 0 0 0 0 0 0 1\n1 1 0 0 0 0 0 1\n"),
        ("camera path", "camera_path.json", json.dumps({"camera_path": frames, "render_height": 48})),
    ):
        place = found.add(name, file, lambda copy, file=file: read(copy / file))
        (place / file).write_text(content)
    place = found.add("given back", "trajectory.json", lambda copy: read(copy / "trajectory.json"))
    more = {"photograph": photograph.record(), "exact": exact_path(camera, [camera] * 3)}
    write_trajectory(place / "trajectory.json", [camera] * 3, extra=more)


def _write_pictures(found: Originals) -> None:
    from PIL import Image

    from torch_utils.depth import read_stored_depth, save_stored_depth

    for suffix in ("png", "jpeg", "webp", "gif", "tiff", "bmp"):
        place = found.add(
            f"picture {suffix}", f"a.{suffix}", lambda copy, suffix=suffix: read_image(copy / f"a.{suffix}")
        )
        Image.fromarray(NOISE).save(place / f"a.{suffix}")
    for suffix in ("png", "npy"):
        place = found.add(f"depth {suffix}", f"a.depth.{suffix}", lambda copy: read_stored_depth(copy / "a.png", 4, 4))
        save_stored_depth(place / "a.png", torch.ones(4, 4))
        if suffix == "npy":
            (place / "a.depth.png").unlink()
            np.save(place / "a.depth.npy", np.ones((4, 4), np.float32))


def _write_results(found: Originals) -> None:
    from metrics.reference import load_reference
    from metrics.saved import open_results

    place = found.add("results", "run.json", open_results)
    for role in ("src", "tgt", "sample"):
        save_png(place / f"{role}_000000.png", NOISE)
    (place / "run.json").write_text(json.dumps({"options": {"range_selection": "mid"}, "images": []}))
    place = found.add("archive", "results.zip", lambda copy: list(open_results(copy / "results.zip").batches(1, 1)))
    shutil.make_archive(str(place / "results"), "zip", found.folder / "results")
    place = found.add("reference", "ref.npz", lambda copy: load_reference(copy / "ref.npz"))
    file = io.BytesIO()
    np.savez(file, about=np.array(json.dumps({"detectors": {}})))
    (place / "ref.npz").write_bytes(file.getvalue())


def attack(original: tuple[Path, str, Reader], seed: int) -> str | None:
    """One damaged file for one reader; what is wrong with how that ended, None where nothing is."""
    from datasets.clips import UnusableClip

    source, pattern, reader = original
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(source, copy)
        file = next(copy.rglob(pattern))
        file.write_bytes(mutated(file.read_bytes(), random.Random(seed)))
        start = time.monotonic()
        try:
            reader(copy)
        except (UserError, UnusableClip) as error:
            if "\n" in str(error):
                return f"more than one line: {str(error)[:200]!r}"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:100]}"
        seconds = time.monotonic() - start
        return f"took {seconds:.1f} s" if seconds > MOST_S else None


def warm(originals: Mapping[str, tuple[Path, str, Reader]]) -> None:
    """Read all that is whole: what is imported at the first time takes its seconds now."""
    for folder, _, reader in originals.values():
        reader(folder)


def run(originals: Mapping[str, tuple[Path, str, Reader]], until: float, seed: int) -> tuple[int, collections.Counter]:
    """Attack all readers in turn; how often, and the faults."""
    count, faults = 0, collections.Counter()
    while time.monotonic() < until:
        for name, original in originals.items():
            fault = attack(original, seed + count)
            count += 1
            if fault:
                faults[f"{name}: {fault}"] += 1
    return count, faults


@click.command()
@click.option("--minutes", type=float, default=1.0, help="How long.")
@click.option("--seed", type=int, default=0, help="Of the first file.")
def main(minutes: float, seed: int) -> None:
    """Attack every reader."""
    import logging

    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        originals = write_originals(Path(folder))
        warm(originals)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count, faults = run(originals, time.monotonic() + 60 * minutes, seed)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    click.echo(f"{count} files for {len(originals)} readers: {sum(faults.values())} faults, {grown} MiB")
    for fault, times in faults.most_common():
        click.echo(f"{times:5}  {fault}")
    sys.exit(bool(faults) or grown << 20 > MOST_BYTES)


if __name__ == "__main__":
    main()
