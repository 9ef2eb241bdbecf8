"""One evaluation of a full-size network: the plain float32 path against the frozen one, in one run.

    python benchmarks/sampling.py --config=vivid-base --batch=4 --dtype=bfloat16
    python benchmarks/sampling.py --config=vivid-base --batch=64 --dtype=float16 --device=cuda

Weights are random. The two paths take turns and the best time of each counts, so that a busy machine disturbs both
alike. GFLOP are counted, not estimated; the peak is that of a large square matrix product in the same dtype.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch_utils.cameras import GEOMETRY_DIM
from torch_utils.distributed import best_device
from training.precond import NVPrecond

CONFIGS = {
    "vivid-base": dict(img_resolution=64, model_channels=128, extra_attn=1),
    "vivid-uncond": dict(img_resolution=64, model_channels=128, extra_attn=1, uncond=True),
    "vivid-sr": dict(img_resolution=256, model_channels=64, super_res=True),
}


def build(config: str) -> NVPrecond:
    torch.manual_seed(0)
    net = NVPrecond(**CONFIGS[config]).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 0:  # learned gains start at zero, which would make half of the network silent
            torch.nn.init.constant_(net.get_parameter(name), 0.3)
    return net


def seconds(function: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    float(function().flatten()[0])  # reading a number waits for the device
    return time.perf_counter() - start


@click.command()
@click.option("--config", type=click.Choice(list(CONFIGS)), default="vivid-base", show_default=True)
@click.option("--batch", type=int, default=4, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@click.option("--device", default=None, help="Default: the best present.")
@click.option("--repeat", type=int, default=5, show_default=True)
@torch.no_grad()
def main(config: str, batch: int, dtype: str, device: str | None, repeat: int) -> None:
    """Print time per evaluation, GFLOP/s, share of the matmul peak, and how far the outputs are apart."""
    device = device or best_device()
    side = CONFIGS[config]["img_resolution"]
    src, dst = torch.randn(2, batch, 3, side, side, device=device)
    sigma, geometry = torch.ones(batch, device=device), torch.randn(batch, GEOMETRY_DIM, device=device)
    low = torch.randn(batch, 3, side, side, device=device) if CONFIGS[config].get("super_res") else None

    plain, frozen = build(config).to(device), build(config).to(device)
    plain.compute_dtype = torch.float32 if device == "cpu" else torch.float16
    plain.noisy_sr = frozen.noisy_sr = 0.0  # the two must see the same
    frozen.freeze(getattr(torch, dtype))
    nets = {f"plain {str(plain.compute_dtype)[6:]}": plain, f"frozen {dtype}": frozen}

    def evaluate(net: NVPrecond) -> torch.Tensor:
        return net(src, dst, sigma, geometry, low)

    with FlopCounterMode(display=False) as counter:
        outputs = {name: evaluate(net) for name, net in nets.items()}
    gflop = counter.get_total_flops() / len(nets) / 1e9
    best = dict.fromkeys([*nets, "matmul"], float("inf"))
    a = torch.randn(2048, 2048, device=device).to(getattr(torch, dtype))
    for _ in range(repeat):
        for name, net in nets.items():
            best[name] = min(best[name], seconds(lambda net=net: evaluate(net)))
        best["matmul"] = min(best["matmul"], seconds(lambda: a @ a))
    peak = 2 * 2048**3 / best["matmul"] / 1e9

    first, second = outputs.values()
    print(f"{config}, batch {batch}, {device}, {torch.get_num_threads()} threads, {gflop:.0f} GFLOP an evaluation")
    print(f"{'path':20} {'seconds':>8} {'GFLOP/s':>8} {'of ' + dtype + ' peak':>18} {'speed':>6}")
    for name in nets:
        rate = gflop / best[name]
        speed = best[next(iter(nets))] / best[name]
        print(f"{name:20} {best[name]:8.3f} {rate:8.0f} {rate / peak:18.0%} {speed:5.2f}x")
    print(f"relative difference of the outputs: {float((second - first).norm() / first.norm()):.1e}")


if __name__ == "__main__":
    main()
