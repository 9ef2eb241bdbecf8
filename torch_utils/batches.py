"""What data sets hand to networks: pairs of views, and batches of them.

Data sets and networks do not import each other; they meet here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch

from torch_utils.cameras import View
from torch_utils.geometry_vector import geometry_vector


@dataclass(frozen=True, eq=False)
class Pair:
    """Two views of one scene.

    Attributes:
        source, target: the view that is given and the view that is asked for, in one world coordinate system.
        clip: name of the clip or photograph that both come from.
        source_index, target_index: positions of the frames in the clip.
    """

    source: View
    target: View
    clip: str
    source_index: int
    target_index: int

    @property
    def gap(self) -> int:
        """Distance of the two frames in the clip."""
        return abs(self.source_index - self.target_index)

    def square(self, resolution: int) -> Pair:
        """Both views cropped to the central square and resized to resolution x resolution."""
        return replace(self, source=self.source.square(resolution), target=self.target.square(resolution))


class PairSource(Protocol):
    """What networks ask of a data set: pair k, with views of any size, is a function of k alone."""

    def __getitem__(self, index: int, /) -> Pair: ...


class NamedPairs(PairSource, Protocol):
    """One that a run can be made of, and taken up again."""

    def choose(self, index: int, /) -> tuple[str, int, int]:
        """Clip, and positions of source and target frame, of a pair; nothing is read."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs as tensors, still 8-bit, since that is a quarter of the bytes to move.

    Attributes:
        source, target: uint8 [B, 3, R, R].
        geometry: float32 [B, 20], the geometry vector at resolution R.
        depth: source z-depth, float32 [B, 1, R, R], or None where the pairs carry none.
    """

    source: torch.Tensor
    target: torch.Tensor
    geometry: torch.Tensor
    depth: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: slice | list[int]) -> Batch:
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Batch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return Batch(**moved)


def collate(pairs: Sequence[Pair], published_intrinsics: bool = False) -> Batch:
    """Stack pairs of square views of one size. Depth is kept where every source view has it."""
    resolution = pairs[0].source.camera.width
    depths = [pair.source.depth for pair in pairs if pair.source.depth is not None]
    return Batch(
        source=torch.stack([pair.source.image for pair in pairs]),
        target=torch.stack([pair.target.image for pair in pairs]),
        geometry=torch.stack(
            [geometry_vector(p.source.camera, p.target.camera, resolution, published_intrinsics) for p in pairs]
        ),
        depth=torch.stack(depths)[:, None] if len(depths) == len(pairs) else None,
    )
