"""Other people's folders: generated images, true targets and source views under any names, in any format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.image_folder import IMAGE_SUFFIXES
from dnnlib import UserError
from metrics.saved import Archive, SavedViews, open_results
from torch_utils.run_files import parse_picture_name

# Names of folders that say what is in them, in the order in which they are looked for.
_LAYOUT = {
    "sample": ("pred", "preds", "prediction", "predictions", "generated", "samples", "sample", "render", "renders"),
    "tgt": ("gt", "target", "targets", "ground_truth", "groundtruth", "truth"),
    "src": ("src", "source", "sources", "input", "inputs", "context"),
}
_WORDS = {"tgt": "true target", "src": "source view"}

Images = Mapping[str, Path]  # by path below their folder, without suffix


def open_saved(
    images: Path | None, generated: Path | None = None, target: Path | None = None, source: Path | None = None
) -> SavedViews:
    """The images of a run of generate_images, of a folder with ``pred`` and ``gt`` in it, or of separate folders."""
    if generated is not None:
        return open_folders(generated, target, source)
    if images is None or target is not None or source is not None:
        raise UserError("which images? Give `images`, a run's folder, or `generated` and what belongs to it")
    layout = find_layout(images)
    return open_results(images) if layout is None else _matched(images, layout)


def open_folders(generated: Path, target: Path | None = None, source: Path | None = None) -> SavedViews:
    """The images of folders, matched by their paths without suffix, else by the last number in their names.

    What has no generated image is counted in the remarks. Raises UserError where a folder holds no images, or a
    generated image has no partner.
    """
    folders = {"sample": generated, "tgt": target, "src": source}
    return _matched(generated, {role: _images(folder) for role, folder in folders.items() if folder is not None})


def find_layout(folder: Path) -> dict[str, Images] | None:
    """The images below a folder by role, where folders ``pred``, ``gt`` and the like say it; None where none does.

    They may lie in it or deeper, as in ``scene/pred/0.png``; what is left of the path without them matches.
    """
    if not folder.is_dir():
        return None
    paths = [path.relative_to(folder) for path in _image_files(folder)]
    if any(parse_picture_name(path.name) for path in paths):
        return None
    there = {part.lower() for path in paths for part in path.parts[:-1]}
    chosen = {role: next((name for name in names if name in there), None) for role, names in _LAYOUT.items()}
    if chosen["sample"] is None:
        return None
    found: dict[str, dict[str, Path]] = {role: {} for role, name in chosen.items() if name is not None}
    for path in paths:
        folders = [part.lower() for part in path.parts[:-1]]
        role = next((role for role in found if chosen[role] in folders), None)
        if role is not None:
            place = folders.index(str(chosen[role]))
            _add(found[role], Path(*path.parts[:place], *path.parts[place + 1 :]), folder.absolute() / path, folder)
    return dict(found)


def _matched(where: Path, images: Mapping[str, Images]) -> SavedViews:
    """Generated images and their partners. Raises UserError where one has none."""
    keys: Mapping[str, Mapping[Any, Path]] = images
    if not all(found.keys() >= images["sample"].keys() for found in images.values()):
        numbered = {role: _numbered(found) for role, found in images.items()}
        if all(numbers and numbers.keys() >= numbered["sample"].keys() for numbers in numbered.values()):
            keys = numbered
    remarks = []
    for role, found in keys.items():
        alone = sorted(keys["sample"].keys() - found.keys())
        if alone:
            raise UserError(
                f"{len(alone)} generated images in {where} have no {_WORDS[role]} of the same name, such as "
                f"{alone[0]}: give folders that hold the same names, or the same numbers, suffixes aside"
            )
        if len(found) > len(keys["sample"]):
            remarks.append(f"{len(found) - len(keys['sample'])} {_WORDS[role]}s have no generated image")
    order = sorted(keys["sample"])
    files = {index: {role: str(found[key]) for role, found in keys.items()} for index, key in enumerate(order)}
    names_of = {path: name for name, path in images["sample"].items()}
    names = {index: names_of[keys["sample"][key]] for index, key in enumerate(order)}
    return SavedViews(Archive(where, []), files, names=names, remarks=remarks)


def _images(folder: Path) -> Images:
    """By path below the folder, without suffix."""
    found: dict[str, Path] = {}
    for path in _image_files(folder):
        _add(found, path.relative_to(folder), path.absolute(), folder)
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")


def _add(found: dict[str, Path], name: Path, path: Path, folder: Path) -> None:
    key = name.with_suffix("").as_posix()
    if key in found:
        raise UserError(f"{folder} holds images that differ in their suffix alone ({key}): keep one of each")
    found[key] = path


def _numbered(images: Images) -> dict[int, Path]:
    """By the last number of their names; empty where there is none, or one comes twice."""
    numbers = [re.findall(r"\d+", path.stem) for path in images.values()]
    if not all(numbers):
        return {}
    found = {int(number[-1]): path for number, path in zip(numbers, images.values(), strict=True)}
    return found if len(found) == len(images) else {}
