"""Other people's folders: names, formats, layouts, and what is said where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from calculate_metrics import main
from dnnlib import UserError
from metrics.folders import find_layout, open_folders, open_saved
from metrics.image import psnr
from tests.metrics.scenes import noisy, photographs


def write(folder: Path, images: torch.Tensor, names: list[str]) -> Path:
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("generated", "target"),
    [
        (["a.png", "b.png", "c.png", "d.png"], ["a.png", "b.png", "c.png", "d.png"]),
        (["x/1.png", "x/2.png", "y/1.png", "y/2.png"], ["x/1.bmp", "x/2.bmp", "y/1.bmp", "y/2.bmp"]),
        ([f"pred_{k}.png" for k in (1, 2, 10, 11)], [f"gt-00{k:02d}.bmp" for k in (1, 2, 10, 11)]),
    ],
)
def test_names_and_formats(tmp_path: Path, generated: list[str], target: list[str]) -> None:
    truth = photographs(32)
    images = noisy(truth, 30)
    saved = open_folders(write(tmp_path / "pred", images, generated), write(tmp_path / "gt", truth, target))
    (views,) = saved.batches(4)
    assert torch.equal(psnr(views.generated, views.target), psnr(images, truth))
    assert views.source is None
    assert {role: len(found) for role, found in (find_layout(tmp_path) or {}).items()} == {"sample": 4, "tgt": 4}
    (again,) = open_saved(tmp_path, None, None, None).batches(4)
    assert torch.equal(again.generated, views.generated)


@pytest.mark.parametrize(
    ("generated", "target"),
    [("{k}/pred/0.png", "{k}/gt/0.png"), ("Pred/a/{k}.PNG", "GT/a/{k}.tif"), ("x/renders/{k}.png", "x/Truth/{k}.png")],
)
def test_layouts(tmp_path: Path, generated: str, target: str) -> None:
    """Folders that say what is in them, at any depth and in any case."""
    truth = photographs(32)
    images = noisy(truth, 30)
    for names, of in ((generated, images), (target, truth)):
        write(tmp_path, of, [names.format(k=k) for k in range(4)])
    saved = open_saved(tmp_path, None, None, None)
    (views,) = saved.batches(4)
    assert torch.equal(psnr(views.generated, views.target), psnr(images, truth))
    assert len({*saved.names.values()}) == 4


def test_targets_without_a_generated_image_are_counted(tmp_path: Path) -> None:
    truth = photographs(32)
    write(tmp_path / "gt", truth, [f"{k}.png" for k in range(4)])
    for names in (["1.png", "2.png"], ["view_1.png", "view_2.png"]):  # the same names, the same numbers
        pred = write(tmp_path / names[0], truth[1:3], names)
        saved = open_folders(pred, tmp_path / "gt")
        assert saved.remarks == ["2 true targets have no generated image"]
        (views,) = saved.batches(4)
        assert torch.equal(views.generated, views.target)
    arguments = ["calc", f"--generated={pred}", f"--target={tmp_path / 'gt'}", "--metrics=ssim", "--device=cpu"]
    assert "2 true targets have no generated image" in CliRunner().invoke(main, [*arguments, "--workers=0"]).output


def test_the_command_needs_only_what_a_metric_needs(tmp_path: Path) -> None:
    truth = photographs(32)
    names = [f"{k}.png" for k in range(4)]
    write(tmp_path / "theirs", noisy(truth, 30), names)
    write(tmp_path / "truth", truth, names)

    def call(*arguments: str) -> str:
        return CliRunner().invoke(main, [*arguments, "--device=cpu", "--workers=0"]).output

    generated, target = f"--generated={tmp_path / 'theirs'}", f"--target={tmp_path / 'truth'}"
    output = call("calc", generated, target)
    assert "psnr ↑" in output
    assert "left out: tsed needs" in output
    assert "psnr needs target images" in call("calc", generated, "--metrics=psnr")
    assert "which images? Give --images" in call("calc", target, "--metrics=psnr")
    pytest.importorskip("efficientnet_lite_pytorch")
    assert "statistics of 4 images" in call("ref", target, f"--dest={tmp_path / 'ref.npz'}")
    arguments = ("--metrics=fd_efficientnet", "--allow-few", f"--ref={tmp_path / 'ref.npz'}")
    assert "fd_efficientnet ↓" in call("calc", generated, *arguments)  # no target
    assert "needs target images, or a reference" in call("calc", generated, *arguments[:2])


def test_pictures_and_lists_of_folders(tmp_path: Path) -> None:
    """Without source views there is no column of them; which pairs they are is not known, and said at the start."""
    truth = photographs(32)
    for name, images in (("pred", noisy(truth, 30)), ("gt", truth)):
        write(tmp_path / name, images, [f"room/{k}.png" for k in range(4)])

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, f"--images={tmp_path}", "--metrics=psnr", "--device=cpu"])

    result = call("show", f"--outdir={tmp_path / 'show'}", "--workers=0")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "show").iterdir()] == ["samples.png"]
    result = call("calc", f"--write-pairs={tmp_path / 'pairs.jsonl'}", f"--json={tmp_path / 'table.json'}")
    assert (result.exit_code, "leave --write-pairs out" in result.output) == (2, True)
    assert "psnr ↑" not in result.output
    assert not (tmp_path / "table.json").exists()


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    truth = photographs(32)
    pred = write(tmp_path / "pred", truth, ["a.png", "b.png", "c.png", "d.png"])
    gt = write(tmp_path / "gt", truth, ["a.png", "b.png", "c.png", "e.png"])
    with pytest.raises(UserError, match=r"1 generated images in .* have no true target of the same name, such as d"):
        open_folders(pred, gt)
    with pytest.raises(UserError, match="there is no folder"):
        open_folders(tmp_path / "nowhere", gt)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        open_folders(tmp_path / "empty", gt)
    with pytest.raises(UserError, match=r"neither images of generate_images .* nor folders pred and gt"):
        open_saved(tmp_path / "empty", None, None, None)
    twice = write(tmp_path / "twice", truth[:2], ["a.png", "a.bmp"])
    with pytest.raises(UserError, match="suffix alone"):
        open_folders(twice, gt)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(gt / "a.png")
    saved = open_folders(gt, gt)
    with pytest.raises(UserError, match="differ in size"):
        list(saved.batches(4))
