"""Networks of full size: the plain path against the fast one, in one run.

    python -m benchmarks.sampling --config=vivid-base --batch=4                         # one evaluation
    python -m benchmarks.sampling --config=vivid-sr --batch=1 --dtype=float32 --profile
    python -m benchmarks.sampling --config=vivid-base --batch=64 --device=cuda --dtype=bfloat16 --compile
    python -m benchmarks.sampling --config=vivid --batch=32 --device=cuda --compile     # all 189 evaluations
    python -m benchmarks.sampling --config=vivid --batch=1 --device=cuda --compile

Weights are random. Plain is a network as it was trained, which normalises its weights at every use, in float32 (float16
on CUDA); fast is what `generate_images.py` makes of it. The two take turns and the best time of each counts, so that a
busy machine disturbs both alike. GFLOP are counted, not estimated; the peak is that of a large square matrix product in
the fast path's dtype. Memory is what a path takes while it works, beside the networks.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

import click
import torch

from benchmarks.training import preset_config
from datasets.trajectories import Move
from presets import SAMPLING, TRAINING
from torch_utils.cameras import Camera, View
from torch_utils.distributed import best_device, fast_dtype
from torch_utils.geometry_vector import geometry_vector
from torch_utils.memory import peak_memory, used_memory
from training.estimate import flop_of
from training.generation import NovelViewSampler
from training.precond import NVPrecond
from training.sampling_config import DTYPES, ROLES, SamplingConfig

_PROFILE_ROWS = 12
_M_MMAP_THRESHOLD = -3  # mallopt(3)


def build(name: str, device: str) -> NVPrecond:
    """The network that a preset of train_nvs.py trains."""
    config = preset_config(name, "", 1, "cpu").network
    torch.manual_seed(0)
    # Without noise on the low-resolution image: the two paths must see the same.
    net = NVPrecond(**{**config.to_dict(), "noisy_sr": 0.0}).eval().requires_grad_(False).to(device)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 0:  # learned gains start at zero, which would make half of the network silent
            torch.nn.init.constant_(net.get_parameter(name), 0.3)
    return net


def build_plain(name: str, device: str, dtype: torch.dtype) -> NVPrecond:
    """The same as it was trained, with weights that are normalised at every use."""
    net = build(name, device)
    net.compute_dtype = dtype
    return net


def evaluation(name: str, batch: int, device: str, make: Callable[[str], NVPrecond]) -> Callable[[], torch.Tensor]:
    """One evaluation of a network, which `make` makes of its name."""
    net = make(name)
    side, camera = net.img_resolution, Camera.from_fov(58.0, 64, 64)
    torch.manual_seed(0)
    src, dst, conditioning_image = torch.randn(3, batch, 3, side, side, device=device)
    sigma = torch.ones(batch, device=device)
    geometry = geometry_vector(camera, Move(right=0.5, pan_deg=5.0).camera(camera), side).expand(batch, -1).to(device)
    return lambda: net(src, dst, sigma, geometry, conditioning_image if net.super_res else None)


def sample(
    preset: str, steps: int | None, batch: int, make: Callable[[str], NVPrecond]
) -> tuple[NovelViewSampler, Callable[[], torch.Tensor]]:
    """Whole samples as a preset of generate_images.py says, in its own number of steps or another."""
    options = dict(SAMPLING[preset])
    networks = {role: make(options[role]) for role in ROLES if role in options}
    options["num_steps"] = steps or options.get("steps", SamplingConfig().num_steps)
    sampler = NovelViewSampler(**networks, config=SamplingConfig.of(options))
    return sampler, lambda: draw(sampler, batch)


def draw(sampler: NovelViewSampler, batch: int) -> torch.Tensor:
    """Views of noise from a camera that has moved: [batch, 3, R, R]."""
    image = torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    view = View(image, Camera.from_fov(58.0, 64, 64))
    targets = [Move(right=0.5, pan_deg=5.0).camera(view.camera)] * batch
    return sampler([view] * batch, targets, range(batch)).float()


def seconds(function: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    float(function().flatten()[0])  # reading a number waits for the device
    return time.perf_counter() - start


def working_memory(function: Callable[[], object], device: torch.device) -> int:
    """Bytes that a function takes at most, beside what is there before it."""
    if device.type == "cpu" and sys.platform == "linux":
        # Have the C library give back whatever is freed, or the second path would use what the first has left.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    function()
    before = used_memory(device)
    return peak_memory(function, device) - before


def print_profile(function: Callable[[], object]) -> None:
    """Print where the time goes, by operation."""
    with torch.profiler.profile() as profile:
        function()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=_PROFILE_ROWS))


@click.command()
@click.option("--config", type=click.Choice([*TRAINING, *SAMPLING]), default="vivid-base", show_default=True)
@click.option("--batch", type=int, default=4, show_default=True)
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Of the fast path.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile in the fast path.")
@click.option("--steps", type=int, help="Of a sample.  [default: the preset's]")
@click.option("--device", default=None, help="Default: the best present.")
@click.option("--repeat", type=int, default=5, show_default=True)
@click.option("--profile", is_flag=True, help="Also: where the time of the fast path goes.")
@torch.no_grad()
def main(
    config: str,
    batch: int,
    dtype: str,
    compiled: bool,
    steps: int | None,
    device: str | None,
    repeat: int,
    profile: bool,
) -> None:
    """Print time, GFLOP/s, share of the matmul peak, memory, and how far the results are apart."""
    device = device or best_device()
    chosen = fast_dtype(device) if dtype == "auto" else getattr(torch, dtype)
    plain_dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
    chosen = chosen or plain_dtype

    def plain(name: str) -> NVPrecond:
        return build_plain(name, device, plain_dtype)

    def fast(name: str) -> NVPrecond:
        net = build(name, device).freeze(chosen)
        return net.compile_parts() if compiled else net

    titles = [f"plain {str(plain_dtype)[6:]}", f"fast {str(chosen)[6:]}{', compiled' if compiled else ''}"]
    paths = {
        title: sample(config, steps, batch, make)[1] if config in SAMPLING else evaluation(config, batch, device, make)
        for title, make in zip(titles, (plain, fast), strict=True)
    }
    gflop = flop_of(paths[titles[0]]) / 1e9
    results = {title: path() for title, path in paths.items()}
    best = dict.fromkeys([*titles, "matmul"], float("inf"))
    side = 8192 if torch.device(device).type == "cuda" else 2048
    a = torch.randn(side, side, device=device).to(chosen)
    for _ in range(repeat):
        for title, path in paths.items():
            best[title] = min(best[title], seconds(path))
        for _ in range(3):
            best["matmul"] = min(best["matmul"], seconds(lambda: a @ a))
    peak = 2 * side**3 / best["matmul"] / 1e9
    memory = {title: working_memory(path, torch.device(device)) / 2**20 for title, path in paths.items()}

    what = "a sample" if config in SAMPLING else "an evaluation"
    print(f"{config}, batch {batch}, {device}, {torch.get_num_threads()} threads, {gflop:.0f} GFLOP {what}")
    print(f"{'path':24} {'seconds':>8} {'GFLOP/s':>8} {'of matmul peak':>15} {'MiB':>6} {'speed':>6}")
    for title in titles:
        rate = gflop / best[title]
        speed = best[titles[0]] / best[title]
        print(f"{title:24} {best[title]:8.3f} {rate:8.0f} {rate / peak:15.0%} {memory[title]:6.0f} {speed:5.2f}x")
    exact, other = results.values()
    print(f"relative difference of the results: {float((other - exact).norm() / exact.norm()):.1e}")
    if profile:
        print_profile(paths[titles[1]])


if __name__ == "__main__":
    main()
