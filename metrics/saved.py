"""Reading what generate_images writes: src_, tgt_ and sample_ PNGs and run.json, in a folder or a zip file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from einops import rearrange

from datasets.pairs import FramePair
from dnnlib import UserError
from dnnlib.imaging import read_image
from dnnlib.util import ZIP_DAMAGE, check_regular, one_line
from metrics.table import format_indices
from metrics.views import Views
from torch_utils.depth import read_stored_depth
from torch_utils.run_files import RUN_FILE, PairRecord, PictureRole, Run, parse_picture_name

_ROLES: tuple[PictureRole, ...] = ("sample", "tgt", "src")
_MOST_BYTES = 1 << 27  # of a file in an archive: a few bytes there can be gigabytes when they are unpacked


class _NamedBytes(io.BytesIO):
    """A file in a zip file, which errors name like a file in a folder."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Archive:
    """The files in a folder and the folders below, or in a zip file, by their path inside it."""

    root: Path
    names: Sequence[str]
    _zip: zipfile.ZipFile | None = None

    @classmethod
    def open(cls, root: Path) -> Archive:
        """Raises UserError where there is neither a folder nor a zip file."""
        if root.is_dir():
            files = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
            return cls(root, sorted(files))
        try:
            check_regular(root)
            archive = zipfile.ZipFile(root)
        except FileNotFoundError:
            raise UserError(f"there is no folder or zip file {root}") from None
        except (*ZIP_DAMAGE, OSError):
            raise UserError(f"{root} is neither a folder nor a whole zip file") from None
        return cls(root, sorted(name for name in archive.namelist() if not name.endswith("/")), archive)

    def file(self, name: str) -> Path | BinaryIO:
        """The picture, as `read_image` and the like take it."""
        if self._zip is None:
            return self.root / name
        try:
            with self._zip.open(name) as file:
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise UserError(f"{self.root}/{one_line(name)} is too long for a picture or for {RUN_FILE}")
            return _NamedBytes(data, f"{self.root}/{name}")
        except UserError:
            raise
        except (*ZIP_DAMAGE, OSError):
            raise UserError(f"{self.root}/{name} is damaged: make the zip file again") from None

    def image(self, name: str) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return read_image(self.file(name))


@dataclass(frozen=True)
class SavedViews:
    """The images of a run of generate_images, or of other people's folders.

    Attributes:
        files: names in the archive by role, by seed in order; "sample" is there, others may not be.
        records: by seed, where run.json is there.
        range_selection: "" where unknown. options, details: of the run, see `torch_utils.run_files.Run`.
        names: paths of the images by seed, without suffix, where they are not those of a run.
        remarks: what to say of them in a table.
    """

    archive: Archive
    files: Mapping[int, Mapping[str, str]]
    records: Mapping[int, PairRecord] = field(default_factory=dict)
    range_selection: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def has_cameras(self) -> bool:
        """Whether the cameras of all pairs are known."""
        return self.files.keys() <= self.records.keys()

    @property
    def pairs(self) -> dict[int, FramePair]:
        """Clip and frames of each pair that is known, by seed."""
        return {seed: FramePair(*self.records[seed].frames) for seed in self.files if seed in self.records}

    def key(self, seed: int) -> FramePair | str | int:
        """What names a pair in another run, too: clip and frames, else the name of the image, else the seed."""
        pair = self.pairs.get(seed)
        return self.names.get(seed, seed) if pair is None else pair

    @property
    def described(self) -> dict[str, Any]:
        """Where the images are, and how they were made as far as that is known: what a table says as its `run`."""
        made = {"options": dict(self.options), **self.details} if self.options else {}
        return {"images": self.where, **made}

    @property
    def where(self) -> list[str]:
        """The folders or the archive they are in."""
        if self.archive.names:
            return [str(self.archive.root)]
        return sorted({str(Path(name).parent) for files in self.files.values() for name in files.values()})

    def listed(self, pairs: Collection[FramePair]) -> SavedViews:
        """The pairs that are in a list. Raises UserError where it is not known which these are, or none is."""
        if not self.has_cameras:
            raise UserError(f"{self.archive.root} has no {RUN_FILE}, which tells the pairs: leave the pair list out")
        wanted = set(pairs)
        found = [seed for seed, pair in self.pairs.items() if pair in wanted]
        if not found:
            raise UserError(f"{self.archive.root} holds none of the {len(wanted)} listed pairs")
        return self.only(found)

    def only(self, indices: Iterable[int]) -> SavedViews:
        """Some of the pairs."""
        chosen = sorted(indices)
        names = {index: self.names[index] for index in chosen if index in self.names}
        return replace(self, files={index: self.files[index] for index in chosen}, names=names)

    def choose(self, count: int | None, seed: int) -> SavedViews:
        """`count` of the pairs, drawn by `seed`; None: all. Raises UserError where there are fewer."""
        if count is None:
            return self
        if not 1 <= count <= len(self):
            raise UserError(f"{self.archive.root} holds {len(self)} images, not the {count} asked for")
        return self.only(np.random.default_rng(seed).permutation(list(self.files))[:count].tolist())

    def views(self, index: int) -> Views:
        """One pair, as a batch of one. Raises UserError where a file is broken or sizes differ."""
        files = self.files[index]
        images = {role: self.archive.image(files[role]) for role in _ROLES if role in files}
        shapes = {role: image.shape for role, image in images.items()}
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"{role}: {shape[1]}x{shape[0]}" for role, shape in shapes.items())
            raise UserError(f"the images of seed {index} differ in size ({sizes}): all must have one size")
        record = self.records.get(index)
        cameras = None
        if record is not None:
            try:
                cameras = [record.cameras(shapes["sample"][1], shapes["sample"][0])]
            except ValueError as error:
                raise UserError(f"{RUN_FILE} of {self.archive.root}, seed {index}: {error}") from None
        batch = {role: rearrange(torch.from_numpy(image), "h w c -> c h w")[None] for role, image in images.items()}
        return Views([index], batch["sample"], batch.get("tgt"), batch.get("src"), cameras)

    def stored_depth(self, views: Views) -> torch.Tensor:
        """The depth that lies beside the source views, [N, 1, H, W]. Raises UserError where there is none."""
        if not self.archive.root.is_dir():
            raise UserError(f"{self.archive.root} must be unpacked first: depth is read from a folder")
        width, height = views.size
        files = (self.archive.root / self.files[index]["src"] for index in views.indices)
        return torch.stack([read_stored_depth(file, height, width)[None] for file in files])

    def batches(self, size: int, workers: int = 0) -> Iterator[Views]:
        """All pairs in order of their seeds, `size` at a time, read by `workers` threads."""
        seeds = list(self.files)
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            for start in range(0, len(seeds), size):
                yield _stack(list(pool.map(self.views, seeds[start : start + size])))


def open_results(root: Path) -> SavedViews:
    """Find the pictures of a run. Raises UserError where there are none, or one of a triplet is missing or twice."""
    archive = Archive.open(root)
    files: dict[int, dict[str, str]] = {}
    for name in archive.names:
        picture = parse_picture_name(name.rsplit("/", 1)[-1])
        if picture:
            role, seed = picture
            by_role = files.setdefault(seed, {})
            if role in by_role:
                raise UserError(f"{root} holds {by_role[role]} and {name}: one of them is too many")
            by_role[role] = name
    if not files:
        raise UserError(
            f"{root} holds neither images of generate_images (src_000000.png, tgt_000000.png, sample_000000.png) nor "
            "folders pred and gt with images in them; other folders are given as `generated` and `target`"
        )
    for role in _ROLES:
        missing = [seed for seed, by_role in files.items() if role not in by_role]
        if missing:
            raise UserError(f"{root} lacks {role}_{min(missing):06d}.png (seeds without: {format_indices(missing)})")
    return _with_run(SavedViews(archive, dict(sorted(files.items()))))


def _with_run(results: SavedViews) -> SavedViews:
    """The results with what their run.json says, if there is one."""
    archive = results.archive
    names = [name for name in archive.names if name.rsplit("/", 1)[-1] == RUN_FILE]
    if not names:
        return results
    if len(names) > 1:
        raise UserError(f"{archive.root} holds {' and '.join(names)}: judge one run at a time")
    file = archive.file(names[0])
    try:
        run = Run.parse(file.read_bytes() if isinstance(file, Path) else file.read())
    except UserError as error:
        raise UserError(f"{error}, in {archive.root}: remove or restore it") from None
    listed = run.options.get("pairs") or run.options.get("protocol")
    selection = str(run.options.get("range_selection") or ("a list of pairs" if listed else "any"))
    return replace(results, records=run.records, range_selection=selection, options=run.options, details=run.details)


def _stack(views: Sequence[Views]) -> Views:
    """Batches of one to a batch of all."""
    sizes = {one.generated.shape[-2:]: one.indices[0] for one in views}
    if len(sizes) > 1:
        found = " and ".join(f"{width}x{height} (seed {seed})" for (height, width), seed in sizes.items())
        raise UserError(f"the images differ in size, {found}: all must have one size")
    cameras = [camera for one in views for camera in one.cameras or ()]
    return Views(
        [one.indices[0] for one in views],
        torch.cat([one.generated for one in views]),
        _concatenated([one.target for one in views]),
        _concatenated([one.source for one in views]),
        cameras if len(cameras) == len(views) else None,
    )


def _concatenated(images: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    there = [image for image in images if image is not None]
    return torch.cat(there) if there else None
