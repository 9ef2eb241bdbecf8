"""Networks and how they are sampled as diffusers keeps them: `VividPipeline`, its models and its scheduler.

    from diffusers import DiffusionPipeline
    import training.diffusers_pipeline  # diffusers knows the classes then; no code of a folder is ever run

    pipe = DiffusionPipeline.from_pretrained(FOLDER)
    pipe(photograph, source_camera, target_camera).images[0]

`python -m training.diffusers_model` writes such folders. Needs `pip install diffusers`.
"""

# Annotations are values here: some versions of diffusers read those of a pipeline, and know `Optional` alone.
import sys
from collections.abc import Sequence
from typing import Any, Optional, Self, TypeVar

import diffusers
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from einops import rearrange
from PIL import Image

from dnnlib.util import UserError
from torch_utils.cameras import Camera, View, pixels_to_uint8
from torch_utils.distributed import fast_dtype
from torch_utils.random import SeededGenerators
from training.generation import NovelViewSampler
from training.precond import NVPrecond
from training.sampling import Denoiser, edm_sampler, evaluation_levels
from training.sampling_config import DEFAULTS, ROLES, SUPER_RESOLUTION, SamplingConfig

_OUTPUTS = ("pil", "np", "pt")
_SOLVER = ("solver", "sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise", *SUPER_RESOLUTION)
_One = TypeVar("_One")


class DiffusersNVPrecond(NVPrecond, ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name the config file
    """`NVPrecond` with `save_pretrained` and `from_pretrained`. Weights that are cast say what it computes in.

    Args:
        init_kwargs: that class's arguments; typical_depth: its attribute.
        provenance: what the file it came from tells of its training.
    """

    _keep_in_fp32_modules: Any = ["freqs", "phases"]  # noqa: RUF012  # the rounding of frequencies is amplified

    @register_to_config
    def __init__(
        self,
        init_kwargs: dict[str, Any],
        typical_depth: float | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(**init_kwargs)
        self.typical_depth = typical_depth

    @classmethod
    def from_network(cls, net: NVPrecond, provenance: dict[str, Any] | None = None) -> Self:
        """A copy of a network."""
        model = cls(net.init_kwargs, net.typical_depth, provenance)
        model.load_state_dict(net.state_dict())
        return model.eval().requires_grad_(False)

    def frozen_copy(self, device: torch.device, dtype: torch.dtype | None) -> NVPrecond:
        """A copy ready for sampling on a device; this one stays as it was trained, and can be saved."""
        with torch.device("meta"):
            net = NVPrecond(**self.init_kwargs)
        state = self.state_dict()
        copies = {name: tensor.detach().to(device, torch.float32, copy=True) for name, tensor in state.items()}
        net.load_state_dict(copies, assign=True)
        net.typical_depth = self.typical_depth
        return net.requires_grad_(False).freeze(dtype)


class VividScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # both name the config file
    """Noise levels and solver of `SamplingConfig`, whose fields these are, as a component of a pipeline.

    `sigma_data` is the base network's, for the schedulers of diffusers that are made `from_config` of this one;
    `S_max` None is no bound.
    """

    @register_to_config
    def __init__(
        self,
        solver: str = DEFAULTS.solver,
        sigma_min: float = DEFAULTS.sigma_min,
        sigma_max: float = DEFAULTS.sigma_max,
        rho: float = DEFAULTS.rho,
        S_churn: float = DEFAULTS.S_churn,
        S_min: float = DEFAULTS.S_min,
        S_max: float | None = None,
        S_noise: float = DEFAULTS.S_noise,
        sr_num_steps: int | None = None,
        sr_solver: str | None = None,
        sr_sigma_min: float | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        SamplingConfig(**self.settings)

    @classmethod
    def of(cls, config: SamplingConfig, sigma_data: float) -> Self:
        """That of a sampling configuration."""
        settings = {name: getattr(config, name) for name in _SOLVER}
        if config.S_max == DEFAULTS.S_max:  # infinite, which JSON knows no number for
            settings["S_max"] = None
        return cls(**settings, sigma_data=sigma_data)

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of `SamplingConfig`."""
        return {name: self.config[name] for name in _SOLVER if self.config[name] is not None}


class VividPipeline(DiffusionPipeline):
    """Novel views as `generate_images.py` makes them: base network, guidance, super-resolution.

    Args:
        net, gnet, sr_model: see `NovelViewSampler`.
        scheduler: a `VividScheduler`, or EDMEulerScheduler or EDMDPMSolverMultistepScheduler of diffusers.
        num_inference_steps, guidance, guidance_interval, published_intrinsics, dtype: see `SamplingConfig`.
    """

    _optional_components = ["gnet", "sr_model"]  # noqa: RUF012  # diffusers wants a list

    def __init__(
        self,
        net: DiffusersNVPrecond,
        scheduler: SchedulerMixin,
        gnet: Optional[DiffusersNVPrecond] = None,  # noqa: UP045
        sr_model: Optional[DiffusersNVPrecond] = None,  # noqa: UP045
        num_inference_steps: int = DEFAULTS.num_steps,
        guidance: float = DEFAULTS.guidance,
        guidance_interval: Optional[list[float]] = None,  # noqa: UP045
        published_intrinsics: bool = DEFAULTS.published_intrinsics,
        dtype: str = DEFAULTS.dtype,
    ) -> None:
        super().__init__()
        if net.super_res:
            raise UserError("`net` is a super-resolution network: give it as `sr_model`, behind a base network")
        self.register_modules(net=net, scheduler=scheduler, gnet=gnet, sr_model=sr_model)
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance=guidance,
            guidance_interval=guidance_interval,
            published_intrinsics=published_intrinsics,
            dtype=dtype,
        )
        NovelViewSampler(net, gnet, sr_model, self._sampling(None, None))  # they go together

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image],
        source: Camera | Sequence[Camera],
        target: Camera | Sequence[Camera],
        *,
        depth: Sequence[torch.Tensor] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """What `target` would see of the scene in `image`, which `source` has taken.

        Args:
            image, source, target: one, or one for each view that is made; cameras fit their images, and any size does.
            depth: for networks that need it, z-depth of each image, float32 [H, W].
            generator: on the CPU, one for each view or one for all; seed s gives the noise of `--seeds=s`.
            num_inference_steps, guidance_scale: instead of what the pipeline was made with.
            output_type: "pil"; "np" or "pt", [B, R, R, 3] or [B, 3, R, R] in [0, 1].
            return_dict: False gives the images in a tuple.

        Raises UserError for what cannot be, and NotFinite.
        """
        if output_type not in _OUTPUTS:
            raise UserError(f"`output_type` is one of {', '.join(_OUTPUTS)}, not {output_type!r}")
        images, sources, targets = _each(image), _each(source), _each(target)
        generators = _each(torch.default_generator if generator is None else generator)
        count = max(len(images), len(sources), len(targets))
        images, sources, targets, generators = (
            _spread(name, values, count)
            for name, values in (("image", images), ("source", sources), ("target", targets), ("generator", generators))
        )
        depths = [None] * count if depth is None else _spread("depth", list(depth), count)
        if any(one.device.type != "cpu" for one in generators):
            raise UserError("`generator` must be on the CPU, so that every device gets the same noise")
        views = [
            View(rearrange(torch.from_numpy(np.array(picture.convert("RGB"))), "h w c -> c h w"), camera, one)
            for picture, camera, one in zip(images, sources, depths, strict=True)
        ]
        sampler = self._sampler(self._sampling(num_inference_steps, guidance_scale))
        made = sampler.sample(views, targets, SeededGenerators(generators))
        result = _output(made.cpu(), output_type)
        return ImagePipelineOutput(result) if return_dict else (result,)

    def _sampling(self, num_inference_steps: int | None, guidance_scale: float | None) -> SamplingConfig:
        config = self.config
        interval, guidance = config["guidance_interval"], config["guidance"]
        guidance = guidance if guidance_scale is None else guidance_scale
        return SamplingConfig(
            guidance=guidance,
            guidance_interval=None if interval is None or guidance == 1 else tuple(interval),
            published_intrinsics=config["published_intrinsics"],
            dtype=config["dtype"],
            num_steps=config["num_inference_steps"] if num_inference_steps is None else num_inference_steps,
            **(self.scheduler.settings if isinstance(self.scheduler, VividScheduler) else {}),
        )

    def _sampler(self, config: SamplingConfig) -> NovelViewSampler:
        """With copies of the networks, frozen on the device where the pipeline computes."""
        device, networks = self._execution_device, {}
        for role in ROLES:
            model = getattr(self, role)
            if model is not None and (role != "gnet" or config.guidance != 1):
                chosen = fast_dtype(device) if config.dtype == "auto" else getattr(torch, config.dtype)
                networks[role] = model.frozen_copy(device, chosen if model.dtype == torch.float32 else model.dtype)
        return NovelViewSampler(**networks, config=config, integrate=self._integrate)

    def _integrate(self, denoise: Denoiser, noise: torch.Tensor, config: SamplingConfig, **how: Any) -> torch.Tensor:
        """`edm_sampler`, or what the scheduler does in its place; shows how far it is."""
        ours = isinstance(self.scheduler, VividScheduler)
        levels = len(evaluation_levels(config)) if ours else config.num_steps
        with self.progress_bar(total=levels) as bar:

            def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
                bar.update()
                return denoise(x, sigma)

            if ours:
                return edm_sampler(counted, noise, config, **how)
            return _schedule(self.scheduler, counted, noise, config.num_steps)


def _schedule(scheduler: Any, denoise: Denoiser, noise: torch.Tensor, num_steps: int) -> torch.Tensor:
    """From noise to a sample by a scheduler of diffusers for EDM networks.

    These want F of D = c_skip x + c_out F (EDM, table 1) and make D of it again: whatever their sigma_data is, it
    drops out.
    """
    if not hasattr(scheduler, "precondition_outputs"):
        raise UserError(
            f"{type(scheduler).__name__} knows no preconditioning: give `scheduler` a VividScheduler, an "
            "EDMEulerScheduler or an EDMDPMSolverMultistepScheduler"
        )
    scheduler.set_timesteps(num_steps)
    x = noise * scheduler.sigmas[0]
    for sigma, time in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        scheduler.scale_model_input(x, time)  # it counts on being called
        zero, one = torch.zeros_like(sigma), torch.ones_like(sigma)
        c_skip = scheduler.precondition_outputs(one, zero, sigma)
        c_out = scheduler.precondition_outputs(zero, one, sigma)
        x = scheduler.step((denoise(x, sigma) - c_skip * x) / c_out, time, x).prev_sample
    return x


def _each(value: _One | Sequence[_One]) -> list[_One]:
    return list(value) if isinstance(value, Sequence) else [value]


def _spread(name: str, values: list[_One], count: int) -> list[_One]:
    """One for each of `count` views."""
    if len(values) not in (1, count):
        raise UserError(f"`{name}`: there are {len(values)} for {count} views; give one, or one for each")
    return values * count if len(values) == 1 else values


def _output(images: torch.Tensor, output_type: str) -> Any:
    """Of float32 [B, 3, R, R] in the unit of [-1, 1]."""
    if output_type == "pil":
        return [Image.fromarray(pixels.numpy()) for pixels in rearrange(pixels_to_uint8(images), "b c h w -> b h w c")]
    images = (images / 2 + 0.5).clip(0, 1)
    return images if output_type == "pt" else rearrange(images, "b c h w -> b h w c").numpy()


def _introduce() -> None:
    """Tell diffusers of the classes: it looks classes up in its own namespace, and modules of components below it."""
    for cls in (DiffusersNVPrecond, VividScheduler, VividPipeline):
        setattr(diffusers, cls.__name__, cls)
    setattr(diffusers.pipelines, __name__, sys.modules[__name__])


_introduce()
