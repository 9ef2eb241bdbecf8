"""What each encoding of geometry costs: an evaluation, and what is worked out once per sample.

    python -m benchmarks.geometry --channels=128 --resolution=64 --batch=4

Weights are random. The networks take turns and the best time of each counts, so that a busy machine disturbs all
alike. The last two columns say how much slower an evaluation would be if that work were done in each evaluation, or for
each block with attention anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import click
import torch

from torch_utils.distributed import best_device
from torch_utils.epipolar import epipolar_distance
from torch_utils.geometry_vector import GEOMETRY_DIM, split_geometry
from training.precond import NVPrecond

ENCODINGS = {
    "pose vector": {},
    "epipolar bias": {"epipolar_attention_bias": True},
    "depth input": {"depth_input": True},
    "warped coordinates": {"warp_depth_coor": True},
}


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Return the processor's time, so that others on the machine count little; on other devices the clock's."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def distances_for_every_block(net: NVPrecond, geometry: torch.Tensor) -> None:
    """Compute the distances of `NVPrecond.prepare` anew for each block."""
    for _, side in net.unet.feature_shapes:
        epipolar_distance(*split_geometry(geometry, net.img_resolution), net.img_resolution, side)


@click.command()
@click.option("--channels", default=128, show_default=True)
@click.option("--resolution", default=64, show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--device", default=None, help="Default: the best present.")
@click.option("--repeat", default=5, show_default=True)
@torch.no_grad()
def main(channels: int, resolution: int, batch: int, device: str | None, repeat: int) -> None:
    """Print milliseconds per encoding."""
    where = torch.device(device or best_device())
    dst = torch.randn(batch, 3, resolution, resolution, device=where)
    geometry, sigma = torch.randn(batch, GEOMETRY_DIM, device=where), torch.ones(batch, device=where)
    jobs: dict[tuple[str, str], Callable[[], object]] = {}
    for name, options in ENCODINGS.items():
        net = (
            NVPrecond(resolution, model_channels=channels, extra_attn=1, **options)
            .eval()
            .requires_grad_(False)
            .to(where)
        )
        src = torch.rand(batch, net.source_channels, resolution, resolution, device=where) + 0.5
        prepared = net.prepare(src, geometry)
        jobs[name, "evaluation"] = partial(net, prepared, dst, sigma)
        jobs[name, "once"] = partial(net.prepare, src, geometry)
        if net.arguments.epipolar_attention_bias:
            jobs[name, "blocks"] = partial(distances_for_every_block, net, geometry)

    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeat + 1):  # the first warms up, and is never the best
        for job, function in jobs.items():
            best[job] = min(best[job], seconds(function, where))

    plain = best["pose vector", "evaluation"]
    print(
        f"batch {batch} of {resolution}x{resolution}, {channels} channels, {where}, {torch.get_num_threads()} threads"
    )
    print(f"{'encoding':20} {'ms evaluation':>14} {'relative':>9} {'ms once':>8} {'each time':>16} {'each block':>11}")
    for name in ENCODINGS:
        evaluation, once = best[name, "evaluation"], best[name, "once"]
        blocks = best.get((name, "blocks"))
        row = (
            f"{name:20} {1e3 * evaluation:14.1f} {evaluation / plain:9.3f} {1e3 * once:8.2f} {once / evaluation:+16.1%}"
        )
        print(row + (f" {blocks / evaluation:+11.1%}" if blocks else ""))


if __name__ == "__main__":
    main()
