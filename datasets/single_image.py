"""Single photographs: two virtual turns of the camera make a pair with a known pose (docs/method.md, section 7.5)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.clips import Clips
from datasets.pairs import PairDataset, random_uniform, visit
from datasets.photographs import open_photographs
from dnnlib.util import UserError
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View, center_box, intrinsics_matrix
from torch_utils.warping import euler_rotation, rotation_homography, warp_homography

_SIDE = 512  # pixels, to which a photograph is resized and cropped
_FOCAL = 0.6 * _SIDE
_CENTER = _SIDE / 2 + 0.5  # the published code has its principal point at the centre of pixel 256


class Recipe(NamedTuple):
    """How far a virtual camera turns, either way, and how many central pixels then lie within the photograph."""

    pitch_yaw_deg: float
    roll_deg: float
    crop: int


RECIPES = (Recipe(8.3, 3.5, 320), Recipe(5.5, 0.0, 384))


class SingleImages(PairDataset):
    """Pairs of virtual views of photographs of any size and kind. Photographs are visited once an epoch.

    All files are decoded once at the start, on all cores, to know the broken ones: some ten milliseconds each.

    Args:
        folder: photographs, in it and in the folders below, or a pack of them.
        resolution: side of the views in pixels.
        seed: not negative; another seed, other turns.

    Attributes:
        skipped: how many files cannot be used, by reason.

    Raises UserError where the folder holds no photograph that can be read.
    """

    def __init__(self, folder: str | PathLike, resolution: int = 64, *, seed: int = 0) -> None:
        super().__init__()
        _read_photograph.cache_clear()  # files may have changed since another data set read them
        self.resolution, self.seed, self._clips = resolution, seed, open_photographs(Path(folder))
        self._numbers = list(self._scan())
        if not self._numbers:
            raise UserError(f"{folder}: no photograph can be read: {self._skip_reasons()}")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, k: int) -> Pair:
        chosen = visit(len(self), self.seed, k)
        number, photograph = self._numbers[chosen], self.photograph(chosen).to(torch.float32)
        numbers = random_uniform("virtual views", self.seed, k, count=8).tolist()
        source, target = (_draw_view(photograph, *four) for four in (numbers[:4], numbers[4:]))
        return Pair(source, target, self._clips.names[number], 0, 1).square(self.resolution)

    def photograph(self, number: int) -> torch.Tensor:
        """The one of this number, among those that can be read: uint8 [3, 512, 512], its centre."""
        return _read_photograph(self._clips, self._numbers[number])

    def summary(self) -> str:
        return self._with_skipped(f"{len(self)} photographs")

    def _scan(self) -> Iterator[int]:
        def error_of(number: int) -> UserError | None:
            try:
                self._clips.open(number).view(0)
            except UserError as error:
                return error
            return None

        numbers = range(len(self._clips.names))
        with ThreadPoolExecutor() as pool:
            for number, error in zip(numbers, pool.map(error_of, numbers), strict=True):
                if error is None:
                    yield number
                else:
                    self._skip("broken", str(error))


class Mixed(PairDataset):
    """`dataset` with a share of others: item k is `others[k]` with probability `fraction`.

    Whether it is depends on (`purpose`, seed, k) alone, so all processes agree. Raises UserError unless
    0 <= fraction < 1.
    """

    def __init__(
        self,
        dataset: PairDataset,
        others: PairDataset,
        fraction: float,
        *,
        seed: int = 0,
        purpose: str = "single photograph",
    ) -> None:
        super().__init__()
        if not 0 <= fraction < 1:
            raise UserError(f"the share of {purpose}s is {fraction}; it must be at least 0 and below 1")
        self.dataset, self.others, self.fraction, self.seed, self.purpose = dataset, others, fraction, seed, purpose

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, k: int) -> Pair:
        other = random_uniform(self.purpose, self.seed, k)[0] < self.fraction
        return (self.others if other else self.dataset)[k]

    def summary(self) -> str:
        return f"{self.dataset.summary()}; mixed with {self.fraction:.0%} from {self.others.summary()}"


def virtual_view(photograph: torch.Tensor, rotation: torch.Tensor, crop: int) -> View:
    """Return what a camera that turns on the spot sees of a photograph.

    Args:
        photograph: float32 [3, 512, 512] in 0 .. 255, taken with focal length 0.6 * 512 looking at its centre.
        rotation: float64 [3, 3], from the camera of the photograph to the new one.
        crop: side of the central square of the new view that is kept.

    Raises ValueError where a pixel would come from outside the photograph.
    """
    focal, center = (torch.tensor(value, dtype=torch.float64) for value in (_FOCAL, _CENTER))
    extrinsics = torch.cat([rotation, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    camera = Camera(intrinsics_matrix(focal, focal, center, center), extrinsics, _SIDE, _SIDE)
    box = center_box(_SIDE, _SIDE, crop, crop)
    image, inside = warp_homography(photograph, rotation_homography(camera.intrinsics, rotation), box)
    if not bool(inside.all()):
        raise ValueError("a virtual view reaches beyond the photograph; turn less or crop more")
    return View(image.round_().to(torch.uint8), camera.crop(*box))


def _draw_view(photograph: torch.Tensor, choice: float, *turns: float) -> View:
    """A virtual view from four numbers in [0, 1): which recipe, and the three angles."""
    recipe = RECIPES[int(choice * len(RECIPES))]
    roll, yaw, pitch = (2 * turn - 1 for turn in turns)
    rotation = euler_rotation(roll * recipe.roll_deg, yaw * recipe.pitch_yaw_deg, pitch * recipe.pitch_yaw_deg)
    return virtual_view(photograph, rotation, recipe.crop)


@lru_cache(maxsize=128)  # of 0.8 MB
def _read_photograph(clips: Clips, number: int) -> torch.Tensor:
    """Centre crop and resize to uint8 [3, 512, 512]."""
    return clips.open(number).view(0).square(_SIDE).image
