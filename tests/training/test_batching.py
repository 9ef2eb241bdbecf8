"""The largest batch that fits."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.golden import tiny_network
from training import batching
from training.batching import MemoryNeed, choose_batch, fitting_batch, measure_memory, probe
from training.generation import NovelViewSampler
from training.sampling_config import SamplingConfig

NEED = MemoryNeed(fixed=1000, per_image=100)


@pytest.fixture(scope="module")
def sampler() -> NovelViewSampler:
    sr_model = tiny_network(img_resolution=32, super_res=True)
    guide = tiny_network(uncond=True)
    how = SamplingConfig(guidance=2.0, guidance_interval=(0.1, 1.0), num_steps=9)
    return NovelViewSampler(tiny_network(), guide, sr_model, how)


class PretendGpu:
    """A sampler's stand-in on a device with room for so many images."""

    device = torch.device("cuda")

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, []

    def probe(self, _: object, batch: int, evaluations: int = 1) -> None:
        self.tried.append(batch)
        if batch > self.room:
            raise torch.OutOfMemoryError


def test_a_probe_evaluates_every_network_as_often_as_asked(sampler: NovelViewSampler) -> None:
    calls = dict.fromkeys(sampler.networks, 0)
    hooks = []
    for role, net in sampler.networks.items():
        hooks.append(net.register_forward_hook(lambda *_, role=role: calls.update({role: calls[role] + 1})))
    probe(sampler, 2, evaluations=3)
    for hook in hooks:
        hook.remove()
    assert calls == {"net": 3, "gnet": 3, "sr_model": 3}


@pytest.mark.parametrize(
    "options", [{"super_res": True}, {"depth_input": True}, {"warp_depth_coor": True}, {"plane_sweep": 2}]
)
def test_networks_of_all_kinds_can_be_probed(options: dict) -> None:
    probe(NovelViewSampler(tiny_network(**options)), 2)


def test_need_is_a_line() -> None:
    assert NEED.of(3) == 1300
    assert NEED.largest_batch(1399) == 3
    assert NEED.largest_batch(0) == 1
    assert MemoryNeed(10, 0).largest_batch(1e9) > 1000


def test_memory_is_measured_from_two_batches(sampler: NovelViewSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a device whose memory is exactly that line."""
    sizes: list[int] = []
    monkeypatch.setattr(batching, "probe", lambda _, batch: sizes.append(batch))

    def peak(function: object, device: torch.device) -> float:
        function()
        return NEED.of(sizes[-1])

    monkeypatch.setattr(batching, "peak_memory", peak)
    assert measure_memory(sampler) == NEED


@pytest.mark.parametrize(
    ("room", "most", "expected", "tried"),
    [
        (100, None, 89, [89]),  # (0.9 * 11000 - 1000) / 100
        (30, None, 22, [89, 44, 22]),
        (100, 7, 7, [7]),
        (0, None, 1, [89, 44, 22, 11, 5, 2]),
    ],
)
def test_a_gpu_is_tried(
    room: int, most: int | None, expected: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = PretendGpu(room)
    monkeypatch.setattr(batching, "probe", gpu.probe)
    monkeypatch.setattr(batching, "memory_limit", lambda device: 11000)
    assert fitting_batch(gpu, NEED, most) == expected
    assert gpu.tried == tried


def test_other_errors_of_a_trial_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: object) -> None:
        raise RuntimeError("expected 3 channels")

    monkeypatch.setattr(batching, "probe", probe)
    monkeypatch.setattr(batching, "memory_limit", lambda device: 11000)
    with pytest.raises(RuntimeError, match="3 channels"):
        fitting_batch(PretendGpu(1), NEED)


def test_a_cpu_is_not_filled(sampler: NovelViewSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "memory_limit", lambda device: 1e12)
    assert fitting_batch(sampler, NEED) == 16
    monkeypatch.setattr(batching, "memory_limit", lambda device: 1700)
    assert fitting_batch(sampler, NEED) == 5


def test_choice(sampler: NovelViewSampler, caplog: pytest.LogCaptureFixture) -> None:
    assert choose_batch(3, sampler, 100) == 3
    assert choose_batch("auto", sampler, 1) == choose_batch("auto", sampler, 0) == 1
    with caplog.at_level(logging.INFO):
        assert choose_batch("auto", sampler, 2) == 2
    assert "batch auto: 2 images at once" in caplog.text
