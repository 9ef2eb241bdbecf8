"""What a training run is: one frozen, typed value that is checked before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets.config import DATA, DataConfig
from dnnlib.settings import Settings, setting
from dnnlib.util import STORED, UserError
from training.network_config import NetworkConfig
from training.sampling_config import SamplingConfig

if TYPE_CHECKING:
    import torch

    from training.loss import Distance, NVLoss
    from training.precond import NVPrecond

RUN, LEARNING, SPEED, REPORTS = "Run", "Learning", "Speed", "Reports"
_SOME = "[1, inf)"
_BASE_SIGMA_MAX = 40.0  # where the sampling of `base` starts
PRECISIONS = ("float32", "float16", "bfloat16")

# What may differ between a run and its continuation: where, how fast and how talkative, not what is computed.
_FREE_TO_CHANGE = {
    *("data", "single_image_data", "duration", "batch_gpu", "workers", "bench", "compile"),
    *("status", "snapshot", "checkpoint", "samples", "metrics", "validation", "validation_split"),
}


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """A training run. Amounts are counted in images seen.

    Attributes:
        network: what is trained.
        data, single_image_data: folders of clips and of photographs.
        range_selection: which frames make a pair, see `datasets.realestate10k`.
        depth_model: where the depth of source views comes from, for a network that needs it: see `torch_utils.depth`.
        single_image_mix, synthetic_mix: shares of pairs from photographs, and from rooms papered with them, [0, 1).
        duration: images to see in all; batch: images per step over all processes.
        batch_gpu: most images of one process to compute at once; None: all of its share.
        lr, decay, ramp_up: see `schedule.learning_rate`; decay in batches, ramp_up in images.
        P_mean, P_std: the noise levels of `NVLoss`.
        perceptual, perceptual_sigma: weight of a perceptual distance of the denoised view to the true one, per element
            as the rest of the loss is, and the highest noise level that has it; 0 is none.
        base, base_mix: base network (file, address or name) of which super-resolution gets views in place of true ones
            made small, and the share of pairs where it does: see `training.cascade`.
        base_steps, base_sigma_min: Euler steps of these views, and the noise level that they go down to. Few and high
            give the mean of what a view may be, many and low give one that may be.
        init: network (file, address or name) whose weights a new run starts from; None: from random ones.
        precision: dtype of the U-Nets' activations; weights, gradients and sums stay float32.
        loss_scaling: constant factor on the loss, taken out of the gradient, for float16.
        ema_stds: relative standard deviations of the power-function averages.
        seed: names initial weights, pairs and noise.
        workers: data loading processes per process.
        bench: let cuDNN measure which convolution is fastest; compile: have `torch.compile` fuse element-wise work.
        status, snapshot, checkpoint, samples, metrics, validation: every how many images; None is never.
        validation_split: whose pairs the validation loss is of.
    """

    network: NetworkConfig
    data: str = setting("data", "RealEstate10K folder, or pixelSplat chunks.", section=DATA, metavar="DIR")
    range_selection: str | None = setting(
        None, "Frame gap: mid, long or A-B (A <= gap < B).", section=DATA, kind="range"
    )
    depth_model: str | None = setting(
        None, "Depth of views: small, base, large, DIR, or file.", section=DATA, metavar="NAME|DIR"
    )
    single_image_mix: float = setting(0.0, "Share of pairs from photographs, [0, 1).", section=DATA, within="[0, 1)")
    single_image_data: str | None = setting(
        None, "Their folder.  [default: SingleImages in --data]", section=DATA, metavar="DIR"
    )
    synthetic_mix: float = setting(0.0, "Share from rooms papered with them, [0, 1).", section=DATA, within="[0, 1)")
    duration: int = setting(1 << 30, "Images to see.", section=RUN, kind="count", within=_SOME)
    batch: int = setting(1024, "Images per step, over all processes.", section=LEARNING, kind="count", within=_SOME)
    batch_gpu: int | None = setting(
        None, "Most images of a process at once.  [default: all]", section=SPEED, kind="count", within=_SOME
    )
    lr: float = setting(0.012, "Reference learning rate.", section=LEARNING, within="(0, inf)")
    decay: float = setting(
        35000, "Batches before it decays; 0 is never.", section=LEARNING, within="[0, inf)", type=float
    )
    ramp_up: int = setting(10_000_000, "Images of its linear ramp.", section=LEARNING, kind="count", within="[0, inf)")
    P_mean: float = setting(-0.8, "Mean of ln sigma.", section=LEARNING, option="--P_mean", within="(-inf, inf)")
    P_std: float = setting(
        1.6, "Standard deviation of ln sigma.", section=LEARNING, option="--P_std", within="(0, inf)"
    )
    perceptual: float = setting(0.0, "Weight of LPIPS at low noise; 0 is none.", section=LEARNING, within="[0, inf)")
    perceptual_sigma: float = setting(0.5, "Highest noise level that has it.", section=LEARNING, within="(0, inf]")
    base: str | None = setting(
        None, "Super-resolution also learns from the views of a base network.", section=LEARNING, metavar="NET"
    )
    base_mix: float = setting(0.5, "Share of pairs where it does.", section=LEARNING, within="(0, 1]")
    base_steps: int = setting(3, "Euler steps of these views.", section=LEARNING, within="[1, 10000]")
    base_sigma_min: float = setting(
        3.0, "Noise level that they go down to.", section=LEARNING, within=f"(0, {_BASE_SIGMA_MAX:g}]"
    )
    init: str | None = setting(
        None, "Start from the weights of a network, not from random ones.", section=LEARNING, metavar="NET"
    )
    precision: str = setting("float32", choices=PRECISIONS)
    loss_scaling: float = setting(1.0, "Loss scaling, for float16.", section=SPEED, option="--ls", within="(0, inf)")
    ema_stds: tuple[float, ...] = (0.05, 0.10)
    seed: int = setting(0, "Names initial weights, pairs and noise.", section=RUN, within="[0, inf)")
    workers: int = setting(2, "Data loading processes.", section=SPEED, within="[0, inf)")
    bench: bool = setting(True, "Let cuDNN measure its convolutions.", section=SPEED, option="--bench/--no-bench")
    compile: bool = setting(
        False, "Fuse element-wise work; takes minutes, once.", section=SPEED, option="--compile/--no-compile"
    )
    status: int = setting(128 << 10, "Images between status lines.", section=REPORTS, kind="count", within=_SOME)
    snapshot: int | None = setting(
        8 << 20, "Images between network snapshots.", section=REPORTS, kind="count", within=_SOME
    )
    checkpoint: int | None = setting(
        8 << 20, "Images between training states.", section=REPORTS, kind="count", within=_SOME
    )
    samples: int | None = setting(
        None, "Images between sample sheets.  [default: never]", section=REPORTS, kind="count", within=_SOME
    )
    metrics: int | None = setting(
        None, "Images between metrics, also at the end.  [default: never]", section=REPORTS, kind="count", within=_SOME
    )
    validation: int | None = setting(
        None, "Images between validation losses.  [default: never]", section=REPORTS, kind="count", within=_SOME
    )
    validation_split: str = setting("test", "Split that these are of.", section=REPORTS, metavar="NAME")

    def __post_init__(self) -> None:
        super().__post_init__()

        def refuse(bad: bool, message: str) -> None:
            if bad:
                raise UserError(message)

        refuse(
            self.base is not None and not self.network.super_res,
            "`base` is what super-resolution learns from: leave it out, or train super-resolution",
        )
        self._check_geometry(refuse)

    def _check_geometry(self, refuse: Callable[[bool, str], None]) -> None:
        """Encodings of geometry that contradict each other or would do nothing."""
        from torch_utils.depth import DEPTH_CHOICES

        source_options = ("no_time_enc", *self.network.of_source) if self.network.uncond else ()
        useless = [name for name in source_options if getattr(self.network, name)]
        refuse(bool(useless), f"an unconditional network sees no source view: leave out {', '.join(useless)}")
        refuse(
            self.needs_depth and self.depth_model is None,
            f"depth_input and warp_depth_coor need source depth: give `depth_model`, one of {DEPTH_CHOICES}",
        )
        refuse(
            not self.needs_depth and self.depth_model is not None,
            "depth_model is for depth_input or warp_depth_coor: add one of them or leave it out",
        )
        refuse(
            self.depth_model == STORED and self.single_image_mix > 0,
            f"single photographs have no depth {STORED}: name a depth model, or leave out single_image_mix",
        )

    @property
    def needs_depth(self) -> bool:
        """Whether source views must come with depth."""
        return self.network.needs_depth

    @property
    def resolution(self) -> int:
        """Side of the training images."""
        return self.network.img_resolution

    def pairs(self, split: str) -> DataConfig:
        """Pairs of the clips, as they are judged on."""
        return DataConfig(self.data, split, self.range_selection, seed=self.seed, depth_model=self.depth_model)

    def training_pairs(self) -> DataConfig:
        """Pair k of the run is item k: clips, mixed with single photographs where asked for."""
        names = ("single_image_mix", "single_image_data", "synthetic_mix")
        return dataclasses.replace(self.pairs("train"), **{name: getattr(self, name) for name in names})

    def build_network(self) -> NVPrecond:
        """The network, with weights that depend on the seed alone."""
        import torch

        from training.precond import NVPrecond

        torch.manual_seed(self.seed)
        net = NVPrecond(**self.network.to_dict())
        net.compute_dtype = getattr(torch, self.precision)
        return net

    def adopt_network(self, net: NVPrecond) -> NVPrecond:
        """A network of one's own, made ready as one of `build_network`. Raises UserError unless `network` is its."""
        import torch

        if net.arguments != self.network:
            raise UserError("`network` of the config is not what `net` was built with: give net.arguments")
        net.compute_dtype = getattr(torch, self.precision)
        return net

    @property
    def base_sampling(self) -> SamplingConfig:
        """How `base` makes its views."""
        return SamplingConfig(
            solver="euler", num_steps=self.base_steps, sigma_min=self.base_sigma_min, sigma_max=_BASE_SIGMA_MAX
        )

    def load_base(self, device: torch.device | str) -> NVPrecond | None:
        """`base`, frozen, if the run has one. Raises UserError unless it is a base network."""
        import torch

        from training.model_io import load_network

        if self.base is None:
            return None
        net = load_network(self.base, device)
        if net.super_res:
            raise UserError("`base` is a super-resolution network: give it a base network")
        return net.freeze(getattr(torch, self.precision))

    def build_loss(self, distance: Distance | None = None, base: NVPrecond | None = None) -> NVLoss:
        """`distance` is that of the perceptual term, `base` the network of `load_base`, if the run has them."""
        from training.cascade import BaseViews
        from training.encodings import Encodings
        from training.loss import NVLoss, PerceptualTerm

        term = (
            PerceptualTerm(distance, self.perceptual, self.perceptual_sigma) if distance and self.perceptual else None
        )
        views = None if base is None else BaseViews(base, self.base_mix, self.base_sampling)
        return NVLoss(self.P_mean, self.P_std, self.network.sigma_data, Encodings(self.network), term, views)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings for JSON."""
        return {**dataclasses.asdict(self), "ema_stds": list(self.ema_stds), "network": self.network.to_dict()}

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Return what stands against going on with a run that was started with `other` (see `to_dict`), in words."""
        mine = self.to_dict()
        other = {**_DEFAULTS, **other}  # what was added since does what it did before it was there
        found = [
            f"{name} was {other.get(name)} and is {mine[name]}"
            for name in mine
            if name not in (*_FREE_TO_CHANGE, "network") and mine[name] != other.get(name)
        ]
        network = NetworkConfig.of(other.get("network") or {}).to_dict()
        changed = {name: value for name, value in mine["network"].items() if value != network[name]}
        return found + [f"network: {name} was {network[name]} and is {value}" for name, value in changed.items()]


_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(TrainingConfig)
    if field.default is not dataclasses.MISSING
}
