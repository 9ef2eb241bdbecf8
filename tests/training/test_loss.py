"""The loss against its formula, with a network whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from metrics.lpips import load_lpips
from torch_utils.batches import Batch
from torch_utils.cameras import pixels_to_float
from torch_utils.geometry_vector import GEOMETRY_DIM
from torch_utils.random import SeededGenerators
from training.conditioning import shrink_and_enlarge
from training.encodings import Encodings
from training.loss import NVLoss, PerceptualTerm
from training.network_config import EncodingConfig


class KnownAnswer(nn.Module):
    """Denoises to `answer` with log-variance `u`, and remembers what it was asked."""

    def __init__(self, answer: torch.Tensor, u: float = 0.3) -> None:
        super().__init__()
        self.answer, self.u = answer, u

    def forward(
        self,
        src: torch.Tensor,
        dst: torch.Tensor,
        sigma: torch.Tensor,
        geometry: torch.Tensor,
        conditioning_image: Any,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.src, self.dst, self.sigma, self.conditioning_image = src, dst, sigma, conditioning_image
        return self.answer, torch.full((len(dst), 1, 1, 1), self.u)


def make_batch(count: int = 3) -> Batch:
    views = torch.randint(0, 256, (2, count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(views[0], views[1], torch.zeros(count, GEOMETRY_DIM), torch.full((count, 1, 16, 16), 2.0))


def test_formula() -> None:
    batch, answer = make_batch(), torch.full((3, 3, 16, 16), 0.25)
    net = KnownAnswer(answer)
    loss = NVLoss()(net, batch, SeededGenerators([1, 2, 3]))
    y, sigma = pixels_to_float(batch.target), net.sigma.reshape(-1, 1, 1, 1)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(loss, weight / torch.tensor(0.3).exp() * (answer - y) ** 2 + 0.3)
    torch.testing.assert_close(net.src, pixels_to_float(batch.source))
    assert loss.shape == y.shape
    assert ((net.dst - y) / sigma).std() == pytest.approx(1, abs=0.05)


def test_perfect_network_leaves_the_log_variance() -> None:
    batch = make_batch()
    loss = NVLoss()(KnownAnswer(pixels_to_float(batch.target), u=-1.5), batch, SeededGenerators([1, 2, 3]))
    assert torch.equal(loss, torch.full_like(loss, -1.5))


def test_noise_levels_are_log_normal() -> None:
    """Mean and deviation of 4000 within three standard errors."""
    count = 4000
    batch = Batch(*torch.zeros(2, count, 3, 1, 1, dtype=torch.uint8), torch.zeros(count, GEOMETRY_DIM))
    net = KnownAnswer(torch.zeros(count, 3, 1, 1))
    NVLoss(P_mean=-0.8, P_std=1.6)(net, batch, SeededGenerators(range(count)))
    logs = net.sigma.log()
    assert logs.mean() == pytest.approx(-0.8, abs=3 * 1.6 / count**0.5)
    assert logs.std() == pytest.approx(1.6, abs=3 * 1.6 / (2 * count) ** 0.5)


def test_an_image_is_noised_the_same_in_any_batch() -> None:
    batch, net = make_batch(), KnownAnswer(torch.zeros(()))
    NVLoss()(net, batch, SeededGenerators([1, 2, 3]))
    together = net.dst
    NVLoss()(net, batch[1:2], SeededGenerators([2]))
    assert torch.equal(net.dst, together[1:2])


def test_super_resolution_and_depth_inputs() -> None:
    batch, net = make_batch(), KnownAnswer(torch.zeros(()))
    NVLoss(encodings=Encodings(EncodingConfig(super_res=True, warp_depth_coor=True)))(
        net, batch, SeededGenerators([1, 2, 3])
    )
    torch.testing.assert_close(net.conditioning_image, shrink_and_enlarge(pixels_to_float(batch.target)))
    assert torch.equal(net.src[:, 3:], batch.depth)


def test_the_perceptual_term_is_added_at_low_noise_alone() -> None:
    batch, answer = make_batch(40), torch.full((40, 3, 16, 16), 0.25)
    seen: list[torch.Tensor] = []

    def distance(images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target)
        return (images - target).abs().mean(dim=(1, 2, 3))

    net, seeds = KnownAnswer(answer), range(40)
    plain = NVLoss()(net, batch, SeededGenerators(seeds))
    found = NVLoss(perceptual=PerceptualTerm(distance, 2.0, 0.4))(net, batch, SeededGenerators(seeds)) - plain
    y, low = pixels_to_float(batch.target), net.sigma <= 0.4
    assert 5 < int(low.sum()) < 35
    expected = 2.0 * (answer - y).abs().mean(dim=(1, 2, 3)) * low
    torch.testing.assert_close(found, expected.reshape(-1, 1, 1, 1).expand_as(found), rtol=1e-4, atol=1e-4)
    assert torch.equal(seen[0], y[low])  # nothing is computed for the others


def test_the_perceptual_term_teaches() -> None:
    """LPIPS of AlexNet: its gradient leads from a blurred view towards the true one."""
    y = pixels_to_float(make_batch(2).target).repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    blurred = shrink_and_enlarge(y).requires_grad_()
    term = PerceptualTerm(load_lpips().distance, 1.0, 0.5)
    before = term(blurred, y, torch.tensor([0.1, 0.9]))
    assert before[0] > 0.1
    assert before[1] == 0
    (gradient,) = torch.autograd.grad(before.sum(), blurred)
    assert not gradient[1].any()
    none = term(blurred, y, torch.tensor([0.9, 0.9]))
    assert not none.any()
    assert not torch.autograd.grad(none.sum(), blurred)[0].any()
    with torch.no_grad():
        step = blurred - 0.05 * gradient / gradient.abs().amax()
        assert term(step, y, torch.tensor([0.1, 0.9])).sum() < before.sum()
    assert float((gradient[0] * (y - blurred.detach())[0]).sum()) < 0


def test_noise_is_added_to_the_target_at_the_published_levels() -> None:
    batch, net = make_batch(), KnownAnswer(torch.zeros(3, 3, 16, 16))
    NVLoss()(net, batch, SeededGenerators([1, 2, 3]))
    generators = SeededGenerators([1, 2, 3])
    sigma = (generators.randn([]) * 1.6 - 0.8).exp()
    torch.testing.assert_close(net.sigma, sigma)
    y = pixels_to_float(batch.target)
    torch.testing.assert_close(net.dst, y + generators.randn_like(y) * sigma[:, None, None, None])
