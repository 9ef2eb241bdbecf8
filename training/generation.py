"""Views in, images out: source views and target cameras through base network, guidance and super-resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from dnnlib.util import STORED, UserError, one_line
from torch_utils.batches import Pair, PairSource
from torch_utils.cameras import Camera, View, pixels_to_float, pixels_to_uint8, resize_image
from torch_utils.depth import DepthModel, choose_depth_model
from torch_utils.distributed import fast_dtype
from torch_utils.memory import in_parts
from torch_utils.random import SeededGenerators
from training.failures import NotFinite
from training.guidance import view_denoiser
from training.model_io import load_network, resolve_network
from training.precond import NVPrecond
from training.sampling import edm_sampler, evaluation_levels
from training.sampling_config import EVERYWHERE, ROLES, NetworkFiles, Role, SamplingConfig

_Source = TypeVar("_Source", bound=PairSource, covariant=True)


@dataclass(frozen=True)
class NovelViewSampler:
    """Networks, and how to sample from them.

    Attributes:
        net: the base network; gnet: its guidance network; sr_model: super-resolution network for what `net` gives.
        config: of the base network; `config.super_resolution` of a super-resolution network.
        depth_model: tells a network that needs it the depth of source views, from what that network sees of them; None
            takes the depth that the views carry.
        integrate: goes from noise to a sample by a denoiser, as `edm_sampler` does.
    """

    net: NVPrecond
    gnet: NVPrecond | None = None
    sr_model: NVPrecond | None = None
    config: SamplingConfig = field(default_factory=SamplingConfig)
    depth_model: DepthModel | None = None
    integrate: Callable[..., torch.Tensor] = edm_sampler

    def __post_init__(self) -> None:
        guidance = self.config.guidance
        if self.gnet is None and guidance != 1:
            raise UserError(f"guidance {guidance:g} needs a guidance network: give `gnet`, or `guidance` 1")
        if self.net.super_res and (self.sr_model is not None or guidance != 1):
            raise UserError(
                "`net` is a super-resolution network: give it alone, or as `sr_model` behind a base network"
            )
        if self.gnet is not None and self.gnet.img_resolution != self.net.img_resolution:
            raise UserError(
                f"the guidance network works at {self.gnet.img_resolution} pixels, the base network at "
                f"{self.net.img_resolution}: they must agree"
            )
        if self.gnet is not None and self.gnet.needs_depth and self.gnet.depth_form != self.net.depth_form:
            raise UserError("the guidance network wants depth in another form than the base network: they must agree")
        if self.sr_model is not None and not self.sr_model.super_res:
            raise UserError("the network given as `sr_model` is not a super-resolution network")

    @property
    def resolution(self) -> int:
        """Side of the images that come out, in pixels."""
        return (self.sr_model or self.net).img_resolution

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.net.parameters()).device

    @property
    def networks(self) -> dict[Role, NVPrecond]:
        """Those that are evaluated, by role."""
        roles = {role: getattr(self, role) for role in ROLES if role != "gnet" or self.config.guidance != 1}
        return {role: net for role, net in roles.items() if net is not None}

    @property
    def evaluations(self) -> dict[Role, int]:
        """How often each network is evaluated for an image."""
        levels = {role: evaluation_levels(self._config(net)) for role, net in self.networks.items()}
        guided = sum(map(self.config.is_guided, levels["net"]))
        return {role: guided if role == "gnet" else len(some) for role, some in levels.items()}

    def __call__(
        self,
        sources: Sequence[View | Sequence[View]],
        targets: Sequence[Camera],
        seeds: Sequence[int | Sequence[int]],
        conditioning_image: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Novel views of `sources` from `targets`, uint8 [B, 3, R, R] on the CPU. Raises NotFinite.

        Views and cameras may have any size; a source of several views is drawn from anew in each evaluation (see
        `view_denoiser`). The noise of image k, and so the image, depends on seeds[k] alone.
        `conditioning_image`, low-resolution views resized to R, [B, 3, R, R] in [-1, 1], is for a super-resolution
        network as `net`.
        """
        return pixels_to_uint8(self.sample(sources, targets, SeededGenerators(seeds), conditioning_image)).cpu()

    @torch.no_grad()
    def sample(
        self,
        sources: Sequence[View | Sequence[View]],
        targets: Sequence[Camera],
        generators: SeededGenerators,
        conditioning_image: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The same before rounding: float32 [B, 3, R, R] in the unit of [-1, 1], on the networks' device."""
        images = self._sample(self.net, sources, targets, generators, conditioning_image, self.gnet)
        if self.sr_model is not None:
            side = self.sr_model.img_resolution
            images = self._sample(self.sr_model, sources, targets, generators, resize_image(images, side, side))
        if not bool(images.isfinite().all()):
            raise NotFinite
        return images

    def _config(self, net: NVPrecond) -> SamplingConfig:
        return self.config.super_resolution if net.super_res else self.config

    def _sample(
        self,
        net: NVPrecond,
        sources: Sequence[View | Sequence[View]],
        targets: Sequence[Camera],
        generators: SeededGenerators,
        conditioning_image: torch.Tensor | None,
        gnet: NVPrecond | None = None,
    ) -> torch.Tensor:
        config, side = self._config(net), net.img_resolution
        denoise = view_denoiser(
            net,
            [[source] if isinstance(source, View) else source for source in sources],
            targets,
            gnet,
            config.guidance,
            interval=config.guidance_interval or EVERYWHERE,
            published_intrinsics=config.published_intrinsics,
            depth_model=self.depth_model,
            conditioning_image=conditioning_image,
            randn_like=generators.randn_like,
        )
        noise = generators.randn((net.arguments.img_channels, side, side), self.device)
        return self.integrate(denoise, noise, config, randn_like=generators.randn_like)


def open_sampler(
    files: NetworkFiles, config: SamplingConfig, device: torch.device | str
) -> tuple[NovelViewSampler, dict[Role, Path]]:
    """The sampler with its networks frozen, and compiled where that is asked for; and the file of each of them.

    Its `config` names the dtype that "auto" stands for. Raises UserError where a file is missing or the networks do
    not go together.
    """
    paths = {role: resolve_network(name, role) for role, name in files.by_role.items()}
    if "net" not in paths:
        raise UserError("there is no base network: give `net` a file, an address or a name")
    dtype = fast_dtype(device) if config.dtype == "auto" else getattr(torch, config.dtype)
    networks = {role: load_network(path, device).freeze(dtype) for role, path in paths.items()}
    if files.compile:
        for net in networks.values():
            net.compile_parts()
    needs_depth = any(net.needs_depth for net in networks.values())
    if files.depth_model not in (None, STORED) and not needs_depth:
        raise UserError(f"none of the networks uses depth: leave out `depth_model` {one_line(files.depth_model)}")
    config = replace(config, dtype=str(networks["net"].compute_dtype).removeprefix("torch."))
    depth_model = choose_depth_model(files.depth_model, needs_depth, device)
    return NovelViewSampler(**networks, config=config, depth_model=depth_model), paths


@dataclass(frozen=True)
class GeneratedBatch:
    """Some images of a run.

    Attributes:
        seeds: the seed of each; pairs: the views it was made from, and the true target, square at its resolution.
        images: uint8 [B, 3, R, R].
    """

    seeds: list[int]
    pairs: list[Pair]
    images: torch.Tensor


@dataclass(frozen=True)
class GeneratedBatches(Generic[_Source]):
    """Sized iterable over `GeneratedBatch`; nothing is computed before it is asked for. See `generate_images`.

    Batches that memory does not suffice for come in parts. `on_failure` is told of the seeds whose pair or image cannot
    be made, and why; they are left out then. With None the error is raised.
    """

    sampler: NovelViewSampler
    dataset: _Source
    seeds: Sequence[int]
    batch_size: int
    on_failure: Callable[[int, Exception], None] | None = None

    def __len__(self) -> int:
        return math.ceil(len(self.seeds) / self.batch_size)

    def __iter__(self) -> Iterator[GeneratedBatch]:
        for start in range(0, len(self.seeds), self.batch_size):
            yield from self._batches(self.seeds[start : start + self.batch_size])

    def _batches(self, seeds: Sequence[int]) -> Iterator[GeneratedBatch]:
        pairs = self._read(seeds)
        if pairs:
            yield from in_parts(lambda seeds: self._make(seeds, pairs), list(pairs), self.on_failure)

    def _read(self, seeds: Sequence[int]) -> dict[int, Pair]:
        """The pairs that can be read, by seed."""
        pairs = {}
        for seed in seeds:
            try:
                pairs[seed] = self.dataset[seed]
            except Exception as error:
                if self.on_failure is None:
                    raise
                self.on_failure(seed, error)
        return pairs

    def _make(self, seeds: Sequence[int], pairs_by_seed: Mapping[int, Pair]) -> GeneratedBatch:
        pairs = [pairs_by_seed[seed] for seed in seeds]
        square = [pair.square(self.sampler.resolution) for pair in pairs]
        conditioning_image = None
        if self.sampler.net.super_res:  # on its own it is judged by what it makes of the true view, made small
            targets = pixels_to_float(torch.stack([pair.target.image for pair in square]).to(self.sampler.device))
            conditioning_image = self.sampler.net.encodings.conditioning_image(targets)
        sources, cameras = [pair.source for pair in pairs], [pair.target.camera for pair in pairs]
        images = self.sampler(sources, cameras, seeds, conditioning_image)
        return GeneratedBatch(list(seeds), square, images)


def generate_images(
    net: NVPrecond,
    dataset: PairSource,
    seeds: Sequence[int],
    *,
    gnet: NVPrecond | None = None,
    sr_model: NVPrecond | None = None,
    batch_size: int = 4,
    depth_model: DepthModel | None = None,
    **settings: Any,
) -> GeneratedBatches:
    """Novel views for pairs of a data set: seed s names both the pair, `dataset[s]`, and the noise.

    `batch_size` changes nothing but speed and memory; `settings` are fields of `SamplingConfig`, such as `guidance`.
    Other arguments as for `NovelViewSampler`.
    """
    sampler = NovelViewSampler(net, gnet, sr_model, SamplingConfig(**settings), depth_model)
    return GeneratedBatches(sampler, dataset, seeds, batch_size)
