"""Training states: whole or not at all, the last two, old names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnnlib.util import UserError
from training.checkpoint import check_moments, kimg_name, load_newest_state, save_state


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_names_are_exact_and_in_order(a: int, b: int) -> None:
    assert round(float(kimg_name(a)) * 1000) == a
    assert (kimg_name(a) < kimg_name(b)) == (a < b)


def test_example() -> None:
    assert kimg_name(131072) == "0000131.072"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for images in (1000, 1001, 64000, 999_999_000):
        save_state(tmp_path, images, {"x": torch.tensor(images)})
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["training-state-0000064.000.pt", "training-state-0999999.000.pt"]
    assert load_newest_state(tmp_path) == {"x": torch.tensor(999_999_000), "images": 999_999_000}


def test_names_without_decimals_are_read(tmp_path: Path) -> None:
    torch.save({"images": 16384}, tmp_path / "training-state-0000016.pt")
    assert load_newest_state(tmp_path) == {"images": 16384}
    save_state(tmp_path, 16400, {})
    assert load_newest_state(tmp_path) == {"images": 16400}


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "training-state-0000016.000.pt").write_bytes(b"")
    (tmp_path / "training-state-latest.pt").write_bytes(b"")
    assert load_newest_state(tmp_path) is None


def test_a_state_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write") as error:
        save_state(tmp_path / "missing", 1000, {})
    assert "\n" not in str(error.value)


def test_a_state_that_is_not_finite_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_state(tmp_path, 1000, {"net": {"weight": torch.ones(2)}})
    save_state(tmp_path, 2000, {"net": {"weight": torch.tensor([1, torch.nan])}})
    assert load_newest_state(tmp_path)["images"] == 1000
    assert "not finite" in caplog.text


@pytest.mark.parametrize("what", ["list", "images", "compressed", "larger"])
def test_what_is_no_state_is_passed_over(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "training-state-0000016.000.pt"
    content = {"list": [1], "images": {"images": "many"}, "larger": {"images": 1, "x": torch.ones(1).expand(10**12)}}
    torch.save(content.get(what, {"images": 1}), path)
    if what == "compressed":
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in records.items():
                archive.writestr(name, data)
    assert load_newest_state(tmp_path) is None
    assert "is damaged and passed over" in caplog.text


def test_moments_must_have_the_shapes_of_their_weights() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight])
    optimizer.state[weight] = {"step": torch.tensor(1.0), "exp_avg": torch.ones(4)}
    with pytest.raises(ValueError, match=r"exp_avg of shape \[4\] for a weight of \[3\]"):
        check_moments(optimizer)
