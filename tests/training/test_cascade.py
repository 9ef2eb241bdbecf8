"""What super-resolution is given of a base network is what a cascade would give it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datasets.synthetic import SyntheticClips
from dnnlib import UserError
from tests.golden import tiny_network
from torch_utils.batches import Pair, collate
from torch_utils.cameras import resize_image
from torch_utils.random import SeededGenerators
from training.cascade import BaseViews
from training.config import TrainingConfig
from training.generation import NovelViewSampler
from training.loss import NVLoss
from training.model_io import save_network
from training.network_config import NetworkConfig
from training.sampling_config import SamplingConfig

SEEDS = [3, 5, 8, 13]
STOPS_EARLY = SamplingConfig(solver="euler", num_steps=3, sigma_min=3.0, sigma_max=40.0)
TO_THE_END = SamplingConfig(solver="euler", num_steps=5, sigma_min=0.02, sigma_max=40.0)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    clip = SyntheticClips("train", 1, frames=8, width=48, height=48).open(0)
    return [Pair(clip.view(k), clip.view(k + 4), "clip", k, k + 4).square(48) for k in range(4)]


def given(share: float, pairs: list[Pair], seeds: list[int], sampling: SamplingConfig = STOPS_EARLY) -> torch.Tensor:
    low = torch.zeros(len(pairs), 3, 48, 48)
    return BaseViews(tiny_network(plane_sweep=2), share, sampling)(collate(pairs), low, SeededGenerators(seeds))


@pytest.mark.parametrize("sampling", [STOPS_EARLY, TO_THE_END], ids=["stops early", "to the end"])
def test_it_is_the_view_of_the_sampler(sampling: SamplingConfig, pairs: list[Pair]) -> None:
    """Within 1e-3 of a range of 2: intrinsics go through the geometry vector at another resolution, in float32."""
    generators = SeededGenerators(SEEDS)
    generators.randn([])  # which images are chosen
    sampler = NovelViewSampler(tiny_network(plane_sweep=2), config=sampling)
    views = sampler.sample([p.source for p in pairs], [p.target.camera for p in pairs], generators)
    torch.testing.assert_close(given(1.0, pairs, SEEDS, sampling), resize_image(views, 48, 48), atol=1e-3, rtol=0)


def test_a_share_is_chosen_by_the_images_themselves(pairs: list[Pair]) -> None:
    whole, chosen = given(1.0, pairs, SEEDS), given(0.5, pairs, SEEDS)
    taken = chosen.flatten(1).any(dim=1)
    assert 0 < int(taken.sum()) < 4
    torch.testing.assert_close(chosen[taken], whole[taken], atol=1e-5, rtol=1e-5)
    alone = torch.cat([given(0.5, [pair], [seed]) for pair, seed in zip(pairs, SEEDS, strict=True)])
    torch.testing.assert_close(alone, chosen, atol=1e-5, rtol=1e-5)
    assert not given(1e-9, pairs, SEEDS).any()


def test_the_loss_hands_it_to_the_network(pairs: list[Pair]) -> None:
    class Listener(torch.nn.Module):
        def forward(self, *arguments: torch.Tensor, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
            self.conditioning_image = arguments[4]
            return torch.zeros_like(arguments[1]), torch.zeros(len(arguments[1]), 1, 1, 1)

    net, config = Listener(), TrainingConfig(NetworkConfig(img_resolution=48, super_res=True), base="named", base_mix=1)
    loss = config.build_loss(base=tiny_network(plane_sweep=2))
    assert isinstance(loss, NVLoss)
    loss(net, collate(pairs), SeededGenerators(SEEDS))
    seen = net.conditioning_image
    config.build_loss()(net, collate(pairs), SeededGenerators(SEEDS))
    assert not torch.allclose(seen, net.conditioning_image)


def test_the_run_says_how_far_it_is_sampled() -> None:
    network = NetworkConfig(img_resolution=48, super_res=True)
    assert TrainingConfig(network, base="named").base_sampling == STOPS_EARLY
    assert TrainingConfig(network, base="named", base_steps=5, base_sigma_min=0.02).base_sampling == TO_THE_END


def test_only_base_networks_and_only_for_super_resolution(tmp_path: Path) -> None:
    save_network(tmp_path / "sr.safetensors", tiny_network(super_res=True))
    config = TrainingConfig(NetworkConfig(img_resolution=16, super_res=True), base=str(tmp_path / "sr.safetensors"))
    with pytest.raises(UserError, match="give it a base network"):
        config.load_base("cpu")
    with pytest.raises(UserError, match="or train super-resolution"):
        TrainingConfig(NetworkConfig(img_resolution=16), base="vivid-tiny-base")
