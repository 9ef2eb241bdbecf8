"""What the network gets of depth: from views or from a model, in the form that it was trained with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datasets.synthetic import Synthetic
from dnnlib import UserError
from tests.golden import tiny_network
from torch_utils.batches import Batch
from torch_utils.cameras import Camera, View, pixels_to_float
from torch_utils.geometry_vector import GEOMETRY_DIM
from training.conditioning import normalize_inverse_depth
from training.encodings import Encodings
from training.generation import NovelViewSampler, generate_images
from training.guidance import view_denoiser
from training.network_config import EncodingConfig
from training.sampling_config import SamplingConfig

NONE = Encodings(EncodingConfig())
INVERSE = Encodings(EncodingConfig(depth_input=True))
WARPED = Encodings(EncodingConfig(warp_depth_coor=True))


class Brightness(nn.Module):
    """A depth model: bright is far."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(views.shape))
        return 1 + views.float().mean(dim=1, keepdim=True)


def views(count: int = 2, depth: float | None = None) -> list[View]:
    camera = Camera.from_fov(60, 16, 16)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return [View(image, camera, None if depth is None else torch.full((16, 16), depth)) for image in images]


def test_the_fourth_channel_is_depth_in_the_form_asked_for() -> None:
    images = torch.stack([view.image for view in views()])
    depth = torch.rand(2, 1, 16, 16) + 0.5
    batch = Batch(images, images, torch.zeros(2, GEOMETRY_DIM), depth)
    assert torch.equal(NONE.batch_input(batch), pixels_to_float(images))
    assert torch.equal(WARPED.batch_input(batch)[:, 3:], depth)
    assert torch.equal(INVERSE.batch_input(batch)[:, 3:], normalize_inverse_depth(depth))


def test_unknown_depth_is_the_farthest_of_its_image() -> None:
    images = torch.stack([view.image for view in views()])
    depth = torch.rand(2, 1, 16, 16) + 0.5
    depth[:, :, 3, 4] = 0
    channel = INVERSE.batch_input(Batch(images, images, torch.zeros(2, GEOMETRY_DIM), depth))[:, 3:]
    assert bool(channel.isfinite().all())
    torch.testing.assert_close(channel[:, :, 3, 4], channel.amin(dim=(-2, -1)))


def test_a_model_beats_what_views_carry_and_is_asked_only_where_depth_is_needed() -> None:
    model = Brightness()
    carried = WARPED.views_input(views(depth=2.0))
    assert bool((carried[:, 3] == 2).all())
    estimated = WARPED.views_input(views(depth=2.0), model)
    torch.testing.assert_close(estimated[:, 3:], 1 + 127.5 * (estimated[:, :3] + 1).mean(dim=1, keepdim=True))
    assert NONE.views_input(views(), model).shape[1] == 3
    assert model.seen == [(2, 3, 16, 16)]


def test_missing_depth_names_the_option() -> None:
    with pytest.raises(UserError, match="`depth_model`"):
        INVERSE.views_input([*views(1), *views(1, depth=2.0)])


@pytest.mark.parametrize("option", ["depth_input", "warp_depth_coor"])
def test_a_module_from_python_gives_the_depth_of_samples(option: str) -> None:
    net, model, dataset = (tiny_network(**{option: True})), Brightness(), Synthetic("test", resolution=24)
    (batch,) = generate_images(net, dataset, [0, 1], depth_model=model, num_steps=2)
    assert model.seen == [(2, 3, 16, 16)]  # what the network sees of the views, once a sample
    (exact,) = generate_images(net, dataset, [0, 1], num_steps=2)  # synthetic views carry depth
    assert not torch.equal(batch.images, exact.images)


def test_denoisers_from_views_take_the_model_too() -> None:
    net, model = (tiny_network(depth_input=True)), Brightness()
    targets = [view.camera for view in views()]
    denoise = view_denoiser(net, [[view] for view in views()], targets, depth_model=model)
    assert denoise(torch.randn(2, 3, 16, 16), torch.tensor(1.0)).shape == (2, 3, 16, 16)
    assert model.seen


def test_guidance_wants_depth_in_the_form_of_the_base_network() -> None:
    plain, inverse, warp = ((tiny_network(**o)) for o in ({}, {"depth_input": True}, {"warp_depth_coor": True}))
    for net, gnet in ((inverse, warp), (warp, inverse), (plain, warp)):
        with pytest.raises(UserError, match="depth in another form"):
            NovelViewSampler(net, gnet, config=SamplingConfig(guidance=1.5))
    for net, gnet in ((inverse, inverse), (warp, plain)):
        assert NovelViewSampler(net, gnet, config=SamplingConfig(guidance=1.5)).gnet is gnet
