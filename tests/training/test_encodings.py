"""Each encoding against its closed form, and the door for another inner network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.util import UserError
from tests.golden import TINY, fill
from torch_utils.cameras import Camera, View
from torch_utils.geometry_vector import GEOMETRY_DIM, geometry_vector
from torch_utils.warping import euler_rotation
from training import precond
from training.conditioning import Conditioning, shrink_and_enlarge
from training.encodings import Encodings, PlaneSweep
from training.generation import NovelViewSampler
from training.model_io import load_network, save_network
from training.network_config import EncodingConfig, NetworkConfig
from training.precond import NVPrecond
from training.sampling_config import SamplingConfig

SIDE = 16


def geometry_of(rotation: torch.Tensor, translation: Sequence[float] = (0, 0, 0)) -> torch.Tensor:
    """Geometry [1, 20] of a target camera beside a source camera."""
    extrinsics = torch.cat([rotation, torch.tensor(translation, dtype=torch.float64)[:, None]], dim=1)
    return geometry_vector(Camera.from_fov(60, SIDE, SIDE), Camera.from_fov(60, SIDE, SIDE, extrinsics), SIDE)[None]


def prepared_planes(geometry: torch.Tensor, **options: object) -> tuple[torch.Tensor, ...]:
    sweep = PlaneSweep(EncodingConfig(plane_sweep=4, **options), channels=3)
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return sweep.prepare(Conditioning(image, None, geometry), None)


def test_planes_lie_at_squares_up_to_half_a_unit_of_inverse_depth() -> None:
    """docs/method.md, section 5.5; what the shipped weights were trained with is the default."""
    depths = PlaneSweep(EncodingConfig(plane_sweep=4), channels=3).inverse_depths()
    torch.testing.assert_close(depths, torch.tensor([0, 0.5 / 9, 0.5 * 4 / 9, 0.5]))
    even = PlaneSweep(EncodingConfig(plane_sweep=3, plane_nearest=0.2, plane_spacing=1.0), channels=3)
    torch.testing.assert_close(even.inverse_depths(), torch.tensor([0, 0.1, 0.2]))


def test_the_mask_of_a_plane_is_one_where_it_shows_nothing() -> None:
    same, behind, aside = (euler_rotation(0, yaw, 0) for yaw in (0, 180, 30))
    assert not prepared_planes(geometry_of(same))[1].any()
    assert prepared_planes(geometry_of(behind))[1].all()
    columns = prepared_planes(geometry_of(aside))[1][0, 0].mean(dim=0)  # half of a view of 60 degrees is left
    assert {float(columns[0]), float(columns[-1])} == {0.0, 1.0}
    assert 0.3 < float(columns.mean()) < 0.7


def test_planes_are_weighed_by_a_softmax_of_three_times_the_choices() -> None:
    net = NVPrecond(**TINY, plane_sweep=3)
    assert net.blend_gain.item() == 3.0
    assert NVPrecond(**TINY, plane_sweep=3, plane_blend_gain=1.5).blend_gain.item() == 1.5
    (sweep,) = net.encodings.parts
    planes = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 1, 3, 1, 1).expand(1, 3, 3, 1, 1)
    choice = torch.tensor([0.2, 0.0, -0.4]).reshape(1, 3, 1, 1)
    weights = [math.exp(0.6), 1.0, math.exp(-1.2)]
    expected = (weights[0] + 10 * weights[1] + 100 * weights[2]) / sum(weights)
    torch.testing.assert_close(sweep.blend(((), (), planes), choice, net), torch.full((1, 3, 1, 1), expected))
    torch.testing.assert_close(sweep.mean(((), (), planes)), torch.full((1, 3, 1, 1), 37.0))


def test_super_resolution_is_by_a_factor_of_four() -> None:
    net = NVPrecond(**TINY, super_res=True)
    target = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(target, (SIDE // 4, SIDE // 4), mode="bilinear", antialias=True)
    expected = F.interpolate(small, (SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(net.encodings.conditioning_image(target), expected)
    assert NVPrecond(**TINY).encodings.conditioning_image(target) is None


def test_channels_of_the_denoiser_are_in_the_order_of_the_weights() -> None:
    net = fill(NVPrecond(**TINY, super_res=True, noisy_sr=0, warp_depth_coor=True, plane_sweep=2, logvar_channels=8))
    src, geometry = torch.rand(1, 4, SIDE, SIDE) + 0.5, geometry_of(euler_rotation(0, 5, 0), (0.2, 0, 0))
    conditioning_image, dst, sigma = torch.rand(1, 3, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE), torch.tensor(2.0)
    seen: list[torch.Tensor] = []
    net.unet.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    net(src, dst, sigma, geometry, conditioning_image)
    prepared = net.prepare(src, geometry, conditioning_image)
    _, (coordinates,), (planes, outside, details) = prepared.told
    c_in = 1 / math.sqrt(2.0**2 + 0.5**2)
    expected = [
        c_in * (dst - conditioning_image - details.mean(dim=2)),
        conditioning_image,
        coordinates,
        planes.transpose(1, 2).flatten(1, 2),
        outside,
    ]
    torch.testing.assert_close(seen[0], torch.cat(expected, dim=1))
    assert torch.equal(prepared.encoder_input[0][:, :3], src[:, :3])


def test_matching_costs_vanish_where_the_depth_of_a_plane_is_true() -> None:
    """The target is what plane 2 shows; noise on the low-resolution image is in the costs too."""
    config = NetworkConfig(**TINY, super_res=True, noisy_sr=0.1, plane_sweep=4, plane_matching=True)
    (_, sweep) = Encodings(config).parts
    src = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    geometry = geometry_of(torch.eye(3), (2.0, 0, 0))
    planes, *_ = PlaneSweep(config, channels=3).prepare(Conditioning(src, None, geometry), None)
    low = shrink_and_enlarge(planes[:, :, 2])
    told = sweep.prepare(Conditioning(src, None, geometry, low), None)
    seen, outside, costs = sweep.input(sweep.draw(told, torch.zeros_like))
    assert costs.shape == outside.shape == (1, 4, SIDE, SIDE)
    assert float(costs[:, 2].max()) < 1e-6
    assert all(float(costs[:, plane].mean()) > 0.05 for plane in (0, 1, 3))
    assert torch.equal(seen, planes.transpose(1, 2).flatten(1, 2))
    noisy = sweep.input(sweep.draw(told, torch.ones_like))[2]
    torch.testing.assert_close(noisy[:, 2], torch.full((1, SIDE, SIDE), 0.1))


def test_matching_needs_planes_and_something_to_compare_them_with() -> None:
    for options in ({"super_res": True}, {"plane_sweep": 4}):
        with pytest.raises(UserError, match="plane_matching compares planes"):
            NetworkConfig(**TINY, plane_matching=True, **options)


class TenLines(nn.Module):
    """An inner network of one convolution, that sees the source view as one feature."""

    def __init__(self, config: NetworkConfig, in_channels: int, out_channels: int | None) -> None:
        super().__init__()
        self.feature_shapes = [(2, config.img_resolution)]
        self.source_encoder = out_channels is None
        self.conv = nn.Conv2d(in_channels + (0 if self.source_encoder else 2), out_channels or 2, 3, padding=1)

    def keys_and_values(self, source_features: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
        return [(feature,) for feature in source_features]

    def forward(
        self,
        x: torch.Tensor,
        c_noise: torch.Tensor,
        geometry: torch.Tensor,
        source: Sequence = (),
        distances: object = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        source = [feature[0] if isinstance(feature, tuple) else feature for feature in source]
        y = self.conv(torch.cat([x, *source], dim=1)) + c_noise.reshape(-1, 1, 1, 1)
        return [y] if self.source_encoder else y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"uncond": True},
        {"no_time_enc": True, "plane_sweep": 3},
        {"super_res": True, "plane_sweep": 2, "epipolar_attention_bias": True},
        {"super_res": True, "plane_sweep": 2, "plane_matching": True},
    ],
)
def test_another_inner_network_stands_in_the_place_of_the_unet(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trained, saved, read, frozen and sampled from like any other."""
    monkeypatch.setitem(precond.ARCHITECTURES, "ten lines", TenLines)
    net = NVPrecond(img_resolution=SIDE, architecture="ten lines", **options)
    conditioning_image = torch.rand(2, 3, SIDE, SIDE) if net.super_res else None
    src, dst, geometry = torch.rand(2, 3, SIDE, SIDE), torch.rand(2, 3, SIDE, SIDE), torch.randn(2, GEOMETRY_DIM)
    denoised, logvar = net(src, dst, torch.ones(2), geometry, conditioning_image, return_logvar=True)
    (denoised.square().mean() + logvar.mean()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())

    save_network(tmp_path / "net.safetensors", net)
    again = load_network(tmp_path / "net.safetensors").freeze()
    prepared = again.prepare(src, geometry, conditioning_image)
    zero = {"randn_like": torch.zeros_like}
    expected = net(src, dst, torch.ones(2), geometry, conditioning_image, **zero)
    torch.testing.assert_close(again(prepared, dst, torch.ones(2), **zero), expected, rtol=1e-5, atol=1e-5)
    view = View(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), Camera.from_fov(60, SIDE, SIDE))
    sampler = NovelViewSampler(again, config=SamplingConfig(num_steps=2))
    first = None if conditioning_image is None else conditioning_image[:1]
    assert sampler([[view, view]], [view.camera], [0], first).shape == (1, 3, SIDE, SIDE)


def test_an_architecture_that_nobody_built_is_refused() -> None:
    with pytest.raises(UserError, match="there is no architecture 'dit'; known are unet"):
        NVPrecond(img_resolution=SIDE, architecture="dit")
