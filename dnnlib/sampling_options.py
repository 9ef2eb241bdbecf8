"""The options that the command lines which sample share: networks, data, sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import click

from dnnlib.cli import BatchSize, RangeSelection, option, preset_option

NETWORKS, DATA, SAMPLER = "Networks", "Data", "Sampler"
NETWORK_ROLES = ("net", "gnet", "sr_model")
DATA_OPTIONS = ("data", "split", "range_selection")
SOLVER_OPTIONS = ("solver", "sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise")
SOLVERS = ("heun", "euler", "dpmpp_2m")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def network_options(presets: Mapping[str, Mapping[str, Any]]) -> Callable[[Callable], Callable]:
    """Decorator: `--preset`, and which networks."""
    return _all(
        preset_option(presets, section=NETWORKS),
        option("--net", section=NETWORKS, metavar="FILE|URL|NAME", help="Base network.", required=True),
        option("--gnet", section=NETWORKS, metavar="FILE|URL|NAME", help="Guidance network, usually unconditional."),
        option(
            "--sr-model", section=NETWORKS, metavar="FILE|URL|NAME", help="Super-resolution network behind the base."
        ),
        option("--guidance", section=NETWORKS, type=float, default=1.0, help="Strength of guidance; 1 is none."),
        option(
            "--guidance-interval",
            section=NETWORKS,
            type=float,
            nargs=2,
            metavar="LO HI",
            help="Guidance only at noise levels LO < sigma <= HI.  [default: everywhere]",
        ),
        option("--depth-model", section=NETWORKS, metavar="NAME|DIR", help="Depth: small, base, large, DIR, or file."),
        option(
            "--published-intrinsics/--correct-intrinsics",
            section=NETWORKS,
            default=False,
            help="Focal lengths as the published code computes them.",
        ),
        option(
            "--dtype",
            section=NETWORKS,
            type=click.Choice(DTYPES),
            default="auto",
            help="Of the computation; auto: the fastest that this machine is made for.",
        ),
        option(
            "--compile/--no-compile",
            section=NETWORKS,
            default=False,
            help="torch.compile: minutes at first, for long runs on a GPU.",
        ),
    )


def data_options() -> Callable[[Callable], Callable]:
    """Decorator: which pairs of which data."""
    return _all(
        option("--data", section=DATA, metavar="DIR", default="data", help="RealEstate10K, see docs/data.md."),
        option("--split", section=DATA, default="test", help="Which split of it."),
        option(
            "--range-selection", section=DATA, type=RangeSelection(), help="Frame gap: mid, long or A-B (A <= gap < B)."
        ),
    )


def solver_options() -> Callable[[Callable], Callable]:
    """Decorator: how to sample."""
    return _all(
        option("--steps", section=SAMPLER, type=click.IntRange(min=1), default=32, help="Sampling steps."),
        option(
            "--solver",
            section=SAMPLER,
            type=click.Choice(SOLVERS),
            default="heun",
            help="How a step is made; heun asks the networks twice.",
        ),
        option("--sigma_min", section=SAMPLER, type=float, default=0.002, help="Lowest noise level."),
        option("--sigma_max", section=SAMPLER, type=float, default=80.0, help="Highest noise level."),
        option("--rho", section=SAMPLER, type=float, default=7.0, help="Exponent of the noise levels."),
        option("--S_churn", "S_churn", section=SAMPLER, type=float, default=0.0, help="Noise added on the way."),
        option("--S_min", "S_min", section=SAMPLER, type=float, default=0.0, help="... from this noise level"),
        option("--S_max", "S_max", section=SAMPLER, type=float, default=math.inf, help="... to this one."),
        option("--S_noise", "S_noise", section=SAMPLER, type=float, default=1.0, help="Factor on the added noise."),
    )


def batch_option(section: str, default: int) -> Callable[[Callable], Callable]:
    """Decorator: how many images are made at once."""
    what = "Images at once; auto is the largest number that fits into memory."
    return option("--batch", section=section, type=BatchSize(), metavar="N|auto", default=default, help=what)


def _all(*decorators: Callable[[Callable], Callable]) -> Callable[[Callable], Callable]:
    def decorate(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate
