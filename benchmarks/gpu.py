"""All figures that a GPU is asked for, by one command, in less than eight minutes.

    python -m benchmarks.gpu --out=runs/gpu                                           # results.md and results.json
    python -m benchmarks.gpu --device=cpu --preset=vivid-tiny --seconds=1 --out=runs/gpu    # the same, small, anywhere

Every row is a process of its own, so that memory is its own, too, and none can take the others' time or bring them
down: what a row has measured by the end of its time counts, the rest is said to be missing. Networks have random
weights. Plain is a network as it was trained, in float16 (float32 on a CPU), whose weights are normalised at every use,
and whose steps of training materialise attention; fast is what the command lines do, compiled what they do with
--compile. Rates are of calls one after the other, without waiting for each; shares are of the rate of a large square
matrix product in the same dtype; memory is the most that the row's process had on the device at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import click
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.data import published_and_packed, rooms
from benchmarks.sampling import build, build_plain, draw, evaluation, sample
from benchmarks.training import make_plain, step, synthetic_run
from datasets.config import DataConfig, open_pairs
from dnnlib.util import one_line, writable_directory
from torch_utils.batches import collate
from torch_utils.distributed import best_device, fast_dtype, start_processes
from torch_utils.memory import peak_memory
from training.estimate import estimate, flop_of
from training.precond import NVPrecond
from training.run_pairs import RunPairs, step_batches
from training.training_loop import Trainer

_WARM = 3  # calls before those that count, at most
_AT_ONCE = 4  # calls between looks at the clock
_ROOT = Path(__file__).resolve().parent.parent
_MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True)
class Scale:
    """What is measured, and for how long.

    Attributes:
        preset: of generate_images.py; its networks are presets of train_nvs.py, PRESET-base and PRESET-sr.
        device, seconds: where, and how long each figure is measured.
    """

    preset: str
    device: str
    seconds: float

    @property
    def is_full(self) -> bool:
        """Whether this is for a GPU."""
        return not self.device.startswith("cpu")

    def size(self, full: int, small: int) -> int:
        return full if self.is_full else small

    @property
    def dtypes(self) -> tuple[torch.dtype, torch.dtype]:
        """Of the plain and of the fast path."""
        plain = torch.float16 if self.is_full else torch.float32
        return plain, fast_dtype(self.device) or plain


@dataclass(frozen=True)
class Figure:
    """One thing measured: `rate` of `unit` a second, at `tflops`; memory in bytes. What does not apply is None."""

    row: str
    path: str
    dtype: str
    rate: float
    unit: str
    tflops: float | None = None
    memory: int | None = None


def measure_rate(call: Callable[[], torch.Tensor], seconds: float) -> float:
    """Calls a second, once it is warm: compilation takes the first call, and CUDA graphs are recorded in the next."""
    for warm in range(_WARM):
        start = time.perf_counter()
        float(call().flatten()[0])  # reading a number waits for the device
        took = time.perf_counter() - start
        if warm and took > seconds:
            break
    at_once = _AT_ONCE if took < seconds / _AT_ONCE else 1
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        for _ in range(at_once):
            result = call()
        float(result.flatten()[0])
        count += at_once
    return count / (time.perf_counter() - start)


def _paths(scale: Scale) -> Iterator[tuple[str, str, Callable[[str], NVPrecond]]]:
    """Name, dtype, and how a network is made for each path of sampling."""
    plain, fast = scale.dtypes

    def make_plain_network(name: str) -> NVPrecond:
        return build_plain(name, scale.device, plain)

    def make_fast(name: str) -> NVPrecond:
        return build(name, scale.device).freeze(fast)

    def make_compiled(name: str) -> NVPrecond:
        return make_fast(name).compile_parts()

    yield "plain", str(plain), make_plain_network
    yield "fast", str(fast), make_fast
    if scale.is_full:
        yield "compiled", str(fast), make_compiled


def measure_peak(scale: Scale) -> Iterator[Figure]:
    side = _MATMUL_SIDE["cuda" if scale.is_full else "cpu"]
    for dtype in dict.fromkeys((*scale.dtypes, torch.bfloat16)):
        a = torch.randn(side, side, device=scale.device).to(dtype)
        rate = measure_rate(partial(torch.matmul, a, a), scale.seconds)
        yield Figure("matrix product", f"{side} x {side}", str(dtype), rate, "products", rate * 2 * side**3 / 1e12)


def measure_evaluations(scale: Scale, part: str, batch: int) -> Iterator[Figure]:
    name, flop = f"{scale.preset}-{part}", 0
    for path, dtype, make in _paths(scale):
        call = evaluation(name, batch, scale.device, make)
        flop = flop or flop_of(call)
        yield _figure(scale, f"{name}, batch {batch}", path, dtype, call, 1, "evaluations", flop)


def measure_views(scale: Scale, batch: int) -> Iterator[Figure]:
    """Whole samples: base, guidance, super-resolution."""
    flop = 0
    for path, dtype, make in _paths(scale):
        sampler, call = sample(scale.preset, None, batch, make)
        flop = flop or batch * flop_of(partial(draw, sampler, 1))
        evaluations = sum(sampler.evaluations.values())
        row = f"{scale.preset}, {evaluations} evaluations a view of {sampler.resolution} pixels, batch {batch}"
        yield _figure(scale, row, path, dtype, call, batch, "views", flop)


def _figure(
    scale: Scale, row: str, path: str, dtype: str, call: Callable[[], torch.Tensor], items: int, unit: str, flop: int
) -> Figure:
    memory = peak_memory(lambda: float(call().flatten()[0]), torch.device(scale.device))
    rate = measure_rate(call, scale.seconds)
    return Figure(row, path, dtype, rate * items, unit, rate * flop / 1e12, memory)


def measure_training(scale: Scale, batch: int) -> Iterator[Figure]:
    processes, preset = start_processes(scale.device), f"{scale.preset}-base"
    plain, fast = (str(dtype).removeprefix("torch.") for dtype in scale.dtypes)
    with synthetic_run(preset, batch, fast, processes.device) as config:
        flop = estimate(config, processes.device, 1)["gflop_per_image"] * 1e9
        still = next(step_batches(Trainer(replace(config, workers=0), processes), RunPairs(config).training()))
        runs = {"plain": replace(config, precision=plain), "fast": config}
        if scale.is_full:
            runs["compiled"] = replace(config, compile=True)
        for path, run in runs.items():
            trainer = Trainer(run, processes)
            trainer = make_plain(trainer) if path == "plain" else trainer

            def call(trainer: Trainer = trainer, path: str = path) -> torch.Tensor:
                step(trainer, still, sdpa_kernel(SDPBackend.MATH) if path == "plain" else None)
                return trainer.losses[-1]

            row = f"{preset}, training, batch {batch}"
            yield _figure(scale, row, path, f"torch.{run.precision}", call, batch, "images", round(flop * batch))


def measure_pairs(scale: Scale, workers: int) -> Iterator[Figure]:
    """What data loading gives, with nothing beside it."""
    with published_and_packed(rooms(clips=scale.size(16, 2), frames=scale.size(32, 4))) as roots:
        for name, root in roots.items():
            for resolution in (256, 64) if scale.is_full else (64,):
                pairs = open_pairs(DataConfig(str(root), "train"), resolution)
                loader = torch.utils.data.DataLoader(
                    pairs, 16, sampler=range(1 << 30), num_workers=workers, collate_fn=collate
                )
                rate = _loading_rate(iter(loader), scale.seconds)
                yield Figure(f"pairs of {resolution} pixels, {workers} workers", name, "uint8", rate, "pairs")


def _loading_rate(batches: Iterator, seconds: float) -> float:
    for _ in range(_WARM):
        next(batches)
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        count += len(next(batches))
    return count / (time.perf_counter() - start)


# In order of importance: seconds that a row may take on a GPU, all of them within eight minutes, and what it measures.
ROWS: dict[str, tuple[float, Callable[[Scale], Iterator[Figure]]]] = {
    "peak": (15, measure_peak),
    "photograph": (90, lambda scale: measure_views(scale, 1)),
    "cascade": (120, lambda scale: measure_views(scale, scale.size(32, 2))),
    "training": (70, lambda scale: measure_training(scale, scale.size(64, 2))),
    "base-64": (35, lambda scale: measure_evaluations(scale, "base", scale.size(64, 2))),
    "sr-64": (40, lambda scale: measure_evaluations(scale, "sr", scale.size(64, 2))),
    "base-1": (30, lambda scale: measure_evaluations(scale, "base", 1)),
    "sr-1": (30, lambda scale: measure_evaluations(scale, "sr", 1)),
    "pairs": (30, lambda scale: measure_pairs(scale, scale.size(16, 1))),
}


@torch.no_grad()
def _without_gradient(figures: Iterator[Figure]) -> Iterator[Figure]:
    yield from figures


def run_row(name: str, scale: Scale) -> Iterator[Figure]:
    """The figures of a row, each as soon as it is measured."""
    figures = ROWS[name][1](scale)
    return figures if name == "training" else _without_gradient(figures)


def run_apart(name: str, scale: Scale) -> tuple[list[Figure], str]:
    """The same in a process of its own; and why figures are missing, if they are."""
    arguments = [f"--row={name}", f"--preset={scale.preset}", f"--device={scale.device}", f"--seconds={scale.seconds}"]
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    pipe, limit = subprocess.PIPE, ROWS[name][0] * scale.size(1, 10)
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=_ROOT, start_new_session=True)
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _end(process)
        output, errors = process.communicate()
    except BaseException:
        _end(process)
        raise
    figures = [Figure(**json.loads(line)) for line in output.splitlines() if line.startswith("{")]
    reason = one_line(([line for line in errors.splitlines() if line.strip()] or [""])[-1], 200)
    if process.returncode == 0:
        return figures, ""
    return figures, f"not done within {limit:g} s" if process.returncode < 0 else reason


def _end(process: subprocess.Popen) -> None:
    """With the processes that it has started: those that compile and those that load data."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def to_markdown(figures: Sequence[Figure], missing: dict[str, str], machine: str, seconds: float) -> str:
    """The table for people."""
    peaks = {figure.dtype: figure.tflops for figure in figures if figure.unit == "products"}
    plain = {figure.row: figure.rate for figure in figures if figure.path == "plain"}
    lines = ["| what | path | dtype | a second | speed | TFLOP/s | of the matmul peak | peak memory |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for figure in figures:
        peak, first = peaks.get(figure.dtype), plain.get(figure.row)
        cells = [
            figure.row,
            figure.path,
            figure.dtype.removeprefix("torch."),
            f"{figure.rate:.4g} {figure.unit}",
            "" if first is None else f"{figure.rate / first:.2f}x",
            "" if figure.tflops is None else f"{figure.tflops:.3g}",
            "" if figure.tflops is None or peak is None else f"{figure.tflops / peak:.0%}",
            "" if figure.memory is None else f"{figure.memory / 2**30:.2f} GiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    said = [f"Missing: {name}, {reason}." for name, reason in missing.items()]
    return "\n".join([*lines, "", f"{machine}; {seconds:.0f} s in all.", *said, ""])


def machine_of(device: str) -> str:
    """For a caption."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{device}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


@click.command()
@click.option("--device", default=None, help="Default: the best present.")
@click.option("--preset", type=click.Choice(["vivid", "vivid-tiny"]), default="vivid", show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="To measure each figure.")
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Which, in their order.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/gpu"), show_default=True)
@click.option("--row", type=click.Choice(list(ROWS)), hidden=True)
def main(device: str | None, preset: str, seconds: float, rows: str, out: Path, row: str | None) -> None:
    """Measure sampling, training and data loading, and write the table as Markdown and JSON."""
    scale = Scale(preset, device or best_device(), seconds)
    if row is not None:
        for figure in run_row(row, scale):
            click.echo(json.dumps(asdict(figure)))
            sys.stdout.flush()
        return
    unknown = [name for name in rows.split(",") if name not in ROWS]
    if unknown:
        raise click.BadParameter(f"there is no row {unknown[0]!r}; known are {', '.join(ROWS)}", param_hint="--rows")
    writable_directory(out)
    start = time.perf_counter()
    figures: list[Figure] = []
    missing: dict[str, str] = {}
    for name in rows.split(","):
        click.echo(f"{name} ...", err=True)
        found, reason = run_apart(name, scale)
        figures += found
        if reason:
            missing[name] = reason
        spent = time.perf_counter() - start
        table = to_markdown(figures, missing, machine_of(scale.device), spent)
        (out / "results.md").write_text(table, encoding="utf-8")
        document = {"machine": machine_of(scale.device), "seconds": spent, "missing": missing}
        document["figures"] = [asdict(figure) for figure in figures]
        (out / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(table)


if __name__ == "__main__":
    main()
