"""A run into a folder: pictures by seed, a contact sheet, and `run.json` that says it all. It resumes at will.

`torch_utils.run_files` knows the format.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange

from datasets.config import DataConfig
from datasets.pairs import pair_file
from dnnlib.imaging import contact_sheet, read_image, save_png
from dnnlib.locks import turn
from dnnlib.settings import plain
from dnnlib.util import UserError, file_sha256, writable_directory
from torch_utils.depth import save_stored_depth
from torch_utils.distributed import Processes
from torch_utils.run_files import (
    PICTURE_ROLES,
    RECORD_KEY,
    PairRecord,
    PictureRole,
    Run,
    picture_path,
    read_record,
    read_run,
)
from training.failures import Failures
from training.generation import GeneratedBatch, GeneratedBatches, NovelViewSampler
from training.model_io import network_sha256
from training.sampling_config import ROLES, NetworkFiles, Role

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from torch_utils.batches import NamedPairs, Pair

_TITLES = ("source", "sample", "target")
_SHEET_ROWS = 16
_REPORTED_PACKAGES = ("torch", "numpy", "Pillow", "safetensors")


def run_identity(
    paths: Mapping[Role, Path], files: NetworkFiles, sampler: NovelViewSampler, data: DataConfig
) -> dict[str, Any]:
    """All that decides what the picture of a seed shows, ready for JSON: networks by the SHA-256 of their files."""
    pairs = None if data.pairs is None else file_sha256(pair_file(data.pairs))
    where = {"data": str(Path(data.data).resolve()), "split": data.split, "range_selection": data.range_selection}
    return plain({**network_identity(paths, files), **asdict(sampler.config), **where, "pairs": pairs})


def run_details(files: NetworkFiles, processes: Processes) -> dict[str, Any]:
    """Return what records say of a run besides: its networks by name, and where it was computed."""
    return {"networks": files.public().by_role, "device": str(processes.device)}


def network_identity(paths: Mapping[Role, Path], files: NetworkFiles) -> dict[str, Any]:
    """Networks by the SHA-256 of their files, and the depth model by its name."""
    networks: dict[str, str | None] = {role: network_sha256(paths[role]) if role in paths else None for role in ROLES}
    return {**networks, "depth_model": files.depth_model}


@dataclass
class RunFolder:
    """The folder of a run. Several processes may work in it at once, of one run or of several with other seeds.

    Attributes:
        folder: where the pictures go; subdirs: one folder per 1000 seeds.
        identity: see `run_identity`. A folder that holds a run with another identity is refused with UserError, since
            its pictures would be taken for this run's.
        details: more for `run.json`.
        overwrite: make everything anew instead.
    """

    folder: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    subdirs: bool = False
    overwrite: bool = False
    records: dict[int, PairRecord] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = writable_directory(self.folder)
        self.identity = json.loads(json.dumps(self.identity))
        if not self.overwrite:
            self._read()

    def begin(self) -> None:
        """Write `run.json`, so that an interrupted run is known for what it is."""
        with self._lock():
            if not self.overwrite:
                self._read()
            self._write()

    def path(self, role: PictureRole, seed: int) -> Path:
        """File of a picture."""
        return picture_path(self.folder, role, seed, self.subdirs)

    def missing(self, seeds: Sequence[int], dataset: NamedPairs) -> list[int]:
        """The seeds that are still to be made. Files appear whole or not at all, so those that exist are complete.

        Raises UserError where a picture was made of other frames than the data now give for its seed.
        """
        if self.overwrite:
            return list(seeds)
        made = [seed for seed in seeds if all(self.path(role, seed).exists() for role in PICTURE_ROLES)]
        for seed in made:
            record = self.records.get(seed) or read_record(self.path("sample", seed))
            chosen = dataset.choose(seed)
            if record is None:
                continue  # made before samples carried their record
            if record.frames != chosen:
                raise UserError(
                    f"{self.folder} holds, for seed {seed}, frames {record.source_index} and {record.target_index} of "
                    f"clip {record.clip}, and the data now give {chosen[1]} and {chosen[2]} of {chosen[0]}: they have "
                    f"changed since; give `overwrite` or another `outdir`"
                )
            self.records[seed] = record
        return sorted(set(seeds) - set(made))

    def save(self, batch: GeneratedBatch, on_failure: Callable[[int, Exception], None] | None = None) -> None:
        """Write a batch's pictures, and the depth of source views that carry it.

        `on_failure` is told of the seeds for which that fails, and why; with None the error is raised.
        """
        for seed, pair, image in zip(batch.seeds, batch.pairs, batch.images, strict=True):
            try:
                record = PairRecord.of(seed, pair)
                self._save_pictures(record, pair, image)
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(seed, error)
            else:
                self.records[seed] = record

    def load(
        self, seeds: Sequence[int], batch_size: int, dataset: NamedPairs, resolution: int
    ) -> Iterator[GeneratedBatch]:
        """Read what was saved for these seeds, as if just made."""
        for start in range(0, len(seeds), batch_size):
            some = list(seeds[start : start + batch_size])
            images = [
                rearrange(torch.from_numpy(read_image(self.path("sample", seed))), "h w c -> c h w") for seed in some
            ]
            yield GeneratedBatch(some, [dataset[seed].square(resolution) for seed in some], torch.stack(images))

    def finish(
        self, seeds: Sequence[int], dataset: NamedPairs, resolution: int, failed: Mapping[int | str, str] | None = None
    ) -> None:
        """Complete `run.json` and draw `sheet.png` once all pictures are there but for the failed seeds, told why."""
        seeds = [seed for seed in seeds if seed not in (failed or {})]
        for seed in seeds:
            if seed not in self.records:  # made by another process, or before samples carried their record
                record = read_record(self.path("sample", seed))
                self.records[seed] = record or PairRecord.of(seed, dataset[seed].square(resolution))
        with self._lock():
            self.records = {**self._others(), **self.records}
            self._write(failed)
        shown = seeds[:_SHEET_ROWS]
        if not shown:
            return
        rows = [[read_image(self.path(role, seed)) for role in PICTURE_ROLES] for seed in shown]
        save_png(self.folder / "sheet.png", _sheet(rows, [(seed, self.records[seed].gap) for seed in shown]))

    def _lock(self) -> AbstractContextManager[None]:
        return turn(self.folder / ".run.lock")

    def _read(self) -> None:
        """Take up the records of an earlier run in the folder, or refuse it."""
        try:
            run = read_run(self.folder)
        except UserError as error:
            raise UserError(f"{error}: give `overwrite` or another `outdir`") from None
        if run is None:
            return
        different = self._differences(run)
        if different:
            raise UserError(f"{self.folder} holds a run with {different[0]}: give `overwrite` or another `outdir`")
        self.records.update(run.records)

    def _others(self) -> Mapping[int, PairRecord]:
        """Return what other runs of this identity have recorded since this one began."""
        run = read_run(self.folder)
        return {} if run is None or self._differences(run) else run.records

    def _differences(self, run: Run) -> list[str]:
        missing = {"dtype": self.identity.get("dtype")}  # not told by the first runs
        earlier = {**missing, **run.options}
        return [
            f"{name} {earlier.get(name)}, this one has {value}"
            for name, value in self.identity.items()
            if earlier.get(name) != value
        ]

    def _write(self, failed: Mapping[int | str, str] | None = None) -> None:
        versions = {"python": platform.python_version(), **{name: version(name) for name in _REPORTED_PACKAGES}}
        details = {**self.details, **({"failed": failed} if failed else {}), "versions": versions}
        Run(self.identity, self.records, details).write(self.folder)

    def _save_pictures(self, record: PairRecord, pair: Pair, image: torch.Tensor) -> None:
        for role, picture in zip(PICTURE_ROLES, (pair.source.image, image, pair.target.image), strict=True):
            path = self.path(role, record.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = {RECORD_KEY: record.to_text()} if role == "sample" else None
            save_png(path, rearrange(picture, "c h w -> h w c").numpy(), text)
        if pair.source.depth is not None:
            save_stored_depth(self.path("src", record.seed), pair.source.depth)


def generate_into(
    folder: RunFolder,
    batches: GeneratedBatches[NamedPairs],
    seeds: Sequence[int],
    processes: Processes,
    failures: Failures,
) -> Iterator[GeneratedBatch]:
    """Save each of this process's batches, yield it, and when all processes are done complete the run of all `seeds`.

    Seeds that cannot be made are left out and told in `failures`, which afterwards are those of all processes.
    """
    processes.barrier()  # nobody writes before everybody has seen what is there
    if processes.is_main:
        folder.begin()
    for batch in batches:
        folder.save(batch, failures.add)
        yield batch
    failures.gather(processes)  # by then everybody has saved what it makes
    if processes.is_main:
        folder.finish(seeds, batches.dataset, batches.sampler.resolution, failures.reasons)


def batches_sheet(batches: Iterable[GeneratedBatch]) -> Image.Image:
    """The same sheet from batches in memory."""
    rows, labels = [], []
    for batch in batches:
        for seed, pair, image in zip(batch.seeds, batch.pairs, batch.images, strict=True):
            rows.append(
                [
                    rearrange(picture, "c h w -> h w c").numpy()
                    for picture in (pair.source.image, image, pair.target.image)
                ]
            )
            labels.append((seed, pair.gap))
    return _sheet(rows, labels)


def _sheet(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[tuple[int, int]]) -> Image.Image:
    return contact_sheet(rows, _TITLES, [f"seed {seed}\ngap {gap}" for seed, gap in labels])
