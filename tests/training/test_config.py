"""A configuration fails before a network is built, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dnnlib.util import UserError
from tests.training.runs import tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, r"`batch` must be in \[1, inf\)"),
        ({"status": 0}, r"`status` must be in \[1, inf\)"),
        ({"single_image_mix": 1.0}, r"`single_image_mix` must be in \[0, 1\)"),
        ({"precision": "float8"}, "`precision` is one of"),
        ({"lr": float("inf")}, r"`lr` must be in \(0, inf\)"),
        ({"loss_scaling": 0.0}, r"`loss_scaling` must be in \(0, inf\)"),
        ({"P_std": 0.0}, r"`P_std` must be in \(0, inf\)"),
        ({"perceptual": -0.1}, r"`perceptual` must be in \[0, inf\)"),
        ({"perceptual_sigma": 0.0}, r"`perceptual_sigma` must be in \(0, inf\]"),
        ({"seed": -1}, r"`seed` must be in \[0, inf\)"),
        ({"network": {"dropout": 1.0}}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_impossible_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(Path("data"), **changes)


@pytest.mark.parametrize(
    "network",
    [
        {"chanels": 8},
        {"img_resolution": 18, "channel_mult": [1, 2, 3]},
        {"channels_per_head": 24},
    ],
)
def test_impossible_networks(network: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no network can be built") as error:
        tiny_config(Path("data"), network)
    assert "\n" not in str(error.value)


def test_the_seed_names_the_weights() -> None:
    nets = [tiny_config(Path("data"), seed=seed).build_network().state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert not torch.equal(nets[0]["unet.out_conv.weight"], nets[2]["unet.out_conv.weight"])


def test_a_run_from_before_an_option_was_there_goes_on_without_it() -> None:
    before = tiny_config(Path("a")).to_dict()
    del before["perceptual"]
    assert tiny_config(Path("a")).differences(before) == []
    assert tiny_config(Path("a"), perceptual=0.1).differences(before) == ["perceptual was 0.0 and is 0.1"]


def test_what_a_run_may_change_when_it_goes_on() -> None:
    before = json.loads(json.dumps(tiny_config(Path("a")).to_dict()))
    assert tiny_config(Path("b"), duration=1000, batch_gpu=1, workers=3, status=7, metrics=5).differences(before) == []
    (different,) = tiny_config(Path("a"), lr=0.5).differences(before)
    assert different == "lr was 0.02 and is 0.5"
    (different,) = tiny_config(Path("a"), {"uncond": True}).differences(before)
    assert different == "network: uncond was False and is True"
