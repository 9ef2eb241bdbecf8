"""Other people's folders: generated images, true targets and source views under any names, in any format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.image_folder import IMAGE_SUFFIXES
from dnnlib import UserError
from dnnlib.util import present
from metrics.saved import Archive, SavedViews, open_results

# Names of folders beside each other that say what is in them, in the order in which they are looked for.
_LAYOUT = {
    "sample": ("pred", "preds", "prediction", "predictions", "generated", "samples", "sample", "render", "renders"),
    "tgt": ("gt", "target", "targets", "ground_truth", "groundtruth", "truth"),
    "src": ("src", "source", "sources", "input", "inputs", "context"),
}


def open_folders(generated: Path, target: Path | None = None, source: Path | None = None) -> SavedViews:
    """The images of folders, matched by their paths without suffix, else by the last number in their names.

    Raises UserError where a folder holds no images, or images have no partner.
    """
    folders = {"sample": generated, "tgt": target, "src": source}
    images = {role: _images(folder) for role, folder in folders.items() if folder is not None}
    keys: Mapping[str, Mapping[Any, Path]] = {
        role: _keys(present(folders[role]), found) for role, found in images.items()
    }
    order = sorted(keys["sample"])
    for role, found in keys.items():
        if found.keys() != keys["sample"].keys():
            by_number = {role: _numbered(found) for role, found in images.items()}
            if all(numbers and numbers.keys() == by_number["sample"].keys() for numbers in by_number.values()):
                keys, order = by_number, sorted(by_number["sample"])
                break
            alone = sorted(keys["sample"].keys() ^ found.keys())
            raise UserError(
                f"{len(alone)} images of {generated} and {folders[role]} have no partner of the same name, such as "
                f"{alone[0]}: give folders that hold the same names, or the same numbers, suffixes aside"
            )
    files = {index: {role: str(found[key]) for role, found in keys.items()} for index, key in enumerate(order)}
    stems = (keys["sample"][key].relative_to(generated.absolute()).with_suffix("") for key in order)
    names = {index: stem.as_posix() for index, stem in enumerate(stems)}
    return SavedViews(Archive(generated, []), files, names=names)


def open_saved(images: Path | None, generated: Path | None, target: Path | None, source: Path | None) -> SavedViews:
    """The images of a run of generate_images, of a folder with ``pred`` and ``gt`` in it, or of separate folders."""
    if generated is not None:
        return open_folders(generated, target, source)
    if images is None or target is not None or source is not None:
        raise UserError("which images? Give `images`, a run's folder, or `generated` and what belongs to it")
    layout = find_layout(images)
    if layout is None:
        return open_results(images)
    return open_folders(layout["sample"], layout.get("tgt"), layout.get("src"))


def find_layout(folder: Path) -> dict[str, Path] | None:
    """The folders of generated, target and source images that lie in `folder`, by role; None where there are none."""
    if not folder.is_dir():
        return None
    there = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    found = {role: next((there[name] for name in names if name in there), None) for role, names in _LAYOUT.items()}
    return {role: path for role, path in found.items() if path is not None} if found["sample"] else None


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return [path.absolute() for path in sorted(found)]


def _keys(folder: Path, images: list[Path]) -> dict[str, Path]:
    """Key the files by path below the folder, without suffix."""
    keys = {path.relative_to(folder.absolute()).with_suffix("").as_posix(): path for path in images}
    if len(keys) < len(images):
        raise UserError(f"{folder} holds images that differ in their suffix alone: keep one of each")
    return keys


def _numbered(images: list[Path]) -> dict[int, Path]:
    """Key the files by the last number of their names; empty where there is none, or one comes twice."""
    numbers = [re.findall(r"\d+", path.stem) for path in images]
    if not all(numbers):
        return {}
    found = {int(number[-1]): path for number, path in zip(numbers, images, strict=True)}
    return found if len(found) == len(images) else {}
