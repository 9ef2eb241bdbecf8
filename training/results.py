"""The folder that `generate_images.py` writes: pictures by seed, a contact sheet, and `run.json` that says it all."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnlib.imaging import contact_sheet, read_image, save_png
from dnnlib.sampling_options import NETWORK_ROLES
from dnnlib.text_files import read_json
from dnnlib.util import UserError, atomic_path, file_sha256, writable_directory
from torch_utils.batches import Pair
from torch_utils.depth import save_stored_depth
from training.generation import GeneratedBatch, NovelViewSampler, PairSource

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

_KINDS = ("src", "sample", "tgt")
_TITLES = ("source", "sample", "target")
_SEEDS_PER_FOLDER = 1000
_SHEET_ROWS = 16
_BEFORE = {"solver": "heun", "guidance_interval": None}  # what earlier runs, which do not say so, did
_REPORTED_PACKAGES = ("torch", "numpy", "Pillow", "safetensors")


def pair_record(seed: int, pair: Pair) -> dict[str, Any]:
    """What `run.json` says of one image; cameras are the 18 numbers of RealEstate10K for the square pictures."""
    return {
        "seed": seed,
        "clip": pair.clip,
        "source_index": pair.source_index,
        "target_index": pair.target_index,
        "gap": pair.gap,
        "source_camera": pair.source.camera.to_normalized().tolist(),
        "target_camera": pair.target.camera.to_normalized().tolist(),
    }


class ResultFolder:
    """Pictures named `src_000016.png`, `tgt_000016.png`, `sample_000016.png` for seed 16.

    Args:
        folder: where they go; subdirs: one folder per 1000 seeds.
        identity: every option that decides what the pictures show. A folder that holds a run with another identity is
            refused, since its pictures would be taken for this run's.
        overwrite: make everything anew instead.
    """

    def __init__(self, folder: Path, subdirs: bool, identity: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder, self.subdirs, self.identity = folder, subdirs, json.loads(json.dumps(identity))
        self.overwrite = overwrite
        self.records: dict[int, dict[str, Any]] = {}
        run = folder / "run.json"
        if overwrite or not run.exists():
            return
        try:
            content = read_json(run)
            earlier, records = (
                {**_BEFORE, **content["options"]},
                {record["seed"]: record for record in content["images"]},
            )
            if not all(isinstance(seed, int) for seed in records):
                raise TypeError("seeds that are no numbers")
        except (UserError, KeyError, TypeError):
            raise UserError(f"{run} is damaged: give --overwrite or another --outdir") from None
        for name, value in self.identity.items():
            if earlier.get(name) != value:
                raise UserError(
                    f"{folder} holds a run with {name} {earlier.get(name)}, this one has {value}: "
                    f"give --overwrite or another --outdir"
                )
        self.records = records

    def path(self, kind: str, seed: int) -> Path:
        """File of a picture; kind is "src", "tgt" or "sample"."""
        parent = self.folder / f"{seed - seed % _SEEDS_PER_FOLDER:06d}" if self.subdirs else self.folder
        return parent / f"{kind}_{seed:06d}.png"

    def missing(self, seeds: Sequence[int]) -> list[int]:
        """The seeds that are still to be made. Files appear whole or not at all, so those that exist are complete."""
        if self.overwrite:
            return list(seeds)
        return [seed for seed in seeds if not all(self.path(kind, seed).exists() for kind in _KINDS)]

    def save(
        self, batch: GeneratedBatch, on_failure: Callable[[int, Exception], None] | None = None
    ) -> list[dict[str, Any]]:
        """Write a batch's pictures, and the depth of source views that carry it; returns their records.

        `on_failure` is told of the seeds for which that fails, and why; with None the error is raised.
        """
        records = []
        for seed, pair, image in zip(batch.seeds, batch.pairs, batch.images, strict=True):
            try:
                self._save_images(seed, pair, image)
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(seed, error)
            else:
                records.append(pair_record(seed, pair))
        return records

    def _save_images(self, seed: int, pair: Pair, image: torch.Tensor) -> None:
        for kind, picture in zip(_KINDS, (pair.source.image, image, pair.target.image), strict=True):
            path = self.path(kind, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(path, picture.permute(1, 2, 0).numpy())
        if pair.source.depth is not None:
            save_stored_depth(self.path("src", seed), pair.source.depth)

    def write_run(self, details: Mapping[str, Any]) -> None:
        """Write `run.json`: options, details, versions, and a record of every picture known so far."""
        content = {
            "options": self.identity,
            **details,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _REPORTED_PACKAGES}},
            "images": [self.records[seed] for seed in sorted(self.records)],
        }
        with atomic_path(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def finish(
        self,
        seeds: Sequence[int],
        records: Sequence[dict[str, Any]],
        dataset: PairSource,
        resolution: int,
        details: Mapping[str, Any],
        failed: Mapping[int, str] | None = None,
    ) -> None:
        """Complete `run.json` and draw `sheet.png` once all pictures are there but for the failed seeds, told why."""
        seeds = [seed for seed in seeds if seed not in (failed or {})]
        self.records.update({record["seed"]: record for record in records})
        for seed in seeds:
            if seed not in self.records:  # made by a run that was interrupted before it could say so
                self.records[seed] = pair_record(seed, dataset[seed].square(resolution))
        self.write_run({**details, "failed": failed} if failed else details)
        shown = seeds[:_SHEET_ROWS]
        if not shown:
            return
        rows = [[read_image(self.path(kind, seed)) for kind in _KINDS] for seed in shown]
        save_png(self.folder / "sheet.png", _sheet(rows, [(seed, self.records[seed]["gap"]) for seed in shown]))


def open_result_folder(
    options: Mapping[str, Any], sampler: NovelViewSampler, files: Mapping[str, Path], **more: Any
) -> ResultFolder:
    """The folder `outdir` for what a sampler makes of `data`; see `dnnlib.sampling_options` for the options.

    `more` adds to what tells runs apart. Raises UserError where the folder holds another run.
    """
    chosen = ("split", "range_selection", "guidance", "guidance_interval", "published_intrinsics", "depth_model")
    identity = {
        **{role: file_sha256(files[role]) if role in files else None for role in NETWORK_ROLES},
        **{name: _plain(options[name]) for name in chosen},
        **{name: _plain(value) for name, value in sampler.sampler_kwargs.items()},
        "data": str(Path(options["data"]).resolve()),
        **more,
    }
    folder = writable_directory(options["outdir"])
    return ResultFolder(folder, options.get("subdirs", False), identity, options.get("overwrite", False))


def _plain(value: Any) -> Any:
    """A value as JSON gives it back; infinity, which JSON lacks, as text."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if value == math.inf else value


def batches_sheet(batches: Iterable[GeneratedBatch]) -> Image.Image:
    """The same sheet from batches in memory."""
    rows, labels = [], []
    for batch in batches:
        for seed, pair, image in zip(batch.seeds, batch.pairs, batch.images, strict=True):
            rows.append([picture.permute(1, 2, 0).numpy() for picture in (pair.source.image, image, pair.target.image)])
            labels.append((seed, pair.gap))
    return _sheet(rows, labels)


def _sheet(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[tuple[int, int]]) -> Image.Image:
    return contact_sheet(rows, _TITLES, [f"seed {seed}\ngap {gap}" for seed, gap in labels])
