"""What is said of a run before it: a dry run of training, an estimate of sampling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.golden import tiny_network
from tests.training.runs import tiny_config
from training.batching import probe
from training.estimate import count_flop, estimate, estimate_sampling
from training.generation import NovelViewSampler
from training.layers import MPConv
from training.sampling_config import SamplingConfig


def test_counts(tmp_path: Path) -> None:
    """Memory is that of 28 bytes a parameter and of the activations, which grow with the micro-batch alone."""
    config = tiny_config(tmp_path, {"img_resolution": 32, "model_channels": 16}, batch=4096)
    plans = [
        estimate(tiny_config(tmp_path, config.network.to_dict(), batch=4096, batch_gpu=size), torch.device("cpu"), 2)
        for size in (1024, 2048)
    ]
    parameters = sum(parameter.numel() for parameter in config.build_network().parameters())
    assert [plan["parameters"] for plan in plans] == [parameters] * 2
    state = 28 * parameters / 2**30
    one, two = (plan["gib_per_process"] - state for plan in plans)
    assert one > 0.1
    assert two == pytest.approx(2 * one, rel=0.05)
    assert plans[0]["gflop_per_image"] == plans[1]["gflop_per_image"]
    # Twice forward for the backward pass, two operations per weight and place where it is used.
    at_most = 3 * 2 * parameters * 32**2 / 1e9
    assert 0.05 * at_most < plans[0]["gflop_per_image"] < at_most
    assert plans[0]["images_per_second_estimate"] > 0


def test_everything_fits_one_process_and_half_in_half_precision(tmp_path: Path) -> None:
    full, half = (
        estimate(tiny_config(tmp_path, batch=4096, precision=precision), torch.device("cpu"), 1)["gib_per_process"]
        for precision in ("float32", "bfloat16")
    )
    assert 0.4 * full < half < 0.8 * full


def closed_form_flop(sampler: NovelViewSampler) -> int:
    """Two for each weight of a convolution or linear layer, wherever it is used, and for each product in attention."""
    total = 0

    def convolution(layer: MPConv, _: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        nonlocal total
        count = output.numel() if isinstance(output, torch.Tensor) else sum(part.numel() for part in output)
        total += 2 * count * layer.weight[0].numel()

    hooks = [layer.register_forward_hook(convolution) for layer in sampler.net.modules() if isinstance(layer, MPConv)]
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(query: torch.Tensor, key: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        nonlocal total
        total += 2 * 2 * query.numel() * key.shape[-2]
        return attention(query, key, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        probe(sampler, 1)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("options", [{}, {"uncond": True}, {"super_res": True}, {"no_time_enc": True}])
def test_flop_of_a_network(options: dict) -> None:
    sampler = NovelViewSampler(tiny_network(**options))
    one = count_flop(sampler, 1, 1)
    assert one == pytest.approx(closed_form_flop(sampler), rel=0.02)  # beside these: poses and lenses
    assert count_flop(sampler, 2, 1) == pytest.approx(2 * one, rel=0.02)
    three = count_flop(sampler, 1, 3)
    if options.get("no_time_enc"):  # the source is seen once
        assert one < three < 2.9 * one
    else:
        assert three == pytest.approx(3 * one, rel=0.02)


def test_sampling_is_the_sum_of_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.estimate._PROBE_SECONDS", 0)
    sr_model = tiny_network(img_resolution=32, super_res=True)
    sampler = NovelViewSampler(
        *(tiny_network(), tiny_network(uncond=True), sr_model),
        config=SamplingConfig(num_steps=6, guidance=2.0, guidance_interval=(0.1, 10.0)),
    )
    found = estimate_sampling(sampler, 4, 3)
    assert found.batch == 3  # there are no more images
    assert found.fitting_batch >= 1
    assert found.memory.of(3) >= found.memory.of(1) > 0
    assert {role: net.evaluations for role, net in found.networks.items()} == sampler.evaluations
    assert found.networks["net"].evaluations == 2 * 6 - 1
    for role, net in found.networks.items():
        alone = NovelViewSampler(getattr(sampler, role))
        assert net.parameters == sum(parameter.numel() for parameter in alone.net.parameters())
        assert net.flop == pytest.approx(count_flop(alone, 1, net.evaluations), rel=1e-6)
        assert net.seconds > 0
    assert found.seconds == sum(net.seconds for net in found.networks.values())
    assert estimate_sampling(sampler, "auto", 2).batch == 2


def test_no_guidance_no_guidance_network() -> None:
    sampler = NovelViewSampler(tiny_network(), tiny_network(uncond=True))
    assert list(estimate_sampling(sampler, 1, 1).networks) == ["net"]
