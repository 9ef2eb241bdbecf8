"""`calculate_metrics.py compare` of two checkpoints, and of other people's folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calculate_metrics import main
from metrics import gallery
from tests.metrics.test_folders import write
from tests.metrics.test_image import noisy, photographs
from tests.scripts import ROOT, error_of, succeed
from training.model_io import load_network, save_network

TINY = ROOT / "assets" / "vivid-tiny"
GEN = ("gen", "--preset=vivid-tiny", "--steps=1", "--dtype=float32", "--device=cpu", "--workers=0", "--metrics=psnr")
HERE = ("--device=cpu", "--workers=0")


def test_the_demo_beats_a_shaken_copy_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_network(TINY / "sr.safetensors")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.5 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator))
        net.get_parameter("unet.out_gain").mul_(4)  # and loud: alone, the planes would still be a fair guess
    save_network(tmp_path / "shaken.safetensors", net)
    for name, options in (("demo", ()), ("shaken", (f"--sr-model={tmp_path / 'shaken.safetensors'}",))):
        succeed(main, *GEN, f"--pairs={TINY / 'pairs.jsonl'}", "--num=4", f"--outdir={tmp_path / name}", *options)
    sheets = []

    def noted(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], labels: Sequence[str]) -> Image.Image:
        sheets.append((rows, titles, labels))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(gallery, "contact_sheet", noted)
    where = (f"--outdir={tmp_path}", f"--json={tmp_path / 'compared.json'}", "--metrics=psnr,ssim")
    output = succeed(main, "compare", tmp_path / "demo", tmp_path / "shaken", *where, *HERE).output
    content = json.loads((tmp_path / "compared.json").read_text())
    assert [found["verdict"] for found in content["metrics"]] == ["A is better"] * 2
    assert set(content["changed"]) == {"sr_model", "networks.sr_model"}
    assert f"A: {tmp_path / 'demo'}\nB: {tmp_path / 'shaken'}\n" in output
    assert "psnr, A is better most at: " in output
    ((rows, titles, labels),) = sheets
    assert titles == ["source", "A", "B", "target"]
    shown = [label.splitlines()[0] for label in labels]
    assert len(shown) == len(set(shown))
    named = [(row["clip"], row["source"], row["target"]) for row in content["metrics"][0]["first_better"]]
    assert {"{} {} to {}".format(*row) for row in named} <= {*shown}
    last = content["metrics"][0]["first_better"][0]
    assert shown[-1] == "{clip} {source} to {target}".format(**last)
    assert labels[-1].splitlines()[1] == "psnr: A {first:.4g}, B {second:.4g}".format(**last)
    of_target = [10 * np.log10(255**2 / np.mean((image.astype(float) - rows[-1][3]) ** 2)) for image in rows[-1][1:3]]
    assert of_target == pytest.approx([last["first"], last["second"]])


def test_images_of_folders_are_known_by_their_names(tmp_path: Path) -> None:
    """Not by their places: B lacks the first image. The same from tables of `calc`."""
    truth = photographs(32)
    names = [f"room/{k}.png" for k in range(4)]
    for name, noise, first in (("a", 10, 0), ("b", 30, 1)):
        write(tmp_path / name / "pred", noisy(truth, noise)[first:], names[first:])
        write(tmp_path / name / "gt", truth[first:], names[first:])
    output = succeed(main, "compare", tmp_path / "a", tmp_path / "b", "--metrics=psnr", *HERE).output
    assert "pairs: 3 in both, 1 in A alone, 0 in B alone" in output
    assert "room/" in output
    for name in ("a", "b"):
        succeed(main, "calc", f"--images={tmp_path / name}", f"--json={tmp_path / name}.json", "--metrics=psnr", *HERE)
    from_tables = succeed(main, "compare", tmp_path / "a.json", tmp_path / "b.json", *HERE).output
    assert from_tables.splitlines()[1] == output.splitlines()[1]
    asked = error_of(main, "compare", tmp_path / "a.json", tmp_path / "b", f"--outdir={tmp_path}", *HERE)
    assert "pictures need the folders of both runs" in asked
    assert "there is no folder or file" in error_of(main, "compare", tmp_path / "a.json", tmp_path / "c", *HERE)
