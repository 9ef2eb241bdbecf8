"""Long runs into a folder: memory stays flat, and what fails leaves all else complete."""

from __future__ import annotations

import errno
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.path_config import ViewPath
from datasets.user_image import Photograph
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View
from training import results
from training.failures import Failures
from training.generation import GeneratedBatches
from training.path_config import RenderConfig
from training.results import RunFolder
from training.trajectory import PathRenderer

SIDE, BATCH = 8, 4
CAMERA = Camera.from_fov(58, SIDE, SIDE)


class Watch:
    """Makes grey pictures and counts those that are still in memory, if only as part of another tensor's storage."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref] = []

    def __call__(self, *shape: int) -> torch.Tensor:
        array = np.full(shape, 128, dtype=np.uint8)  # lives as long as the storage of the tensor
        self._seen = [*self.alive, weakref.ref(array)]
        return torch.from_numpy(array)

    @property
    def alive(self) -> list[weakref.ref]:
        return [reference for reference in self._seen if reference() is not None]


class Pairs:
    """Pairs of grey pictures; those of `broken` seeds cannot be read."""

    def __init__(self, watch: Watch, broken: Sequence[int] = ()) -> None:
        self.watch, self.broken = watch, broken

    def __getitem__(self, seed: int) -> Pair:
        if seed in self.broken:
            raise ValueError(f"frame {seed} is torn")
        source, target = (View(self.watch(3, SIDE, SIDE), CAMERA) for _ in range(2))
        return Pair(source, target, *self.choose(seed))

    def choose(self, seed: int) -> tuple[str, int, int]:
        return "clip", 0, 1


class Sampler:
    """Gives grey pictures; not for the seeds that it cannot bear, nor for more at once than fit."""

    def __init__(self, watch: Watch, unbearable: Sequence[int] = (), room: int = BATCH) -> None:
        self.watch, self.unbearable, self.room = watch, unbearable, room
        self.net = SimpleNamespace(super_res=False)
        self.resolution, self.device = SIDE, torch.device("cpu")

    def __call__(
        self, sources: Sequence[View], targets: Sequence[Camera], seeds: Sequence[int], conditioning_image: None = None
    ) -> torch.Tensor:
        if len(seeds) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if set(seeds) & set(self.unbearable):
            raise ArithmeticError("not finite")
        return self.watch(len(seeds), 3, SIDE, SIDE)


def test_no_picture_of_a_long_run_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "save_png", lambda path, picture, text: None)
    watch, count = Watch(), 1000
    most = 6 * BATCH  # source and target as they are stored, and squared, and images; of two batches at most
    folder = RunFolder(tmp_path)
    for batch in GeneratedBatches(Sampler(watch), Pairs(watch), range(count), BATCH):
        folder.save(batch)
        assert len(watch.alive) <= most
    assert len(folder.records) == count
    assert sum(len(record.to_text()) for record in folder.records.values()) < 1000 * count  # 10,000 are no burden

    held = list(GeneratedBatches(Sampler(watch), Pairs(watch), range(20 * BATCH), BATCH))
    assert len(watch.alive) > most, "the test would not see that pictures are held"
    del held


@pytest.mark.parametrize("condition", ["first", "chain", "stochastic"])
def test_no_frame_of_a_long_path_is_held(condition: str) -> None:
    watch = Watch()
    photograph = View(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), CAMERA)
    path = ViewPath(Photograph("grey", photograph, 58.0, "default"), [CAMERA] * 400)
    renderer = PathRenderer(Sampler(watch), path, RenderConfig(condition=condition), batch_size=BATCH)
    for _ in renderer:
        assert len(watch.alive) <= 20  # stochastic conditioning remembers 16 key frames, each of a batch


def test_the_rest_of_a_run_is_complete_and_the_next_run_makes_what_is_missing(tmp_path: Path) -> None:
    """A frame that cannot be read, batches that do not fit, an image that cannot be made, one that cannot be saved."""
    watch, seeds, failures = Watch(), range(12), Failures()
    folder = RunFolder(tmp_path)
    folder.path("sample", 9).mkdir()
    pairs = Pairs(watch, broken=[2])
    batches = GeneratedBatches(Sampler(watch, unbearable=[5], room=2), pairs, seeds, BATCH, failures.add)
    for batch in batches:
        folder.save(batch, failures.add)
    folder.finish(seeds, pairs, SIDE, failures.reasons)
    assert failures.reasons.keys() == {2, 5, 9}
    assert failures.reasons[2] == "ValueError: frame 2 is torn"
    run = json.loads((tmp_path / "run.json").read_text())
    assert [record["seed"] for record in run["images"]] == [0, 1, 3, 4, 6, 7, 8, 10, 11]
    assert run["failed"].keys() == {"2", "5", "9"}
    assert (tmp_path / "sheet.png").exists()

    folder.path("sample", 9).rmdir()
    again = RunFolder(tmp_path)
    missing = again.missing(seeds, pairs)
    assert missing == [2, 5, 9]
    for batch in GeneratedBatches(Sampler(watch), Pairs(watch), missing, 4):
        again.save(batch)
    again.finish(seeds, pairs, SIDE)
    run = json.loads((tmp_path / "run.json").read_text())
    assert [record["seed"] for record in run["images"]] == list(seeds)
    assert "failed" not in run


def test_a_run_of_which_nothing_is_left(tmp_path: Path) -> None:
    folder, failures = RunFolder(tmp_path), Failures()
    pairs = Pairs(Watch(), broken=[0, 1])
    assert list(GeneratedBatches(Sampler(Watch()), pairs, [0, 1], BATCH, failures.add)) == []
    folder.finish([0, 1], pairs, SIDE, failures.reasons)
    assert not (tmp_path / "sheet.png").exists()


def test_without_anybody_to_tell_errors_are_raised(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame 2 is torn"):
        list(GeneratedBatches(Sampler(Watch()), Pairs(Watch(), broken=[2]), range(4), BATCH))
    with pytest.raises(ArithmeticError):
        list(GeneratedBatches(Sampler(Watch(), unbearable=[2]), Pairs(Watch()), range(4), BATCH))
    made = GeneratedBatches(Sampler(Watch(), room=1), Pairs(Watch()), range(3), BATCH)
    assert [batch.seeds for batch in made] == [[0], [1], [2]]


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_png(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "save_png", save_png)
    (batch,) = GeneratedBatches(Sampler(Watch()), Pairs(Watch()), range(2), BATCH)
    with pytest.raises(OSError, match="No space left"):
        RunFolder(tmp_path).save(batch, Failures().add)
