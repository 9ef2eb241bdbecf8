"""What no network can be built from is refused before one is, in a line that names the argument."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from dnnlib.util import UserError
from tests.golden import TINY, vectors
from training.network_config import NetworkConfig
from training.precond import NVPrecond


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_resolution": 0}, "img_resolution must be at least 1, not 0"),
        ({"img_resolution": "16"}, "img_resolution must be a whole number, not '16'"),
        ({"model_channels": 8.5}, "model_channels must be a whole number"),
        ({"num_blocks": True}, "num_blocks must be a whole number"),
        ({"channel_mult": []}, "channel_mult must be numbers of at least 1"),
        ({"channel_mult": [1, "2"]}, "channel_mult must be a list of whole numbers"),
        ({"uncond": "no"}, "uncond must be True or False"),
        ({"extra_attn": -1}, "extra_attn must not be negative"),
        ({"plane_sweep": -1}, "plane_sweep must not be negative"),
        ({"plane_nearest": 0.0}, "plane_nearest must be positive"),
        ({"dropout": 1}, r"dropout must be in \[0, 1\)"),
        ({"noisy_sr": -0.1}, r"noisy_sr must be in \[0, 1\)"),
        ({"res_balance": float("nan")}, "res_balance must be at most 1, not nan"),
        ({"sigma_data": float("inf")}, "sigma_data must be at most"),
        ({"depth_input": True, "warp_depth_coor": True}, "choose one"),
        ({"warp_depth_coor": True, "logvar_channels": 5}, "5 is odd"),
        ({"img_resolution": 18, "channel_mult": [1, 1, 1]}, "18 pixels cannot be halved 2 times"),
        ({"channels_per_head": 24}, "16 channels cannot be shared by heads of 24"),
        ({"channels_per_head": 0}, "cannot be shared by heads of 0"),
        ({"chanels": 8}, "there is no argument 'chanels'"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        NetworkConfig.of({**TINY, **changes})
    assert "\n" not in str(error.value)


def test_only_blocks_with_attention_need_heads() -> None:
    """The first level of 8 channels has no attention; with it, it has too few for a head of 16."""
    NetworkConfig.of({**TINY, "channels_per_head": 16})
    with pytest.raises(UserError, match="8 channels cannot be shared by heads of 16"):
        NetworkConfig.of({**TINY, "channels_per_head": 16, "attn_resolutions": [16]})


def test_whatever_is_let_pass_is_built() -> None:
    """Against the modules themselves, for many shapes."""
    for resolution in (8, 12, 16):
        for mult in ([1], [1, 2], [1, 3, 4]):
            for heads in (4, 8, 12, None):
                for extra in (None, 0, 1, 5):
                    try:
                        config = NetworkConfig(
                            resolution, model_channels=8, channel_mult=mult, num_blocks=1, extra_attn=extra,
                            channels_per_head=heads, attn_resolutions=[8],
                        )  # fmt: skip
                    except UserError:
                        continue
                    with torch.device("meta"):
                        NVPrecond(**config.to_dict())


def test_json_and_back() -> None:
    config = NetworkConfig.of({**TINY, "extra_attn": 0, "super_res": True})
    assert NetworkConfig.of(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(NetworkConfig.of(config.to_dict()))


def test_published_arguments_are_arguments() -> None:
    for net in vectors()["nets"].values():
        config = NetworkConfig.of(net["init_kwargs"])
        assert {name: config.to_dict()[name] for name in net["init_kwargs"]} == net["init_kwargs"]


def test_missing_resolution() -> None:
    with pytest.raises(UserError, match="img_resolution is missing"):
        NetworkConfig.of({})
