"""How images are sampled: typed values that the command lines make of their options; nothing heavy is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from dnnlib.settings import Settings, setting
from dnnlib.util import UserError, public_address
from training.solvers import SOLVERS, WITHOUT_CHURN

NETWORKS, SAMPLER = "Networks", "Sampler"
DTYPES = ("auto", "float32", "bfloat16", "float16")
_WEIGHTS: dict[str, Any] = dict(section=NETWORKS, metavar="FILE|DIR|URL|NAME")

Role = Literal["net", "gnet", "sr_model"]
ROLES: tuple[Role, ...] = ("net", "gnet", "sr_model")  # of the networks of a sampler
EVERYWHERE = (0.0, math.inf)  # the interval of guidance, where none is given
SUPER_RESOLUTION = ("sr_num_steps", "sr_solver", "sr_sigma_min")  # what super-resolution may have of its own


def in_interval(sigma: float, interval: tuple[float, float]) -> bool:
    """low < sigma <= high."""
    return interval[0] < sigma <= interval[1]


@dataclass(frozen=True)
class SamplingConfig(Settings):
    """All that decides, beside networks, views and seeds, what comes out. Raises UserError for what cannot be.

    Attributes:
        guidance: strength w of D_g + w (D - D_g); 1 is none.
        guidance_interval: (low, high), the noise levels low < sigma <= high that have it; None: all.
        published_intrinsics: see `geometry_vector`.
        dtype: of the networks' activations; "auto" stands for the fastest that the machine is made for.
        num_steps, sigma_min, sigma_max, rho: the noise levels, EDM, equation 5.
        solver: one of `SOLVERS`.
        S_churn, S_min, S_max, S_noise: noise added on the way, in steps with S_min <= sigma <= S_max.
        sr_num_steps, sr_solver, sr_sigma_min: super-resolution's own; None: as without sr_.
    """

    guidance: float = setting(1.0, "Strength of guidance; 1 is none.", section=NETWORKS, within="(-inf, inf)")
    guidance_interval: tuple[float, float] | None = setting(
        None,
        "Guidance only at noise levels LO < sigma <= HI.  [default: everywhere]",
        section=NETWORKS,
        within="[0, inf]",
        nargs=2,
        type=float,
        metavar="LO HI",
    )
    published_intrinsics: bool = setting(
        False,
        "Focal lengths as the published code computes them.",
        section=NETWORKS,
        option="--published-intrinsics/--correct-intrinsics",
    )
    dtype: str = setting(
        "auto",
        "Of the computation; auto: the fastest that this machine is made for.",
        section=NETWORKS,
        choices=DTYPES,
    )
    num_steps: int = setting(32, "Sampling steps.", section=SAMPLER, option="--steps", within="[1, 10000]")
    solver: str = setting(
        "heun", "How a step is made; heun asks the networks twice.", section=SAMPLER, choices=tuple(SOLVERS)
    )
    sigma_min: float = setting(0.002, "Lowest noise level.", section=SAMPLER, option="--sigma_min", within="(0, inf)")
    sigma_max: float = setting(80.0, "Highest noise level.", section=SAMPLER, option="--sigma_max", within="(0, inf)")
    rho: float = setting(7.0, "Exponent of the noise levels.", section=SAMPLER, within="(0, inf)")
    S_churn: float = setting(0.0, "Noise added on the way.", section=SAMPLER, option="--S_churn", within="[0, inf)")
    S_min: float = setting(0.0, "... from this noise level", section=SAMPLER, option="--S_min", within="[0, inf]")
    S_max: float = setting(math.inf, "... to this one.", section=SAMPLER, option="--S_max", within="[0, inf]")
    S_noise: float = setting(1.0, "Factor on the added noise.", section=SAMPLER, option="--S_noise", within="[0, inf)")
    sr_num_steps: int | None = setting(
        None,
        "Steps of super-resolution.  [default: --steps]",
        section=SAMPLER,
        option="--sr-steps",
        type=int,
        within="[1, 10000]",
    )
    sr_solver: str | None = setting(None, "Its solver.  [default: --solver]", section=SAMPLER, choices=tuple(SOLVERS))
    sr_sigma_min: float | None = setting(
        None, "Its lowest noise level.  [default: --sigma_min]", section=SAMPLER, type=float, within="(0, inf)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigma_min", "sr_sigma_min"):
            lowest = getattr(self, name)
            if lowest is not None and lowest > self.sigma_max:
                raise UserError(f"`{name}` {lowest:g} is above `sigma_max` {self.sigma_max:g}: give a lower one")
        for name in ("solver", "sr_solver"):
            solver = getattr(self, name)
            if solver in WITHOUT_CHURN and self.S_churn > 0:
                raise UserError(f"the solver {solver} takes no noise on the way: leave out `S_churn`, or `{name}` heun")
        low, high = self.guidance_interval or EVERYWHERE
        if low >= high:
            raise UserError(f"the guidance interval {low:g} {high:g} is empty: give LO < HI")
        if self.guidance == 1 and self.guidance_interval is not None:
            raise UserError("there is no guidance to have an interval: leave it out, or give `guidance` other than 1")

    def is_guided(self, sigma: float) -> bool:
        """Whether the guidance network is asked at this noise level."""
        return self.guidance != 1 and in_interval(sigma, self.guidance_interval or EVERYWHERE)

    @property
    def super_resolution(self) -> SamplingConfig:
        """That of a super-resolution network: no guidance, and its own solver and noise levels where it has them."""
        given = {name: getattr(self, name) for name in SUPER_RESOLUTION if getattr(self, name) is not None}
        own: dict[str, Any] = {name.removeprefix("sr_"): value for name, value in given.items()}
        unset: dict[str, Any] = dict.fromkeys(SUPER_RESOLUTION)
        return replace(self, guidance=1.0, guidance_interval=None, **unset, **own)


DEFAULTS = SamplingConfig()


@dataclass(frozen=True)
class NetworkFiles(Settings):
    """Which networks sample, and how they are opened.

    Attributes:
        net, gnet, sr_model: base, guidance and super-resolution network: a file, a folder, an address, a name in
            presets.MODELS, a repository of the Hub: see `model_io.resolve_network`.
        depth_model: see `torch_utils.depth.choose_depth_model`.
        compile: have PyTorch fuse the networks.
    """

    net: str = setting(None, "Base network.", required=True, **_WEIGHTS)
    gnet: str | None = setting(None, "Guidance network, usually unconditional.", **_WEIGHTS)
    sr_model: str | None = setting(None, "Super-resolution network behind the base.", **_WEIGHTS)
    depth_model: str | None = setting(
        None, "Depth: small, base, large, DIR, or file.", section=NETWORKS, metavar="NAME|DIR"
    )
    compile: bool = setting(
        False,
        "torch.compile: minutes at first, for long runs on a GPU.",
        section=NETWORKS,
        option="--compile/--no-compile",
    )

    def public(self) -> NetworkFiles:
        """The same without what in their addresses may be secret, for records that others read."""
        shown: dict[str, Any] = {
            role: public_address(name) if "://" in name else name for role, name in self.by_role.items()
        }
        return replace(self, **shown)

    @property
    def by_role(self) -> dict[Role, str]:
        """Those that are given."""
        return {role: getattr(self, role) for role in ROLES if getattr(self, role)}
