"""What sampling can be told, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from dnnlib import UserError
from generate_images import main
from presets import MODELS, SAMPLING
from training.sampling_config import NetworkFiles, SamplingConfig

NAN = math.nan


def options_of(preset: str) -> dict[str, Any]:
    """What generate_images.py gets."""
    return main.make_context("generate_images.py", ["--preset", preset, "--outdir", "out"]).params


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "rk4"}, "`solver` is one of heun, euler, dpmpp_2m, not 'rk4'"),
        ({"dtype": "int8"}, "`dtype` is one of auto"),
        ({"solver": "dpmpp_2m", "S_churn": 1}, "leave out `S_churn`"),
        ({"num_steps": 0}, "`num_steps` must be in"),
        *[({"sigma_min": value}, "`sigma_min` must be in") for value in (0, -1, math.inf, NAN)],
        *[({"sigma_max": value}, "`sigma_max` must be in") for value in (0, math.inf, NAN)],
        *[({"rho": value}, "`rho` must be in") for value in (0, -7, math.inf, NAN)],
        *[({"guidance": value}, "`guidance` must be in") for value in (math.inf, NAN)],
        ({"sigma_min": 81}, "`sigma_min` 81 is above `sigma_max` 80: give a lower one"),
        ({"sr_sigma_min": 81}, "`sr_sigma_min` 81 is above `sigma_max` 80: give a lower one"),
        ({"sr_solver": "dpmpp_2m", "S_churn": 1}, "leave out `S_churn`, or `sr_solver` heun"),
        ({"sr_num_steps": 0}, "`sr_num_steps` must be in"),
        ({"S_churn": NAN}, "`S_churn` must be in"),
        ({"guidance": 2, "guidance_interval": (2, 1)}, "is empty"),
        ({"guidance": 2, "guidance_interval": (-1, 1)}, "`guidance_interval` must be in"),
        ({"guidance_interval": (1, 2)}, "give `guidance` other than 1"),
    ],
)
def test_what_cannot_be_sampled_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        SamplingConfig(**settings)
    assert message in str(error.value)


def test_guidance_is_where_it_is_wanted() -> None:
    """low < sigma <= high (arXiv:2404.07724)."""
    config = SamplingConfig(guidance=2, guidance_interval=(0.5, 3))
    assert [config.is_guided(sigma) for sigma in (0.5, 0.51, 3, 3.1)] == [False, True, True, False]
    assert SamplingConfig(guidance=2).is_guided(1e-9)
    assert not SamplingConfig().is_guided(1)


def test_super_resolution_may_have_steps_of_its_own() -> None:
    base = SamplingConfig(num_steps=16, sigma_min=0.02, sigma_max=40, guidance=2, guidance_interval=(1, 2))
    assert base.super_resolution == SamplingConfig(num_steps=16, sigma_min=0.02, sigma_max=40)
    own = replace(base, sr_num_steps=3, sr_solver="euler", sr_sigma_min=3.0)
    assert own.super_resolution == SamplingConfig(num_steps=3, sigma_min=3, sigma_max=40, solver="euler")
    assert own.super_resolution.super_resolution == own.super_resolution


def test_the_preset_vivid_is_the_published_command() -> None:
    """The expansion that the published README prints, with the published defaults for the rest."""
    released = "https://ml-site.cdn-apple.com/models/vivid"
    preset = dict(SAMPLING["vivid"])
    networks = {role: MODELS[preset[role]]["location"] for role in ("net", "gnet", "sr_model")}
    assert networks == {
        "net": f"{released}/vivid-base.pkl",
        "gnet": f"{released}/vivid-uncond.pkl",
        "sr_model": f"{released}/vivid-sr.pkl",
    }
    assert preset["guidance"] == 1.5
    assert preset["range_selection"] == "mid"
    published = {"num_steps": 32, "sigma_min": 0.002, "sigma_max": 80, "rho": 7, "solver": "heun"}
    churn = {"S_churn": 0, "S_min": 0, "S_max": math.inf, "S_noise": 1}
    sampling = asdict(SamplingConfig.of(options_of("vivid")))
    assert {name: sampling[name] for name in (*published, *churn)} == {**published, **churn}
    assert not sampling["published_intrinsics"]
    assert sampling["guidance_interval"] is None


def test_vivid_fast_differs_in_its_steps_alone() -> None:
    differing = {name for name, value in SAMPLING["vivid-fast"].items() if SAMPLING["vivid"].get(name) != value}
    assert differing == {"solver", "steps"}


def test_secrets_of_addresses_are_not_recorded() -> None:
    files = NetworkFiles("https://me:secret@host/net.pkl?token=secret", gnet="a?b.pkl")
    assert files.public() == NetworkFiles("https://host/net.pkl", gnet="a?b.pkl")


@pytest.mark.parametrize("name", SAMPLING)
def test_presets_are_values(name: str) -> None:
    SamplingConfig.of(options_of(name))
    assert NetworkFiles.of(options_of(name)).by_role["net"] in MODELS
