"""What a network is: one frozen, typed value that is checked before anything is built, and stored with the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dnnlib.settings import setting
from dnnlib.util import UserError, one_line

NETWORK, ENCODINGS = "Network", "Encodings"

# A super-resolution denoiser has heads of 32 channels, its source encoder of 64. Shapes do not show it.
_HEAD_CHANNELS = 64
_SUPER_RES_HEAD_CHANNELS = 32


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# What a value of each annotation must be.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", _is_int),
    "int | None": ("a whole number or None", lambda value: value is None or _is_int(value)),
    "float": ("a number", lambda value: _is_int(value) or isinstance(value, float)),
    "str": ("a name", lambda value: isinstance(value, str)),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "tuple[int, ...]": ("a list of whole numbers", lambda value: isinstance(value, tuple) and all(map(_is_int, value))),
}

# The largest of each that anybody could mean. Networks are made of Python objects: counts cost time, not memory alone.
_MOST = {
    **{"img_resolution": 1 << 13, "img_channels": 64, "label_dim": 1 << 12, "model_channels": 1 << 14},
    **{"num_blocks": 64, "extra_attn": 64, "channels_per_head": 1 << 12, "logvar_channels": 1 << 14},
    **{"plane_sweep": 1 << 10, "channel_mult": 64, "attn_resolutions": 1 << 13, "clip_act": 1e6, "sigma_data": 1e6},
    **{"plane_nearest": 1e6, "plane_spacing": 1e3, "plane_blend_gain": 1e6},
}
_MOST_LEVELS = 14


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What denoiser and source encoder have in common (docs/method.md, section 4).

    Attributes:
        model_channels, channel_mult, num_blocks: width of the levels, and residual blocks in each.
        attn_resolutions: levels whose blocks have attention.
        extra_attn: number of one more block with attention in every level below the first; 0 is a number, None is none.
        label_balance, concat_balance, res_balance, attn_balance: weights of sums and concatenations.
        clip_act: largest magnitude of an activation. dropout: its probability.
    """

    model_channels: int = setting(128, "Channels of the first level.", section=NETWORK, option="--channels")
    channel_mult: tuple[int, ...] = setting(
        (1, 2, 3, 4), "Channels of the levels, relative.", section=NETWORK, kind="list"
    )
    num_blocks: int = setting(3, "Residual blocks per level.", section=NETWORK, option="--blocks")
    attn_resolutions: tuple[int, ...] = setting((16, 8), "Levels with attention.", section=NETWORK, kind="list")
    extra_attn: int | None = setting(
        None, "Number of one more block with attention per level.", section=NETWORK, type=int
    )
    label_balance: float = 0.5
    concat_balance: float = 0.5
    res_balance: float = 0.3
    attn_balance: float = 0.3
    clip_act: float = 256.0
    dropout: float = setting(0.0, "Dropout probability.", section=NETWORK)

    def unet_arguments(self) -> dict[str, Any]:
        """Return the arguments for `UNet`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(UNetConfig)}


@dataclass(frozen=True, kw_only=True)
class EncodingConfig:
    """Which encodings a network has, and their settings: the part of `NetworkConfig` that `training.encodings` reads.

    Attributes:
        super_res: the denoiser also gets a low-resolution image, with `noisy_sr` N(0, 1) added.
        depth_input: src has a fourth channel, `conditioning.normalize_inverse_depth`.
        warp_depth_coor: src has a fourth channel, z-depth; Fourier features of coordinates moved by it are input.
        epipolar_attention_bias: attention to source tokens is biased by their distance from epipolar lines.
        plane_sweep: the denoiser also gets the source view as the target camera sees it if all is at one depth, for
            so many depths (Collins 1996), and says how to blend these planes. 0 is none.
        plane_nearest: inverse depth of the nearest plane, in one over the unit of the poses.
        plane_spacing: exponent of the inverse depths of the planes: 1 is even, above lies denser farther away.
        plane_matching: the denoiser also gets how far each plane, made small, is from the low-resolution image.
        plane_blend_gain: first value of the learned gain on what the network says of each plane.
    """

    super_res: bool = setting(
        False, "Super-resolution network.", section=ENCODINGS, option="--sr-training/--base-training"
    )
    noisy_sr: float = setting(0.25, "Noise on the low-resolution image.", section=ENCODINGS)
    depth_input: bool = setting(
        False, "Depth of the source view as input.", section=ENCODINGS, option="--depth-input/--no-depth-input"
    )
    warp_depth_coor: bool = setting(
        False, "Coordinates moved by depth.", section=ENCODINGS, option="--warp-depth-coor/--no-warp-depth-coor"
    )
    epipolar_attention_bias: bool = setting(
        False,
        "Bias by epipolar lines.",
        section=ENCODINGS,
        option="--epipolar-attn-bias/--no-epipolar-attn-bias",
    )
    plane_sweep: int = setting(0, "Planes the source moves on; 0: off.", section=ENCODINGS)
    plane_nearest: float = setting(0.5, "Inverse depth of the nearest, in 1/unit.", section=ENCODINGS)
    plane_spacing: float = setting(2.0, "Above 1: planes lie denser farther away.", section=ENCODINGS)
    plane_blend_gain: float = 3.0
    plane_matching: bool = setting(
        False,
        "Compare planes with the small image.",
        section=ENCODINGS,
        option="--plane-matching/--no-plane-matching",
    )

    # Those that tell of the source view or of where it was seen from, which an unconditional network knows nothing of.
    of_source: ClassVar = ("epipolar_attention_bias", "depth_input", "warp_depth_coor", "plane_sweep")

    def encoding_faults(self) -> list[tuple[bool, str]]:
        """(whether it is at fault, what is wrong), of values of the right type."""
        return [
            (not 0 <= self.noisy_sr < 1, f"noisy_sr must be in [0, 1), not {self.noisy_sr}"),
            (self.plane_sweep < 0, f"plane_sweep must not be negative, but is {self.plane_sweep}"),
            *(
                (not 0 < getattr(self, name) < float("inf"), f"{name} must be positive, not {getattr(self, name)}")
                for name in ("plane_nearest", "plane_spacing", "plane_blend_gain")
            ),
            (
                self.plane_matching and not (self.super_res and self.plane_sweep),
                "plane_matching compares planes with the low-resolution image: it needs super_res and plane_sweep",
            ),
            (
                self.depth_input and self.warp_depth_coor,
                "depth_input and warp_depth_coor both want the fourth channel of src: choose one",
            ),
        ]

    @property
    def needs_depth(self) -> bool:
        """Whether source views must come with depth."""
        return self.depth_input or self.warp_depth_coor


@dataclass(frozen=True)
class NetworkConfig(UNetConfig, EncodingConfig):
    """The constructor arguments of `NVPrecond`. Raises UserError for what no network can be built from.

    Attributes, beside those of `UNetConfig` and `EncodingConfig`:
        architecture: of denoiser and source encoder, see `precond.ARCHITECTURES`.
        img_resolution: side R of the views; img_channels: 3; label_dim: 20, the geometry vector.
        no_time_enc: the source encoder gets c_noise = 0, so its features serve a whole sample.
        uncond: no source encoder, zero features and zero geometry (the guidance network).
        use_fp16: compute in float16 on CUDA, unless `NVPrecond.compute_dtype` says otherwise.
        sigma_data: standard deviation of the views, or of what is left of them after the blend of planes.
        logvar_channels: width of the features of the log-variance.
        channels_per_head: for denoiser and source encoder; None: 64, or 32 in a super-resolution denoiser.
    """

    img_resolution: int
    img_channels: int = 3
    label_dim: int = 20
    no_time_enc: bool = setting(
        False, "Source features that serve a whole sample.", section=NETWORK, option="--no-time-enc/--time-enc"
    )
    uncond: bool = setting(False, "Unconditional network, for guidance.", section=NETWORK, option="--uncond/--cond")
    use_fp16: bool = True
    sigma_data: float = setting(0.5, "Spread of the views, or of what planes miss.", section=NETWORK)
    logvar_channels: int = 128
    channels_per_head: int | None = setting(
        None, "Width of attention heads.  [default: the published]", section=NETWORK, type=int
    )
    architecture: str = "unet"

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> NetworkConfig:
        """Make it from arguments that others wrote. Raises UserError also for a name that is unknown or missing."""
        if not isinstance(arguments, Mapping):
            raise UserError(f"no network can be built from {_short(arguments)}")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = [name for name in arguments if name not in known]
        if unknown:
            raise UserError(f"no network can be built: there is no argument {_short(unknown[0])}")
        if "img_resolution" not in arguments:
            raise UserError("no network can be built: img_resolution is missing")
        return cls(**arguments)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            kind, is_kind = _KINDS[str(field.type)]
            _refuse(not is_kind(value), f"{field.name} must be {kind}, not {_short(value)}")
            entries = value if isinstance(value, tuple) else [] if isinstance(value, str) else [value or 0]
            _refuse(len(entries) > _MOST_LEVELS, f"{field.name} must have at most {_MOST_LEVELS} entries")
            for entry in entries:
                most = _MOST.get(field.name, 1)
                _refuse(not abs(entry) <= most, f"{field.name} must be at most {most:g}, not {_short(entry)}")
        self._check_ranges()
        for fault in self.encoding_faults():
            _refuse(*fault)
        if self.architecture == "unet":
            self._check_shapes()

    def _check_ranges(self) -> None:
        for name in ("img_resolution", "img_channels", "label_dim", "model_channels", "num_blocks", "logvar_channels"):
            _refuse(getattr(self, name) < 1, f"{name} must be at least 1, not {getattr(self, name)}")
        _refuse(not self.channel_mult or min(self.channel_mult) < 1, "channel_mult must be numbers of at least 1")
        _refuse((self.extra_attn or 0) < 0, f"extra_attn must not be negative, but is {self.extra_attn}")
        _refuse(not 0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        for name in ("label_balance", "concat_balance", "res_balance", "attn_balance"):
            _refuse(not 0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], not {getattr(self, name)}")
        for name in ("sigma_data", "clip_act"):
            value = getattr(self, name)
            _refuse(not 0 < value < float("inf"), f"{name} must be positive, not {value}")
        _refuse(
            self.warp_depth_coor and self.logvar_channels % 2 != 0,
            f"warp_depth_coor shares logvar_channels among two coordinates: {self.logvar_channels} is odd",
        )

    def _check_shapes(self) -> None:
        """Levels that can be halved, and heads that share the width of every level with attention."""
        levels = len(self.channel_mult)
        _refuse(
            self.img_resolution % 2 ** (levels - 1) != 0,
            f"no network can be built: {self.img_resolution} pixels cannot be halved {levels - 1} times",
        )
        attended = {
            self.model_channels * mult
            for level, mult in enumerate(self.channel_mult)
            if self.img_resolution >> level in self.attn_resolutions
            or level == levels - 1
            or (level > 0 and self.extra_attn is not None and self.extra_attn <= self.num_blocks)
        }
        head_channels = {self.denoiser_head_channels} | (set() if self.uncond else {self.encoder_head_channels})
        for width in sorted(attended):
            for channels in sorted(head_channels):
                heads = width // channels if channels > 0 else 0
                _refuse(
                    heads < 1 or width % heads != 0,
                    f"no network can be built: {width} channels cannot be shared by heads of {channels}",
                )

    @property
    def denoiser_head_channels(self) -> int:
        """Width of the attention heads of the denoiser."""
        wanted = self.channels_per_head
        return (_SUPER_RES_HEAD_CHANNELS if self.super_res else _HEAD_CHANNELS) if wanted is None else wanted

    @property
    def encoder_head_channels(self) -> int:
        """Width of the attention heads of the source encoder."""
        return _HEAD_CHANNELS if self.channels_per_head is None else self.channels_per_head

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: `NetworkConfig.of` reads it."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _short(value: Any) -> str:
    """A value that may come from anywhere, for a message; Python refuses to write a number of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return one_line(repr(value), 60)


def _refuse(bad: bool, message: str) -> None:
    if bad:
        raise UserError(message)
