from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from datasets.synthetic import Synthetic
from dnnlib import UserError
from tests.golden import tiny_network
from torch_utils.cameras import pixels_to_uint8, resize_image
from torch_utils.random import SeededGenerators
from training.generation import NovelViewSampler, generate_images
from training.model_io import load_network
from training.precond import NVPrecond
from training.sampling import noise_levels
from training.sampling_config import SamplingConfig

SEEDS = [0, 3, 5, 8]


@pytest.fixture(scope="module")
def networks() -> dict[str, NVPrecond]:
    def build(**options: object) -> NVPrecond:
        return tiny_network(**options)

    return {"net": build(), "gnet": build(uncond=True), "sr_model": build(img_resolution=32, super_res=True)}


@pytest.fixture(scope="module")
def dataset() -> Synthetic:
    return Synthetic("test", resolution=48)


def images_of(networks: dict, dataset: Synthetic, seeds: list[int], batch_size: int) -> torch.Tensor:
    batches = generate_images(
        dataset=dataset, seeds=seeds, batch_size=batch_size, guidance=1.5, num_steps=2, **networks
    )
    assert len(batches) == -(-len(seeds) // batch_size)
    return torch.cat([batch.images for batch in batches])


def test_image_k_is_the_same_in_every_batch(networks: dict, dataset: Synthetic) -> None:
    together = images_of(networks, dataset, SEEDS, batch_size=4)
    assert together.shape == (4, 3, 32, 32)
    assert together.dtype == torch.uint8
    for batch_size in (1, 3):
        other = images_of(networks, dataset, SEEDS, batch_size)
        assert int((other.int() - together.int()).abs().max()) <= 1
    alone = images_of(networks, dataset, [8], batch_size=1)
    assert int((alone[0].int() - together[3].int()).abs().max()) <= 1


def test_evaluations_are_as_many_as_said(networks: dict, dataset: Synthetic) -> None:
    interval = (0.1, 10.0)
    config = SamplingConfig(num_steps=4, guidance=1.5, guidance_interval=interval, sr_num_steps=3, sr_solver="euler")
    sampler = NovelViewSampler(**networks, config=config)
    calls = dict.fromkeys(networks, 0)

    def count(role: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[role] += 1

        return hook

    hooks = [net.register_forward_hook(count(role)) for role, net in networks.items()]
    sampler([dataset[0].source], [dataset[0].target.camera], [0])
    for hook in hooks:
        hook.remove()
    levels = noise_levels(4)[:-1]
    asked = [*levels, *levels[1:]]  # Heun asks twice
    guided = sum(interval[0] < level <= interval[1] for level in asked)
    assert sampler.evaluations == calls == {"net": 7, "gnet": guided, "sr_model": 3}
    assert 0 < guided < 7


def test_super_resolution_goes_its_own_steps(networks: dict, dataset: Synthetic) -> None:
    """By hand: a sample of the base network, made large, is what the other is conditioned on."""
    pair, generators = dataset[0], SeededGenerators([0])
    view, camera = [pair.source], [pair.target.camera]
    base, sr_model = networks["net"], networks["sr_model"]
    own: dict[str, Any] = {"sr_num_steps": 2, "sr_solver": "euler", "sr_sigma_min": 1.0}
    found = NovelViewSampler(base, sr_model=sr_model, config=SamplingConfig(num_steps=4, **own))(view, camera, [0])
    small = NovelViewSampler(base, config=SamplingConfig(num_steps=4)).sample(view, camera, generators)
    config = SamplingConfig(num_steps=2, solver="euler", sigma_min=1.0)
    sampler = NovelViewSampler(sr_model, config=config)
    assert torch.equal(found, pixels_to_uint8(sampler.sample(view, camera, generators, resize_image(small, 32, 32))))
    alone = replace(sampler, config=SamplingConfig(num_steps=4, **own))  # a super-resolution network, wherever it is
    assert alone.evaluations == sampler.evaluations == {"net": 2}


def test_seeds_name_pair_and_noise(networks: dict, dataset: Synthetic) -> None:
    (batch,) = generate_images(networks["net"], dataset, SEEDS, num_steps=1)
    assert batch.seeds == SEEDS
    for seed, pair in zip(batch.seeds, batch.pairs, strict=True):
        expected = dataset[seed]
        assert (pair.clip, pair.source_index) == (expected.clip, expected.source_index)
        assert torch.equal(pair.target.image, expected.square(16).target.image)


def test_published_intrinsics_change_the_picture(networks: dict, dataset: Synthetic) -> None:
    pair = dataset[0]
    pictures = [
        NovelViewSampler(networks["net"], config=SamplingConfig(published_intrinsics=flag, num_steps=2))(
            [pair.source], [pair.target.camera], [0]
        )
        for flag in (False, True)
    ]
    assert not torch.equal(*pictures)


def test_a_super_resolution_network_alone_works_on_the_true_view_made_small(networks: dict, dataset: Synthetic) -> None:
    (batch,) = generate_images(networks["sr_model"], dataset, [0, 1], num_steps=1)
    assert batch.images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("roles", "options", "message"),
    [
        ({"net": "net"}, {"guidance": 1.5}, "needs a guidance network"),
        ({"net": "sr_model", "sr_model": "sr_model"}, {}, "give it alone"),
        ({"net": "net", "sr_model": "net"}, {}, "not a super-resolution network"),
        ({"net": "net", "gnet": "sr_model"}, {"guidance": 2.0}, "they must agree"),
    ],
)
def test_contradictions_are_refused(networks: dict, roles: dict, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        NovelViewSampler(**{role: networks[name] for role, name in roles.items()}, config=SamplingConfig(**options))


def test_the_fast_path_draws_what_float32_draws(dataset: Synthetic) -> None:
    """PSNR of at least 40 dB, for the demo model as it is used; measured: 55 dB."""
    images = {}
    for dtype in (torch.float32, torch.bfloat16):
        net, sr_model = (load_network(f"vivid-tiny-{part}").freeze(dtype) for part in ("base", "sr"))
        how = {"num_steps": 8, "sigma_min": 1.0, "sigma_max": 40.0}
        (batch,) = generate_images(net, dataset, SEEDS[:2], sr_model=sr_model, **how)
        images[dtype] = batch.images.double()
    error = (images[torch.bfloat16] - images[torch.float32]).square().mean(dim=(1, 2, 3))
    assert float(10 * torch.log10(255**2 / error).min()) > 40
