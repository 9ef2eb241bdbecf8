"""What the CPU computes, a GPU computes, too: `python -m pytest -m gpu`. Nothing is downloaded.

All bodies run on the CPU with `--gpu-device=cpu`, so that they are known to be right before they meet a GPU; the cheap
ones do so in every run of the tests. Pictures, losses and gradients are compared with the CPU's in float32, for which
convolutions must not round to TF32, as PyTorch otherwise lets them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from datasets.config import open_pairs
from datasets.synthetic import Synthetic
from metrics.detectors import load_detectors
from metrics.lpips import load_lpips
from tests.golden import golden_network, relative_error, tensors, tiny_network
from tests.training.runs import losses, relative_difference, tiny_config, write_data
from torch_utils.batches import collate
from torch_utils.distributed import Processes, best_device, start_processes
from torch_utils.memory import is_out_of_memory, peak_memory, release_memory, used_memory
from training.batching import fitting_batch, measure_memory
from training.checkpoint import load_newest_state
from training.config import TrainingConfig
from training.generation import NovelViewSampler, generate_images
from training.guidance import guided_denoiser
from training.model_io import load_network
from training.precond import NVPrecond
from training.sampling import edm_sampler
from training.sampling_config import SamplingConfig
from training.training_loop import Trainer, train

GPU = pytest.param("gpu", marks=pytest.mark.gpu)
on_gpu = pytest.mark.parametrize("device", [GPU], indirect=True)
also_on_cpu = pytest.mark.parametrize("device", ["cpu", GPU], indirect=True)

CONFIGS = ["base", "uncond", "sr", "epipolar", "no_time_enc", "depth_input"]
# Relative errors: sums in another order in float32, and ten binary digits in TF32 and float16.
TOLERANCE = {"float32": 2e-4, "tf32": 1e-2, "float16": 1e-2}
SAMPLING_TOLERANCE = 1e-3  # a whole run in float32
GREY_LEVELS = 2  # of 255, between two pictures in float32
GRADIENT_TOLERANCE = 5e-3  # of any one parameter, in float32
SEEDS = [0, 3, 5, 8, 9, 11, 12]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    name = request.param
    if name == "gpu":
        name = request.config.getoption("--gpu-device") or best_device()
        if name == "cpu" and request.config.getoption("--gpu-device") is None:
            pytest.skip("there is neither CUDA nor MPS here (--gpu-device=cpu runs this test on the CPU)")
    return torch.device(name)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def scenes() -> Synthetic:
    return Synthetic("test", resolution=48)


@pytest.fixture(scope="module")
def cpu() -> Processes:
    return start_processes("cpu")


def on(device: torch.device, *values: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    return tuple(None if value is None else value.to(device) for value in values)


@on_gpu
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("config", CONFIGS)
def test_golden_networks(config: str, precision: str, frozen: bool, device: torch.device) -> None:
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    dtype = torch.float16 if precision == "float16" else torch.float32
    net = golden_network(config).to(device)
    net.compute_dtype = dtype
    net = net.freeze(dtype) if frozen else net
    given = (tensors().get(f"net/{config}/{name}") for name in ("src", "dst", "sigma", "geometry", "cond"))
    out, logvar = net(*on(device, *given), return_logvar=True)
    assert out.device.type == logvar.device.type == device.type
    assert relative_error(out.cpu(), tensors()[f"net/{config}/out"]) < TOLERANCE[precision]
    assert relative_error(logvar.cpu(), tensors()[f"net/{config}/logvar"]) < TOLERANCE["float32"]


@on_gpu
def test_golden_network_that_amplifies_rounding(device: torch.device) -> None:
    """Fourier features of pixel coordinates, some hundred periods."""
    net = golden_network("warp_depth_coor").to(device)
    given = (tensors()[f"net/warp_depth_coor/{name}"] for name in ("src", "dst", "sigma", "geometry"))
    assert relative_error(net(*on(device, *given)).cpu(), tensors()["net/warp_depth_coor/out"]) < 2e-3


@on_gpu
@pytest.mark.parametrize(("steps", "guidance"), [(4, 1.0), (6, 1.5)])
def test_golden_samples(steps: int, guidance: float, device: torch.device) -> None:
    net, gnet = (golden_network(name).to(device) for name in ("base", "uncond"))
    src, geometry, noise = on(
        device, *(tensors()[name] for name in ("sampler/src", "net/base/geometry", "sampler/noise"))
    )
    denoise = guided_denoiser(net, src, geometry, gnet, guidance)
    sample = edm_sampler(denoise, noise, SamplingConfig(num_steps=steps))
    assert relative_error(sample.cpu(), tensors()[f"sampler/heun_{steps}_guidance_{guidance}"]) < SAMPLING_TOLERANCE


def cascade() -> dict[str, NVPrecond]:
    """Random weights; the features of the source view depend on the noise level, as in the published networks."""
    options = {"net": {}, "gnet": dict(uncond=True), "sr_model": dict(img_resolution=32, super_res=True)}
    return {role: tiny_network(**given) for role, given in options.items()}


def demo() -> dict[str, NVPrecond]:
    return {"net": load_network("vivid-tiny-base"), "sr_model": load_network("vivid-tiny-sr")}


def pictures(
    networks: dict[str, NVPrecond], scenes: Synthetic, seeds: list[int], batch: int = 4, guidance: float = 1.0
) -> torch.Tensor:
    made = generate_images(
        dataset=scenes, seeds=seeds, batch_size=batch, guidance=guidance, num_steps=3, sigma_max=40.0, **networks
    )
    return torch.cat([part.images for part in made]).int()


def frozen_on(device: torch.device, dtype: torch.dtype, networks: dict[str, NVPrecond]) -> dict[str, NVPrecond]:
    return {role: net.to(device).freeze(dtype) for role, net in networks.items()}


@on_gpu
def test_a_seed_draws_the_picture_that_it_draws_on_the_cpu(scenes: Synthetic, device: torch.device) -> None:
    cpu = torch.device("cpu")
    for networks, guidance in ((cascade, 1.5), (demo, 1.0)):
        expected = pictures(frozen_on(cpu, torch.float32, networks()), scenes, SEEDS[:3], guidance=guidance)
        found = pictures(frozen_on(device, torch.float32, networks()), scenes, SEEDS[:3], 2, guidance)
        assert int((found - expected).abs().max()) <= GREY_LEVELS
        assert float((found != expected).float().mean()) < 0.02
    half = pictures(frozen_on(device, torch.float16, demo()), scenes, SEEDS[:3])
    errors = (half - expected).double().square().mean(dim=(1, 2, 3)).clamp_min(1e-9)
    assert float(10 * torch.log10(255**2 / errors).min()) > 40  # dB


@on_gpu
def test_metrics_are_those_of_the_cpu(scenes: Synthetic, device: torch.device) -> None:
    pairs = [scenes[seed] for seed in SEEDS[:2]]
    source, target = (torch.stack([getattr(pair, role).image for pair in pairs]) for role in ("source", "target"))
    expected = load_lpips()(source, target)
    torch.testing.assert_close(
        load_lpips(device)(source.to(device), target.to(device)).cpu(), expected, rtol=1e-3, atol=0
    )
    features = [load_detectors(["efficientnet"], where)["efficientnet"](source) for where in ("cpu", device)]
    assert relative_error(features[1], features[0]) < 1e-3


@pytest.fixture
def compiling(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU a stand-in that compiles without minutes of C++."""

    def compile_part(part: torch.nn.Module, mode: str) -> None:
        assert mode == "default"
        part._compiled_call_impl = torch.compile(part._call_impl, backend="aot_eager")

    torch._dynamo.reset()
    if device.type == "cpu":
        monkeypatch.setattr(torch.nn.Module, "compile", compile_part)


@on_gpu
@pytest.mark.usefixtures("compiling")
def test_compiled_networks_draw_the_same_at_changing_batch_sizes(scenes: Synthetic, device: torch.device) -> None:
    """With CUDA graphs where there is CUDA; sizes 3, 3, 1, then 2, 2, 2, 1, then the first ones again."""
    torch._dynamo.utils.counters.clear()
    plain, compiled = (frozen_on(device, torch.float32, cascade()) for _ in range(2))
    for net in compiled.values():
        net.compile_parts()
        assert net.graphs == (device.type == "cuda")
    expected = pictures(plain, scenes, SEEDS, guidance=1.5)
    for batch in (3, 2, 3):
        found = pictures(compiled, scenes, SEEDS, batch, guidance=1.5)
        assert int((found - expected).abs().max()) <= GREY_LEVELS
    assert not torch._dynamo.utils.counters["unimplemented"]  # nothing was left uncompiled, not even at the last size


@on_gpu
@pytest.mark.usefixtures("compiling")
def test_a_compiled_step_of_training_is_the_same_step(data: Path, device: torch.device) -> None:
    config, processes = tiny_config(data, batch_gpu=2, bench=False), start_processes(str(device))
    plain, compiled = (steps(dataclasses.replace(config, compile=fused), processes) for fused in (False, True))
    torch.testing.assert_close(torch.stack(compiled.losses), torch.stack(plain.losses), rtol=1e-3, atol=0)


@also_on_cpu
def test_too_little_memory_is_known_for_what_it_is(device: torch.device) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8, device=device)
    assert is_out_of_memory(caught.value) or device.type == "mps"  # which says that no buffer can be so large


@contextlib.contextmanager
def a_quarter_of_what_it_takes(make: Callable[[], Any], net: NVPrecond, images: int) -> Iterator[None]:
    """Within the block, `make` of so many images does not fit; only CUDA can be limited, elsewhere that is played."""
    device = next(net.parameters()).device
    if device.type != "cuda":

        def refuse(_: object, arguments: tuple[Any, ...]) -> None:
            if len(arguments[1]) > images // 4:
                raise torch.OutOfMemoryError("out of memory")

        handle = net.register_forward_pre_hook(refuse)
        yield
        handle.remove()
        return
    needed = peak_memory(make, device) - used_memory(device)
    release_memory()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + needed / 4) / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@also_on_cpu
def test_what_does_not_fit_is_made_in_parts(scenes: Synthetic, device: torch.device) -> None:
    count = 64 if device.type == "cuda" else 4
    large = tiny_network(img_resolution=128, channel_mult=[1] * 5).to(device).freeze(torch.float32)
    seeds = list(range(count))

    def parts() -> list[Any]:
        return list(generate_images(large, scenes, seeds, batch_size=count, num_steps=1))

    (whole,) = parts()
    with a_quarter_of_what_it_takes(parts, large, count):
        made = parts()
    assert 1 < len(made) <= count
    assert [seed for part in made for seed in part.seeds] == seeds
    images = torch.cat([part.images for part in made]).int()
    assert int((images - whole.images.int()).abs().max()) <= GREY_LEVELS


@also_on_cpu
def test_memory_is_measured_and_a_batch_chosen(device: torch.device) -> None:
    sampler = NovelViewSampler(tiny_network().to(device).freeze(torch.float32))
    need = measure_memory(sampler)
    assert need.of(8) >= need.of(1) > 0
    assert fitting_batch(sampler, need, most=4) == 4
    size = 64 << 20
    before = used_memory(device)
    peak = peak_memory(lambda: torch.ones(size // 4, device=device).sum().item(), device)
    assert 0.9 * size < peak - before < 3 * size


def steps(config: TrainingConfig, processes: Processes, count: int = 2, wrap: bool = False) -> Trainer:
    """A trainer after some steps; wrapped as where there are several processes."""
    trainer, pairs = Trainer(config, processes), open_pairs(config.training_pairs(), config.resolution)
    if wrap:
        trainer._wrapped = DistributedDataParallel(trainer.net)
    for _ in range(count):
        trainer.step(collate([pairs[number] for number in trainer.image_numbers(trainer.images)]))
    return trainer


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Of the last step."""
    return {name: p.grad.cpu() for name, p in trainer.net.named_parameters() if p.grad is not None}


def largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """||a - b|| / ||b|| over equally named tensors; what is next to nothing beside the largest is rounding."""
    assert found.keys() == expected.keys()
    floor = 1e-4 * max(float(tensor.norm()) for tensor in expected.values())
    return max(float((found[name] - b).norm() / b.norm().clamp_min(floor)) for name, b in expected.items())


@also_on_cpu
@pytest.mark.parametrize("network", [{}, dict(super_res=True, img_resolution=32, plane_sweep=2)])
def test_a_step_of_training_is_that_of_the_cpu(
    data: Path, network: dict[str, Any], cpu: Processes, device: torch.device
) -> None:
    config = tiny_config(data, network, bench=False)
    expected, found = steps(config, cpu, 1), steps(config, start_processes(str(device)), 1)
    assert found.losses[0].device.type == device.type
    torch.testing.assert_close(found.losses[0].cpu(), expected.losses[0], rtol=1e-4, atol=0)
    assert largest_difference(gradients(found), gradients(expected)) < GRADIENT_TOLERANCE
    twice = [steps(config, processes) for processes in (cpu, start_processes(str(device)))]
    torch.testing.assert_close(twice[1].losses[1].cpu(), twice[0].losses[1], rtol=1e-2, atol=0)
    averages = [trainer.ema.averages[0].state_dict() for trainer in twice]
    assert relative_difference(*({k: v.cpu() for k, v in average.items()} for average in averages)) < 0.05


@on_gpu
def test_a_run_goes_on_where_it_was(data: Path, tmp_path: Path, device: torch.device, cpu: Processes) -> None:
    """On the device, and on the CPU what was begun on the device."""
    config, processes = tiny_config(data, bench=False, samples=32), start_processes(str(device))
    outdirs = [tmp_path / name for name in ("whole", "resumed", "elsewhere")]
    train(config, outdirs[0], processes)
    for outdir, second in zip(outdirs[1:], (processes, cpu), strict=True):
        train(dataclasses.replace(config, duration=24), outdir, processes)
        assert load_newest_state(outdir)["images"] == 24
        train(config, outdir, second)
        assert load_newest_state(outdir)["images"] == 48
        found, expected = losses(outdir), losses(outdirs[0])
        assert found.keys() == expected.keys()
        assert [found[n] for n in sorted(found)[:6]] == pytest.approx(
            [expected[n] for n in sorted(found)[:6]], rel=1e-2
        )
        assert found[28] == pytest.approx(expected[28], rel=1e-2)  # the first step after; later ones drift apart
        assert found[48] == pytest.approx(expected[48], rel=0.2)
    assert load_network(outdirs[0] / "network-snapshot-0000000.048-0.100.safetensors", device) is not None


@also_on_cpu
def test_half_precision_with_a_loss_scale(data: Path, device: torch.device) -> None:
    """A scale that fits changes nothing; what overflows is counted, replaced, and leaves the weights whole."""
    processes = start_processes(str(device))
    config = tiny_config(data, precision="float16", bench=False, ramp_up=0)
    exact, plain, scaled, overflowing = (
        steps(dataclasses.replace(config, **changes), processes)
        for changes in (dict(precision="float32"), {}, dict(loss_scaling=128.0), dict(loss_scaling=3e38))
    )
    for trainer in (plain, scaled):
        torch.testing.assert_close(trainer.losses[0], exact.losses[0], rtol=0.03, atol=0)
        torch.testing.assert_close(trainer.losses[1], exact.losses[1], rtol=0.1, atol=0)
    assert int(exact.nonfinite) == int(scaled.nonfinite) == 0
    assert int(overflowing.nonfinite) > 0
    assert int(overflowing.bad_steps) == 0  # the loss itself is finite
    for trainer in (plain, scaled, overflowing):
        assert {parameter.dtype for parameter in trainer.net.parameters()} == {torch.float32}
        assert all(bool(parameter.isfinite().all()) for parameter in trainer.net.parameters())
        assert all(bool(p.isfinite().all()) for p in trainer.ema.averages[0].parameters())


def _alone_in_a_group(device: str, data: Path, port: int, answers: Connection) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    where = dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, OMP_NUM_THREADS=1)
    os.environ.update({name: str(value) for name, value in where.items()})
    processes = start_processes(device)
    trainer = steps(tiny_config(data, batch_gpu=2, bench=False), processes, wrap=True)
    processes.barrier()
    answers.send(
        {
            "backend": torch.distributed.get_backend(),
            "place": (processes.rank, processes.world_size, processes.device.type),
            "gather": processes.gather(["a"]),
            "mean": processes.mean(torch.tensor([3.0], device=processes.device)).tolist(),
            "losses": [float(loss) for loss in trainer.losses],
        }
    )
    processes.close()


@on_gpu
def test_one_process_of_a_group(data: Path, device: torch.device) -> None:
    """As torchrun starts it: nccl on CUDA, gloo on the CPU; with DistributedDataParallel around the network."""
    if device.type == "mps":
        pytest.skip("there is no backend for MPS")
    expected = steps(tiny_config(data, batch_gpu=2, bench=False), start_processes(str(device)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_alone_in_a_group, args=(str(device), data, port, sender))
    child.start()
    answer = receiver.recv() if receiver.poll(120) else {}
    child.join(30)
    child.kill()
    assert child.exitcode == 0
    assert answer["backend"] == ("nccl" if device.type == "cuda" else "gloo")
    assert answer["place"] == (0, 1, device.type)
    assert (answer["gather"], answer["mean"]) == (["a"], [3.0])
    assert answer["losses"] == pytest.approx([float(loss) for loss in expected.losses], rel=1e-3)
