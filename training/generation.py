"""Views in, images out: source views and target cameras through base network, guidance and super-resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from dnnlib.sampling_options import NETWORK_ROLES, SOLVER_OPTIONS
from dnnlib.util import UserError
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View, pixels_to_float, pixels_to_uint8, resize_image
from torch_utils.depth import DepthModel, choose_depth_model
from torch_utils.distributed import fast_dtype
from torch_utils.memory import in_parts
from torch_utils.random import SeededGenerators
from training.guidance import EVERYWHERE, in_interval, view_denoiser
from training.model_io import load_network, resolve_network
from training.precond import NVPrecond
from training.sampling import check_solver, edm_sampler, evaluation_levels


class PairSource(Protocol):
    """What a data set must be to be sampled from: pair k, with views of any size, is a function of k alone."""

    def __getitem__(self, index: int, /) -> Pair: ...


@dataclass(frozen=True)
class NovelViewSampler:
    """One or two networks and a guidance network, and how to sample from them.

    Attributes:
        net: the base network; gnet: its guidance network; sr_model: super-resolution network for what `net` gives.
        guidance: 1 is none; guidance_interval: (low, high), the noise levels low < sigma <= high that have it.
        sampler_kwargs: see `edm_sampler`; for base and super-resolution alike.
        published_intrinsics: see `geometry_vector`.
        depth_model: tells a network that needs it the depth of source views, from what that network sees of them; None
            takes the depth that the views carry.
    """

    net: NVPrecond
    gnet: NVPrecond | None = None
    sr_model: NVPrecond | None = None
    guidance: float = 1.0
    sampler_kwargs: Mapping[str, Any] = field(default_factory=dict)
    published_intrinsics: bool = False
    depth_model: DepthModel | None = None
    guidance_interval: tuple[float, float] = EVERYWHERE

    def __post_init__(self) -> None:
        if self.gnet is None and self.guidance != 1:
            raise UserError(f"guidance {self.guidance:g} needs a guidance network: give --gnet, or --guidance 1")
        if self.net.super_res and (self.sr_model is not None or self.guidance != 1):
            raise UserError(
                "--net is a super-resolution network: give it alone, or as --sr-model behind a base network"
            )
        if self.gnet is not None and self.gnet.img_resolution != self.net.img_resolution:
            raise UserError(
                f"the guidance network works at {self.gnet.img_resolution} pixels, the base network at "
                f"{self.net.img_resolution}: they must agree"
            )
        forms = [
            (net.arguments.depth_input, net.arguments.warp_depth_coor)
            for net in (self.net, self.gnet)
            if net is not None
        ]
        if self.gnet is not None and self.gnet.needs_depth and forms[0] != forms[1]:
            raise UserError("the guidance network wants depth in another form than the base network: they must agree")
        if self.sr_model is not None and not self.sr_model.super_res:
            raise UserError("the network given as --sr-model is not a super-resolution network")
        low, high = self.guidance_interval
        if not 0 <= low < high:
            raise UserError(f"the guidance interval {low:g} {high:g} is empty or negative: give 0 <= LO < HI")
        if self.guidance == 1 and self.guidance_interval != EVERYWHERE:
            raise UserError("there is no guidance to have an interval: leave it out, or give --guidance other than 1")
        check_solver(**self.sampler_kwargs)

    @property
    def resolution(self) -> int:
        """Side of the images that come out, in pixels."""
        return (self.sr_model or self.net).img_resolution

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.net.parameters()).device

    @property
    def networks(self) -> dict[str, NVPrecond]:
        """Those that are evaluated, by role."""
        roles = {role: getattr(self, role) for role in NETWORK_ROLES}
        return {
            role: net for role, net in roles.items() if net is not None and not (role == "gnet" and self.guidance == 1)
        }

    @property
    def evaluations(self) -> dict[str, int]:
        """How often each network is evaluated for an image."""
        levels = evaluation_levels(**self.sampler_kwargs)
        guided = sum(in_interval(level, self.guidance_interval) for level in levels)
        return {role: guided if role == "gnet" else len(levels) for role in self.networks}

    @torch.no_grad()
    def __call__(
        self,
        sources: Sequence[View | Sequence[View]],
        targets: Sequence[Camera],
        seeds: Sequence[int | Sequence[int]],
        conditioning_image: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Novel views of `sources` from `targets`, uint8 [B, 3, R, R] on the CPU.

        Views and cameras may have any size; a source of several views is drawn from anew in each evaluation (see
        `view_denoiser`). The noise of image k, and so the image, depends on seeds[k] alone.
        `conditioning_image`, low-resolution views resized to R, [B, 3, R, R] in [-1, 1], is for a super-resolution
        network as `net`.
        """
        generators = SeededGenerators(seeds)
        images = self._sample(self.net, sources, targets, generators, conditioning_image, self.gnet, self.guidance)
        if self.sr_model is None:
            return pixels_to_uint8(images).cpu()
        side = self.sr_model.img_resolution
        conditioning_image = resize_image(images, side, side)
        return pixels_to_uint8(self._sample(self.sr_model, sources, targets, generators, conditioning_image)).cpu()

    def _sample(
        self,
        net: NVPrecond,
        sources: Sequence[View | Sequence[View]],
        targets: Sequence[Camera],
        generators: SeededGenerators,
        conditioning_image: torch.Tensor | None,
        gnet: NVPrecond | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        side = net.img_resolution
        denoise = view_denoiser(
            net,
            [[source] if isinstance(source, View) else source for source in sources],
            targets,
            gnet,
            guidance,
            interval=self.guidance_interval,
            published_intrinsics=self.published_intrinsics,
            depth_model=self.depth_model,
            conditioning_image=conditioning_image,
            randn_like=generators.randn_like,
        )
        noise = generators.randn((net.arguments.img_channels, side, side), self.device)
        return edm_sampler(denoise, noise, randn_like=generators.randn_like, **self.sampler_kwargs)


def open_sampler(options: Mapping[str, Any], device: torch.device | str) -> tuple[NovelViewSampler, dict[str, Path]]:
    """The sampler that the options of `dnnlib.sampling_options` describe, and the file of each of its networks.

    The networks are frozen, and compiled where that is asked for. Raises UserError where a file is missing or options
    contradict each other.
    """
    files = {role: resolve_network(options[role]) for role in NETWORK_ROLES if options[role]}
    dtype = fast_dtype(device) if options["dtype"] == "auto" else getattr(torch, options["dtype"])
    networks = {role: load_network(file, device).freeze(dtype) for role, file in files.items()}
    if options["compile"]:
        for net in networks.values():
            net.compile_parts()
    needs_depth = any(net.needs_depth for net in networks.values())
    sampler = NovelViewSampler(
        **networks,
        guidance=options["guidance"],
        guidance_interval=options["guidance_interval"] or EVERYWHERE,
        sampler_kwargs={"num_steps": options["steps"], **{name: options[name] for name in SOLVER_OPTIONS}},
        published_intrinsics=options["published_intrinsics"],
        depth_model=choose_depth_model(options["depth_model"], needs_depth, device),
    )
    return sampler, files


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
class GeneratedBatches:
    """Sized iterable over `GeneratedBatch`; nothing is computed before it is asked for. See `generate_images`.

    Batches that memory does not suffice for come in parts. `on_failure` is told of the seeds whose pair or image cannot
    be made, and why; they are left out then. With None the error is raised.
    """

    sampler: NovelViewSampler
    dataset: PairSource
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
    guidance: float = 1.0,
    batch_size: int = 4,
    published_intrinsics: bool = False,
    depth_model: DepthModel | None = None,
    guidance_interval: tuple[float, float] = EVERYWHERE,
    **sampler_kwargs: Any,
) -> GeneratedBatches:
    """Novel views for pairs of a data set: seed s names both the pair, `dataset[s]`, and the noise.

    `batch_size` changes nothing but speed and memory. Other arguments as for `NovelViewSampler` and `edm_sampler`.
    """
    sampler = NovelViewSampler(
        net, gnet, sr_model, guidance, sampler_kwargs, published_intrinsics, depth_model, guidance_interval
    )
    return GeneratedBatches(sampler, dataset, seeds, batch_size)
