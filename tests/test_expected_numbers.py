"""The committed list of pairs of the views that the repository carries, and what the demo networks get there.

After a change of the demo's weights, write the numbers anew:
python calculate_metrics.py gen --preset=vivid-tiny --pairs=assets/vivid-tiny/pairs.jsonl --dtype=float32 \
    --metrics=psnr,ssim,lpips,lpips_vgg --write-pairs=assets/vivid-tiny/pairs.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from calculate_metrics import main

PAIRS = Path(__file__).resolve().parents[1] / "assets" / "vivid-tiny" / "pairs.jsonl"
TOLERANCE = {"psnr": 0.05, "ssim": 0.002, "lpips": 0.005, "lpips_vgg": 0.005}  # 8-bit values may be 1 apart elsewhere


def test_the_demo_networks_get_the_expected_numbers(tmp_path: Path) -> None:
    arguments = ["--preset=vivid-tiny", f"--pairs={PAIRS}", "--dtype=float32", f"--metrics={','.join(TOLERANCE)}"]
    found = tmp_path / "found.jsonl"
    result = CliRunner().invoke(main, ["gen", *arguments, "--device=cpu", "--workers=0", f"--write-pairs={found}"])
    assert result.exit_code == 0, result.output
    rows, expected = ([json.loads(line) for line in file.read_text().splitlines()] for file in (found, PAIRS))
    assert len(rows) == len(expected) == 8
    for row, known in zip(rows, expected, strict=True):
        for name in ("seed", "clip", "source", "target"):
            assert row[name] == known[name]
        for name, tolerance in TOLERANCE.items():
            assert row[name] == pytest.approx(known[name], abs=tolerance), (row["seed"], name)
