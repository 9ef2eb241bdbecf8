from __future__ import annotations

import math

import pytest
import torch

from dnnlib.util import UserError
from tests.golden import TINY, golden_network, relative_error, tensors, tiny_network, vectors
from torch_utils.cameras import Camera, resize_image
from torch_utils.geometry_vector import GEOMETRY_DIM, geometry_vector
from training.conditioning import Prepared, normalize_inverse_depth, shrink_and_enlarge, warp_grid
from training.model_io import load_network
from training.precond import NVPrecond

CONFIGS = ["base", "uncond", "sr", "epipolar", "no_time_enc", "depth_input", "warp_depth_coor"]
TOLERANCE = {"warp_depth_coor": 1e-4}  # Fourier features of pixel coordinates amplify rounding


def call(config: str) -> tuple[torch.Tensor | None, ...]:
    return tuple(tensors().get(f"net/{config}/{name}") for name in ("src", "dst", "sigma", "geometry", "cond"))


def tiny_inputs(net: NVPrecond, batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    src = torch.rand(batch, net.source_channels, 16, 16, generator=generator) + 0.5
    dst = torch.randn(batch, 3, 16, 16, generator=generator)
    return src, dst, torch.tensor([0.5, 2.0][:batch]), torch.randn(batch, GEOMETRY_DIM, generator=generator)


@pytest.mark.parametrize("config", CONFIGS)
def test_state_dict_is_the_published_one(config: str) -> None:
    with torch.device("meta"):
        net = NVPrecond(**vectors()["nets"][config]["init_kwargs"])
    assert {name: list(t.shape) for name, t in net.state_dict().items()} == vectors()["nets"][config]["state"]


@pytest.mark.parametrize("config", CONFIGS)
def test_network_gives_the_published_numbers(config: str) -> None:
    net, tolerance = golden_network(config), TOLERANCE.get(config, 1e-5)
    src, dst, sigma, geometry, conditioning_image = call(config)
    out, logvar = net(src, dst, sigma, geometry, conditioning_image, return_logvar=True)
    assert relative_error(out, tensors()[f"net/{config}/out"]) < tolerance
    assert relative_error(logvar, tensors()[f"net/{config}/logvar"]) < 1e-5
    features = net.encode_source(src, sigma, geometry)
    expected = vectors()["nets"][config]["features"]
    assert len(features) == len(expected)
    for ours, theirs in zip(features, expected, strict=True):
        assert list(ours.shape) == theirs["shape"]
        assert ours.norm().item() == pytest.approx(theirs["norm"], rel=1e-5)
        torch.testing.assert_close(ours.flatten()[:4], torch.tensor(theirs["first"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_computed_once_gives_the_same(config: str) -> None:
    net = golden_network(config)
    src, dst, sigma, geometry, conditioning_image = call(config)
    expected = net(src, dst, sigma, geometry, conditioning_image)
    features = net.encode_source(src, sigma, geometry)
    again = net(src, dst, sigma, geometry, conditioning_image, source_features=features)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        net(net.prepare(src, geometry, conditioning_image), dst, sigma), expected, rtol=0, atol=0
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_prepared_can_be_taken_apart_and_put_together(config: str) -> None:
    net = golden_network(config).freeze()
    src, dst, sigma, geometry, conditioning_image = call(config)
    expected = net(src, dst, sigma, geometry, conditioning_image)
    first, second = (
        net.prepare(*(None if t is None else t[k : k + 1] for t in (src, geometry, conditioning_image))) for k in (0, 1)
    )
    both = Prepared.cat([first, second])
    torch.testing.assert_close(net(both, dst, sigma), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(both[1:], dst[1:], sigma[1:]), expected[1:], rtol=1e-5, atol=1e-5)
    swapped = both[torch.tensor([1, 0])]
    torch.testing.assert_close(net(swapped, dst.flip(0), sigma.flip(0)), expected.flip(0), rtol=1e-5, atol=1e-5)


def test_compiled_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_part(part: torch.nn.Module, mode: str) -> None:  # the real one, without a minute of C++
        compiled.append(mode)
        part._compiled_call_impl = torch.compile(part._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_part)
    net = tiny_network().freeze()
    inputs = tiny_inputs(net)
    plain = net(*inputs)
    torch.testing.assert_close(net.compile_parts()(*inputs), plain, rtol=1e-5, atol=1e-5)
    assert compiled == ["default", "default"]
    assert torch._dynamo.config.recompile_limit >= 30  # two sizes for each of the five parts of a cascade, and others


class _GraphMemory:
    """Parts whose outputs do not outlive the step they are made in, as those of CUDA graphs do not.

    Each call of a part begins a step, unless it is said where steps begin: so PyTorch's CUDA graph trees have it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.marks, self.calls, self.alive, self.step = 0, 0, [], None
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", self._mark)

    def _mark(self) -> None:
        self.marks += 1

    def begin(self, *_: object) -> None:
        self.calls += 1
        step = self.marks or -self.calls
        if step != self.step:
            for output in self.alive:
                output.fill_(math.nan)
            self.step, self.alive = step, []

    def keep(self, _: object, __: object, output: torch.Tensor | list[torch.Tensor]) -> None:
        self.alive += output if isinstance(output, list) else [output]


@pytest.mark.parametrize("options", [{}, dict(no_time_enc=True), dict(uncond=True), dict(plane_sweep=2)])
def test_what_a_graph_gives_is_used_up_within_its_step(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_network(**options).freeze(torch.float32)
    src, dst, sigma, geometry = tiny_inputs(net)
    prepared = net.prepare(src, geometry)
    whole, twice = net(src, dst, sigma, geometry), net(prepared, 2 * dst, sigma)
    memory, net.graphs = _GraphMemory(monkeypatch), True
    for part in ("encoder", "unet"):
        if hasattr(net, part):
            net.get_submodule(part).register_forward_pre_hook(memory.begin)
            net.get_submodule(part).register_forward_hook(memory.keep)
    prepared = net.prepare(src, geometry)
    first, second = net(src, dst, sigma, geometry), net(prepared, 2 * dst, sigma)
    assert torch.equal(first, whole)
    assert torch.equal(second, twice)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        NVPrecond(**TINY).compile_parts()


@pytest.mark.parametrize("config", ["base", "sr", "epipolar"])
def test_training_and_evaluation_mode_agree_for_normalised_weights(config: str) -> None:
    net = golden_network(config).train()
    arguments = call(config)
    net(*arguments)  # normalises the weights
    trained, evaluated = net(*arguments), net.eval()(*arguments)
    # normalising once more divides by 1 + 1e-4: that much, through the depth of the network
    assert relative_error(trained, evaluated) < 1e-4


def test_no_time_enc_features_do_not_depend_on_the_noise_level() -> None:
    net = golden_network("no_time_enc")
    src, _, sigma, geometry, _ = call("no_time_enc")
    for a, b in zip(net.encode_source(src, sigma, geometry), net.encode_source(src, 9 * sigma, geometry), strict=True):
        assert torch.equal(a, b)
    net = golden_network("base")
    pairs = zip(net.encode_source(src, sigma, geometry), net.encode_source(src, 9 * sigma, geometry), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_uncond_ignores_source_and_geometry() -> None:
    net = golden_network("uncond")
    src, dst, sigma, geometry, _ = call("uncond")
    assert torch.equal(net(src, dst, sigma, geometry), net(-src, dst, sigma, 3 * geometry))


def test_warped_grid_is_the_published_one() -> None:
    ours = warp_grid(tensors()["warp/depth"], tensors()["geometry/64"][:2])
    assert relative_error(ours, tensors()["warp/grid"]) < 1e-5


def test_warped_grid_of_identical_cameras_is_the_pixel_grid_in_row_column_order() -> None:
    geometry = tensors()["geometry/64"][3:]  # a camera and itself
    grid = warp_grid(torch.full((1, 1, 64, 64), 2.0), geometry)[0]
    # the pose comes back from (g - mean)/std to four digits: a thousandth of a pixel
    torch.testing.assert_close(grid[5, 40], torch.tensor([5.5, 40.5]), rtol=0, atol=5e-3)


def test_a_black_source_gives_no_coordinates() -> None:
    net = tiny_network(warp_depth_coor=True)
    src, _, _, geometry = tiny_inputs(net)
    src[0, :3] = 0
    prepared = net.prepare(src, geometry)
    for features in (prepared.encoder_input[0][:, 3:], prepared.told[0][0]):
        assert not bool(features[0].any())
        assert bool(features[1].any())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"uncond": True},
        {"super_res": True},
        {"super_res": True, "epipolar_attention_bias": True, "depth_input": True},
        {"warp_depth_coor": True, "no_time_enc": True},
        {"warp_depth_coor": True, "uncond": True},
        {"dropout": 0.2, "extra_attn": 0},
        {"plane_sweep": 3, "sigma_data": 0.1},
        {"plane_sweep": 3, "super_res": True},
    ],
)
def test_every_parameter_of_every_combination_gets_a_gradient(options: dict) -> None:
    torch.manual_seed(0)
    net = NVPrecond(**TINY, **options).train()
    for parameter in net.parameters():  # gains start at zero and would hide what is behind them
        parameter.data.add_(0.1)
    conditioning_image = torch.randn(2, 3, 16, 16) if options.get("super_res") else None
    denoised, logvar = net(*tiny_inputs(net), conditioning_image, return_logvar=True)
    (denoised.pow(2).mean() + logvar.mean()).backward()
    silent = {name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())}
    dead_without_source = {name for name in silent if "x_attn_kv" in name or "emb_label" in name}
    assert silent == (dead_without_source if options.get("uncond") else set())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    net = golden_network("base")
    exact = net(*call("base")[:4])
    net.compute_dtype = dtype
    half = net(*call("base")[:4])
    assert half.dtype == torch.float32
    assert relative_error(half, exact) < 1e-2


def test_batched_is_looped() -> None:
    net = golden_network("epipolar")
    src, dst, sigma, geometry, _ = call("epipolar")
    whole = net(src, dst, sigma, geometry)
    for k in range(2):
        one = net(src[k : k + 1], dst[k : k + 1], sigma[k : k + 1], geometry[k : k + 1])
        torch.testing.assert_close(one[0], whole[k], rtol=1e-5, atol=1e-5)


def test_arguments_stay_as_they_were() -> None:
    net = golden_network("warp_depth_coor")
    arguments = call("warp_depth_coor")[:4]
    before = [a.clone() for a in arguments]
    net(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


def test_super_resolution_needs_its_shrink_and_enlarge() -> None:
    net = NVPrecond(**TINY, super_res=True)
    with pytest.raises(ValueError, match="low-resolution"):
        net(*tiny_inputs(net))


def camera_moved_by(x: float) -> torch.Tensor:
    """Geometry [1, 20] of a camera beside the source camera."""
    moved = torch.cat([torch.eye(3), torch.tensor([[x], [0], [0]])], dim=1).to(torch.float64)
    return geometry_vector(Camera.from_fov(60, 16, 16), Camera.from_fov(60, 16, 16, moved), 16)[None]


def test_an_untrained_network_with_a_plane_sweep_expects_the_mean_of_the_planes() -> None:
    """All outputs of the U-Net are zero at first, so in pure noise nothing but the blend is left."""
    net = NVPrecond(**TINY, plane_sweep=4, sigma_data=0.1)
    src, geometry = torch.rand(1, 3, 16, 16), camera_moved_by(0.2)
    ((planes, _, _),) = net.prepare(src, geometry).told
    torch.testing.assert_close(planes[:, :, 0], src, atol=1e-4, rtol=0)  # infinitely far away, nothing moves
    assert float((planes[:, :, 3] - src).abs().mean()) > 0.02
    denoised = net(src, 1e4 * torch.randn(1, 3, 16, 16), torch.tensor([1e4]), geometry)
    torch.testing.assert_close(denoised, planes.mean(dim=2), atol=1e-4, rtol=0)


def test_super_resolution_with_a_plane_sweep_adds_the_details_of_the_planes() -> None:
    net = NVPrecond(**TINY, plane_sweep=4, sigma_data=0.1, super_res=True, noisy_sr=0)
    src, conditioning_image, geometry = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16), camera_moved_by(0.2)
    mean = net.prepare(src, geometry, conditioning_image).told[1][0].mean(dim=2)
    denoised = net(src, 1e4 * torch.randn(1, 3, 16, 16), torch.tensor([1e4]), geometry, conditioning_image)
    torch.testing.assert_close(denoised, conditioning_image + mean - shrink_and_enlarge(mean), atol=1e-4, rtol=0)


def test_options_that_want_the_same_channel_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one"):
        NVPrecond(**TINY, depth_input=True, warp_depth_coor=True)


def test_sr_head_width_differs_between_denoiser_and_source_encoder() -> None:
    with torch.device("meta"):
        net = NVPrecond(**vectors()["nets"]["sr"]["init_kwargs"])
        explicit = NVPrecond(**vectors()["nets"]["sr"]["init_kwargs"], channels_per_head=16)
    assert (net.unet.channels_per_head, net.encoder.channels_per_head) == (32, 64)
    assert (explicit.unet.channels_per_head, explicit.encoder.channels_per_head) == (16, 16)


def test_published_size() -> None:
    with torch.device("meta"):
        net = NVPrecond(img_resolution=64, model_channels=128, extra_attn=1)
    assert sum(p.numel() for p in net.parameters()) == 250_643_011


def test_inverse_depth_is_relative_to_the_nearest_pixel() -> None:
    depth = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    expected = (torch.tensor([[[[1, 0.5], [0.25, 0.125]]]]) - 0.4947) / 0.2294
    torch.testing.assert_close(normalize_inverse_depth(depth), expected)
    torch.testing.assert_close(normalize_inverse_depth(10 * depth), expected)


def test_shrink_and_enlarge_keeps_what_a_quarter_of_the_size_can_show() -> None:
    assert torch.allclose(shrink_and_enlarge(torch.full((1, 3, 32, 32), 0.3)), torch.tensor(0.3))
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    inner = (shrink_and_enlarge(ramp) - ramp)[..., 8:-8]
    assert float(inner.abs().max()) < 1e-3
    noise = torch.randn(1, 3, 64, 64)
    assert float(shrink_and_enlarge(noise).std()) < 0.4 * float(noise.std())
    torch.testing.assert_close(shrink_and_enlarge(noise), resize_image(resize_image(noise, 16, 16), 64, 64))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_frozen_network_gives_the_published_numbers(config: str) -> None:
    net, tolerance = golden_network(config).freeze(torch.float32), TOLERANCE.get(config, 1e-5)
    out, logvar = net(*call(config), return_logvar=True)
    assert relative_error(out, tensors()[f"net/{config}/out"]) < tolerance
    assert relative_error(logvar, tensors()[f"net/{config}/logvar"]) < 1e-5


@pytest.mark.parametrize("config", ["base", "uncond", "sr", "epipolar", "no_time_enc", "depth_input"])
def test_a_frozen_network_in_half_precision_stays_close(config: str) -> None:
    out = golden_network(config).freeze(torch.bfloat16)(*call(config))
    assert relative_error(out, tensors()[f"net/{config}/out"]) < 1e-2


def smooth_call(side: int, super_res: bool) -> tuple[torch.Tensor | None, ...]:
    """A call of a network on smooth pictures, the camera moved to the side and back."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="xy")
    src = torch.stack([(3 * x + y).sin(), (4 * y).cos() * x, (2 * x * y + 1).sin()])[None]
    dst = 0.5 * torch.stack([(2 * y).cos(), (3 * x).sin(), x * y])[None]
    moved = torch.cat([torch.eye(3), torch.tensor([[0.2], [-0.05], [0.1]])], dim=1).to(torch.float64)
    geometry = geometry_vector(Camera.from_fov(60, side, side), Camera.from_fov(60, side, side, moved), side)[None]
    return src, dst, torch.tensor([0.5]), geometry, 0.5 * src.flip(3) if super_res else None


# A row of pixels that the shipped networks draw, its red, green and blue, as they did before anything was rebuilt; for
# super-resolution, when it had learned anew with 15 planes and LPIPS.
DRAWN = {
    "base": [
        [0.10237, -0.25376, 0.00865, 0.74914],
        [-0.16331, -0.13563, -0.01758, -0.09626],
        [0.29286, -0.05684, -0.00539, 0.44075],
    ],
    "uncond": [
        [0.25182, 0.28731, 0.25545, 0.35388],
        [-0.10613, -0.35448, 0.02941, 0.30049],
        [0.14011, 0.09986, 0.01974, -0.04964],
    ],
    "sr": [
        [0.4144, 0.31568, -0.00435, 0.07293],
        [-0.08759, -0.29836, -0.08441, 0.21696],
        [0.07221, -0.01669, 0.12608, 0.38008],
    ],
}


@pytest.mark.parametrize("name", DRAWN)
def test_shipped_networks_draw_what_they_drew(name: str) -> None:
    net = load_network(f"vivid-tiny-{name}")
    denoised = net(*smooth_call(net.img_resolution, net.super_res), randn_like=torch.zeros_like)
    step = net.img_resolution // 4
    torch.testing.assert_close(denoised[0, :, step, ::step], torch.tensor(DRAWN[name]), rtol=0, atol=1e-3)
