"""Each protocol's pairs against a script of ten lines that knows nothing of the implementation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from datasets.pairs import FramePair
from dnnlib import UserError
from metrics.image import psnr
from metrics.protocols import PROTOCOLS, find_protocol
from metrics.views import Views
from tests.metrics import by_hand

CLIPS = {"long": range(300), "gaps": [0, 5, 31, 60, 62, 91, 121, 200], "short": range(20), "b": range(3, 64)}


@pytest.mark.parametrize(
    ("name", "forward", "backward", "gaps"),
    [
        ("vivid-mid", (30, 59), (30, 60), 30),
        ("vivid-long", (60, 119), (60, 120), 60),
        ("tsed", (10, 10), (10, 10), 10),
    ],
)
def test_drawn_pairs(name: str, forward: tuple[int, int], backward: tuple[int, int], gaps: int) -> None:
    expected = by_hand.drawn(CLIPS, forward, backward, count=100)
    chosen = PROTOCOLS[name].choose(CLIPS, count=100)
    assert [row.pair for row in chosen] == expected
    found = Counter(target - source for _, source, target in (row.pair for row in PROTOCOLS[name].choose(CLIPS)))
    assert min(abs(gap) for gap in found) >= gaps
    if name == "vivid-mid":
        assert (max(found), min(found)) == (59, -60)  # lopsided, as published
    if name == "vivid-long":
        assert (max(found), min(found)) == (119, -120)


def test_rows_of_flash3d(tmp_path: Path) -> None:
    rows = ["a 141 146 151 151", "b 81 86 91 60"]
    (tmp_path / "rows.txt").write_text("\n".join(rows) + "\n")
    groups = ("5 frames", "10 frames", "random within 30")
    expected = []
    for line in rows:
        clip, source, *targets = line.split()
        expected += [((clip, int(source), int(t)), group) for t, group in zip(targets, groups, strict=True)]
    assert PROTOCOLS["flash3d"].choose({}, tmp_path / "rows.txt") == expected


def test_a_list_is_not_cut_to_a_number_of_draws(tmp_path: Path) -> None:
    """Pairs that the data do not have would count among them."""
    index = {f"clip{k}": {"context": [0, 9], "target": [3, 5]} for k in range(6000)}
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert len(find_protocol("pixelsplat").choose({}, tmp_path / "index.json", count=10_000)) == 12_000


@pytest.mark.parametrize("context", ["first", "second", "closer"])
def test_evaluation_index_of_pixelsplat(tmp_path: Path, context: str) -> None:
    index = {"a": {"context": [58, 133], "target": [84, 102, 129]}, "b": None, "c": {"context": [3, 9], "target": [6]}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    expected = []
    for clip, entry in index.items():
        for target in entry["target"] if entry else []:
            one, two = entry["context"]
            closer = one if abs(target - one) <= abs(target - two) else two
            expected.append((clip, {"first": one, "second": two, "closer": closer}[context], target))
    protocol = find_protocol("pixelsplat" if context == "first" else f"pixelsplat-{context}")
    assert [row.pair for row in protocol.choose({}, tmp_path / "index.json")] == expected


def test_frames_50_and_200() -> None:
    expected = []
    for clip, frames in sorted(CLIPS.items()):
        for gap in (50, 200):
            if frames[0] + gap in frames:
                expected.append(((clip, frames[0], frames[0] + gap), f"frame {gap}"))
    assert PROTOCOLS["re10k-50-200"].choose(CLIPS) == expected


def test_what_a_protocol_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no protocol 'mid'; known are vivid-mid"):
        find_protocol("mid")
    with pytest.raises(UserError, match=r"from a file.*evaluation_index_re10k"):
        find_protocol("pixelsplat").choose(CLIPS)
    with pytest.raises(UserError, match="chooses its own pairs"):
        find_protocol("vivid-mid").choose(CLIPS, tmp_path)
    for name in ("vivid-mid", "re10k-50-200"):
        with pytest.raises(UserError, match="longer clips"):
            find_protocol(name).choose({"short": range(20)})


def test_definitions_are_complete() -> None:
    from metrics import METRICS

    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert set(protocol.metrics) <= set(METRICS)
        assert protocol.source in protocol.describe()


def test_border_cut_of_flash3d() -> None:
    """256 rows: 13 to 242, as ceil(0.05 h) and floor(0.95 h) say."""
    generated, target = torch.randint(0, 256, (2, 2, 3, 256, 256), dtype=torch.uint8)
    views = Views([0, 1], generated, target).without_border(0.05)
    assert views.size == (230, 230)
    expected = psnr(generated[..., 13:243, 13:243], target[..., 13:243, 13:243])
    assert torch.equal(psnr(views.generated, views.target), expected)


def test_pairs_are_frame_pairs() -> None:
    assert all(isinstance(row.pair, FramePair) for row in PROTOCOLS["vivid-mid"].choose(CLIPS, count=3))
