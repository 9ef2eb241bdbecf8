"""Images per second of a training step, against the plain version of the same step, and with data loading.

python -m benchmarks.training --preset=vivid-tiny-base                      # the CPU figure
python -m benchmarks.training --preset=vivid-base --batch=64 --device=cuda  # the GPU figure

Plain: activations in float32 (float16 on CUDA), attention materialised, Adam tensor by tensor, contiguous layout.
Both versions take turns, and the median of each is shown; on a CPU time is that of the processor, which neighbours
disturb less. What loading costs is how long a step waits for the batch that was made ready during the one before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import click
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import train_nvs
from datasets.synthetic import SyntheticClips, write_chunks
from presets import TRAINING
from torch_utils.batches import Batch
from torch_utils.distributed import start_processes
from training.config import TrainingConfig
from training.estimate import estimate
from training.run_pairs import RunPairs, step_batches
from training.training_loop import Trainer


def preset_config(preset: str, data: str, batch: int, device_type: str) -> TrainingConfig:
    """The run that train_nvs.py makes of a preset, on other data and from its full learning rate."""
    options = train_nvs.main.make_context("train_nvs.py", ["--preset", preset, "--batch", str(batch)]).params
    return train_nvs.make_config({**options, "data": data, "ramp_up": 0, "range_selection": None}, device_type)


@contextmanager
def synthetic_run(preset: str, batch: int, precision: str, device: torch.device) -> Iterator[TrainingConfig]:
    """Such a run on rooms that are there within the block."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(preset_config(preset, folder, batch, device.type), precision=precision)
        side = 2 * config.resolution
        write_chunks(folder, "train", SyntheticClips("train", 16, frames=16, width=side, height=side))
        yield config


@click.command()
@click.option("--preset", type=click.Choice(list(TRAINING)), default="vivid-tiny-base", show_default=True)
@click.option("--batch", default=16, show_default=True, help="Images of a step.")
@click.option(
    "--precision", type=click.Choice(["float32", "float16", "bfloat16"]), help="Default: bfloat16, or float16 on CUDA."
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Steps of each version.")
@click.option("--peak", type=float, help="TFLOP/s that the device can reach, to show the share.")
def main(preset: str, batch: int, precision: str | None, device: str, rounds: int, peak: float | None) -> None:
    """Print images per second of both versions, their ratio, and what loading costs."""
    processes, cuda = start_processes(device), device.startswith("cuda")
    with synthetic_run(preset, batch, precision or ("float16" if cuda else "bfloat16"), processes.device) as config:
        plain_config = replace(config, precision="float16" if cuda else "float32")
        plain, ours = make_plain(Trainer(plain_config, processes)), Trainer(config, processes)
        batches = step_batches(ours, RunPairs(config).training())
        still = next(batches)
        clock = time.perf_counter if cuda else time.process_time
        seconds = take_turns(
            {"plain": lambda: step(plain, still, sdpa_kernel(SDPBackend.MATH)), "ours": lambda: step(ours, still)},
            rounds,
            clock,
        )
        clocked = take_turns(
            {"step": lambda: step(ours, still), "wait": lambda: next(batches)}, rounds, time.perf_counter
        )
    flop = estimate(config, processes.device, 1)["gflop_per_image"] / 1e3
    click.echo(f"{preset}, batch {batch}, {processes.device}, {torch.get_num_threads()} threads")
    for name, what in (("plain", plain_config.precision), ("ours", config.precision)):
        rate = batch / seconds[name]
        share = f"   {rate * flop / peak:.0%} of the peak" if peak else ""
        click.echo(f"{name:6} {what:9} {rate:8.2f} images/s   {rate * flop:8.3f} TFLOP/s{share}")
    click.echo(f"ratio  {seconds['plain'] / seconds['ours']:.2f}")
    click.echo(f"a step waits for its data for {clocked['wait'] / clocked['step']:.1%} of its time, by the clock")


def make_plain(trainer: Trainer) -> Trainer:
    """Weights in the usual layout, and Adam tensor by tensor."""
    for parameter in trainer.net.parameters():
        parameter.data = parameter.data.contiguous()
    trainer.optimizer = torch.optim.Adam(trainer.net.parameters(), lr=0.0, betas=(0.9, 0.99), foreach=False)
    return trainer


def step(trainer: Trainer, batch: Batch, context: AbstractContextManager | None = None) -> None:
    """One step, waiting for the device."""
    with context or nullcontext():
        trainer.step(batch)
    float(trainer.losses[-1])


def take_turns(steps: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, take in steps.items():
            start = clock()
            take()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
