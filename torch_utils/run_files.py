"""The format of a folder of generated pictures: their names, `run.json`, and the record that each sample carries.

Pictures are `src_000016.png`, `sample_000016.png` and `tgt_000016.png` for seed 16, in the folder or in one folder per
1000 seeds. A sample's PNG carries the record of its pair as text, so that the two cannot come apart; `run.json` holds
the options of the run and all records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from dnnlib.imaging import png_text
from dnnlib.text_files import parse_json
from dnnlib.util import UserError, atomic_path
from torch_utils.batches import Pair
from torch_utils.cameras import Camera

PictureRole = Literal["src", "sample", "tgt"]
PICTURE_ROLES: tuple[PictureRole, ...] = get_args(PictureRole)
RUN_FILE = "run.json"
RECORD_KEY = "vivid"  # of the text in a sample's PNG

_SEEDS_PER_FOLDER = 1000
_PICTURE = re.compile(rf"({'|'.join(PICTURE_ROLES)})_([0-9]+)\.png")
_BEFORE = {"solver": "heun", "guidance_interval": None, "pairs": None}  # what runs that do not say so did


def picture_path(folder: Path, role: PictureRole, seed: int, subdirs: bool = False) -> Path:
    """Return the path of a seed's picture."""
    parent = folder / f"{seed - seed % _SEEDS_PER_FOLDER:06d}" if subdirs else folder
    return parent / f"{role}_{seed:06d}.png"


def parse_picture_name(name: str) -> tuple[PictureRole, int] | None:
    """Role and seed of a file's name, without folders; None where it is no such picture."""
    match = _PICTURE.fullmatch(name)
    return (match[1], int(match[2])) if match else None  # type: ignore[return-value]  # the pattern has but roles


@dataclass(frozen=True)
class PairRecord:
    """What is known of a pair whose pictures were made.

    Attributes:
        clip, source_index, target_index: see `torch_utils.batches.Pair`; gap: distance of the two frames.
        source_camera, target_camera: the 18 numbers of RealEstate10K, for the square pictures.
    """

    seed: int
    clip: str
    source_index: int
    target_index: int
    gap: int
    source_camera: Sequence[float]
    target_camera: Sequence[float]

    @classmethod
    def of(cls, seed: int, pair: Pair) -> PairRecord:
        """The record of a pair of square views."""
        cameras = (view.camera.to_normalized().tolist() for view in (pair.source, pair.target))
        return cls(seed, pair.clip, pair.source_index, pair.target_index, pair.gap, *cameras)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PairRecord:
        """Read it from JSON. Raises KeyError, TypeError or ValueError for what is none."""
        seed = content["seed"]
        try:
            return cls._checked(content)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"seed {seed}: {type(error).__name__} {error}") from None

    @classmethod
    def _checked(cls, content: Mapping[str, Any]) -> PairRecord:
        numbers: dict[str, Any] = {name: int(content[name]) for name in ("seed", "source_index", "target_index", "gap")}
        cameras: dict[str, Any] = {
            name: [float(x) for x in content[name]] for name in ("source_camera", "target_camera")
        }
        return cls(clip=str(content["clip"]), **numbers, **cameras)

    @property
    def frames(self) -> tuple[str, int, int]:
        """Clip, and positions of source and target frame."""
        return self.clip, self.source_index, self.target_index

    def cameras(self, width: int, height: int) -> tuple[Camera, Camera]:
        """Source and target camera of pictures of this size. Raises ValueError where they are none."""
        both = (torch.tensor(values, dtype=torch.float64) for values in (self.source_camera, self.target_camera))
        source, target = (Camera.from_normalized(values, width, height) for values in both)
        return source, target

    def to_text(self) -> str:
        """Return the text for the PNG of the sample."""
        return json.dumps(asdict(self))


def read_record(sample: Path) -> PairRecord | None:
    """The record that a sample's PNG carries; None where it carries none or is broken."""
    try:
        return PairRecord.from_dict(json.loads(png_text(sample)[RECORD_KEY]))
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Run:
    """The content of `run.json`.

    Attributes:
        options: all that decides what the pictures show.
        records: by seed.
        details: what else there is to know: networks, device, versions, failed seeds.
    """

    options: Mapping[str, Any]
    records: Mapping[int, PairRecord] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | bytes) -> Run:
        """Raises UserError for what no run has written."""
        try:
            content = parse_json(text, RUN_FILE)
            options = {**_BEFORE, **content["options"]}
            if "dtype" in content:  # where earlier runs say it
                options.setdefault("dtype", content["dtype"])
            records = [PairRecord.from_dict(image) for image in content["images"]]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"{RUN_FILE} is damaged, or not one of generate_images ({error})") from None
        details = {name: value for name, value in content.items() if name not in ("options", "images")}
        return cls(options, {record.seed: record for record in records}, details)

    def write(self, folder: Path) -> None:
        """Write `run.json` into a folder, whole or not at all."""
        images = [asdict(self.records[seed]) for seed in sorted(self.records)]
        content = {"options": self.options, **self.details, "images": images}
        with atomic_path(folder / RUN_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_run(folder: Path) -> Run | None:
    """The run of a folder; None where there is no `run.json`. Raises UserError where it is damaged."""
    file = folder / RUN_FILE
    try:
        return Run.parse(file.read_bytes())
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
