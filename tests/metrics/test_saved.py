from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib import UserError
from dnnlib.imaging import save_png
from metrics import saved
from metrics.saved import open_results
from tests.metrics.scenes import synthetic_pairs, write_run
from torch_utils.batches import Pair


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return synthetic_pairs(5)


@pytest.fixture
def run(pairs: list[Pair], tmp_path: Path) -> Path:
    return write_run(tmp_path / "out", pairs, 255 - torch.stack([pair.target.image for pair in pairs]), first=998)


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


def check_is_whole(root: Path, pairs: list[Pair]) -> None:
    results = open_results(root)
    assert list(results.files) == [998, 999, 1000, 1001, 1002]
    batches = list(results.batches(2, workers=2))
    assert [views.indices for views in batches] == [[998, 999], [1000, 1001], [1002]]
    for index, pair in enumerate(pairs):
        views, row = batches[index // 2], index % 2
        assert torch.equal(views.source[row], pair.source.image)
        assert torch.equal(views.target[row], pair.target.image)
        assert torch.equal(views.generated[row], 255 - pair.target.image)


def test_folder_and_subfolders(run: Path, pairs: list[Pair], tmp_path: Path) -> None:
    check_is_whole(run, pairs)
    nested = write_run(tmp_path / "nested", pairs, 255 - torch.stack([p.target.image for p in pairs]), True, 998)
    assert (nested / "001000" / "src_001000.png").exists()
    check_is_whole(nested, pairs)


def test_cameras_and_gaps_of_the_run(run: Path, pairs: list[Pair]) -> None:
    results = open_results(run)
    assert results.has_cameras
    assert results.range_selection == "5-15"
    assert [record.gap for record in results.records.values()] == [pair.gap for pair in pairs]
    source, target = next(results.batches(1)).cameras[0]
    for found, expected in ((source, pairs[0].source.camera), (target, pairs[0].target.camera)):
        torch.testing.assert_close(found.intrinsics, expected.intrinsics, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.extrinsics, expected.extrinsics, rtol=1e-12, atol=0)


def test_zip_file(run: Path, pairs: list[Pair]) -> None:
    """With the folder itself inside, as most tools make them; run.json is then not at the top."""
    check_is_whole(zipped(run), pairs)
    assert open_results(zipped(run)).has_cameras


def test_choice_of_images(run: Path) -> None:
    results = open_results(run)
    chosen = results.choose(3, seed=1)
    assert list(chosen.files) == sorted(chosen.files)
    assert chosen.files == results.choose(3, seed=1).files != results.choose(3, seed=2).files
    assert len(chosen) == 3
    assert len(results.choose(None, seed=1)) == 5
    for count in (0, 6):
        with pytest.raises(UserError, match=f"holds 5 images, not the {count} asked for"):
            results.choose(count, seed=0)


def test_without_run_file(run: Path) -> None:
    (run / "run.json").unlink()
    results = open_results(run)
    assert not results.has_cameras
    assert next(results.batches(5)).cameras is None


def test_run_file_of_fewer_images(run: Path) -> None:
    """As an interrupted generate_images leaves it."""
    content = json.loads((run / "run.json").read_text())
    content["images"].pop()
    (run / "run.json").write_text(json.dumps(content))
    results = open_results(run)
    assert not results.has_cameras
    assert results.only([998, 999]).has_cameras


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"options": {}, "images": [{}]}', '{"options": [], "images": []}']
)
def test_broken_run_file(run: Path, content: str) -> None:
    (run / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run.json is damaged, or not one of generate_images"):
        open_results(run)


def test_broken_cameras(run: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    content["images"][1]["source_camera"][7] = 9.0
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="seed 999: not a rotation"):
        list(open_results(run).batches(5))
    content["images"][1]["source_camera"] = ["x"]
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"run.json .*seed 999"):
        list(open_results(run).batches(5))


def test_missing_and_double_pictures(run: Path) -> None:
    (run / "more").mkdir()
    shutil.copy(run / "tgt_000999.png", run / "more")
    with pytest.raises(UserError, match=r"more/tgt_000999.png and tgt_000999.png: one of them is too many"):
        open_results(run)
    shutil.rmtree(run / "more")
    for seed in (998, 1001):
        (run / f"tgt_{seed:06d}.png").unlink()
    with pytest.raises(UserError, match=r"lacks tgt_000998.png \(seeds without: 998,1001\)"):
        open_results(run)


def test_two_runs(run: Path, pairs: list[Pair]) -> None:
    write_run(run / "more", pairs, torch.stack([pair.target.image for pair in pairs]), first=0)
    with pytest.raises(UserError, match=r"more/run.json and run.json: judge one run at a time"):
        open_results(run)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder or zip file"):
        open_results(tmp_path / "none")
    with pytest.raises(UserError, match="holds neither images of generate_images"):
        open_results(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="neither a folder nor a whole zip file"):
        open_results(tmp_path / "a.zip")


def test_half_written_pictures(run: Path) -> None:
    path = run / "sample_001000.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"sample_001000.png is not a whole image"):
        list(open_results(run).batches(5, workers=2))
    with pytest.raises(UserError, match=r"out.zip/out/sample_001000.png is not a whole image"):
        list(open_results(zipped(run)).batches(5, workers=2))


def test_damaged_zip_member(run: Path) -> None:
    archive = zipped(run)
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo("out/tgt_000998.png")
    content = bytearray(archive.read_bytes())
    middle = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    content[middle : middle + 8] = bytes(8)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"out.zip/out/tgt_000998.png is damaged|not a whole image"):
        list(open_results(archive).batches(5))


def test_sizes_that_differ(run: Path) -> None:
    small = np.zeros((32, 32, 3), np.uint8)
    save_png(run / "sample_001001.png", small)
    with pytest.raises(UserError, match=r"seed 1001 differ in size \(sample: 32x32, tgt: 64x64, src: 64x64\)"):
        list(open_results(run).batches(2))
    for kind in ("src", "tgt"):
        save_png(run / f"{kind}_001001.png", small)
    with pytest.raises(UserError, match=r"64x64 \(seed 1000\) and 32x32 \(seed 1001\)"):
        list(open_results(run).batches(2))


def test_grey_pictures_are_read_as_colour(run: Path) -> None:
    for kind in ("src", "tgt", "sample"):
        Image.new("L", (64, 64), 7).save(run / f"{kind}_000998.png")
    assert next(open_results(run).batches(1)).source.unique().tolist() == [7]


def test_a_zip_file_is_read_within_bounds(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes in an archive may be gigabytes when they are unpacked: no more than the bound is read."""
    archive = zipped(run)
    monkeypatch.setattr(saved, "_MOST_BYTES", 100)
    with pytest.raises(UserError, match=r"is too long for a picture or for run.json"):
        open_results(archive)
