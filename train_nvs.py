"""Train base, unconditional and super-resolution networks for novel view synthesis."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, Count, option, preset_option, settings_options
from presets import TRAINING
from training.config import REPORTS, RUN, SPEED, TrainingConfig
from training.network_config import NETWORK, NetworkConfig

if TYPE_CHECKING:
    import torch

    from torch_utils.distributed import Processes
    from training.loss import Distance

STOPPED = 75  # exit code of a run that a signal ended before its end: EX_TEMPFAIL of sysexits.h, "try again"


@click.command(cls=Command)
@preset_option(TRAINING, section=RUN)
@option(
    "--outdir",
    section=RUN,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Run folder; goes on if it can.  [default: runs/PRESET]",
    show_default=False,
)
@option("--device", section=RUN, help="cpu, cuda or mps.  [default: the best present]", show_default=False)
@option("-n", "--dry-run", section=RUN, is_flag=True, help="Print the configuration and what it will take; no data.")
@option("--resolution", "img_resolution", section=NETWORK, type=int, default=64, help="Side of the images.")
@settings_options(NetworkConfig)
@settings_options(TrainingConfig)
@option("--fp16/--no-fp16", section=SPEED, default=True, help="Compute in float16 on CUDA.")
@option("--bf16/--no-bf16", section=SPEED, default=None, help="Compute in bfloat16.  [default: on CPUs made for it]")
@option("--metrics-num", section=REPORTS, type=Count(), default="256", help="Test pairs that metrics are made of.")
@option("--sr-model", section=REPORTS, metavar="NET", help="Super-resolution network for sample sheets and metrics.")
def main(**options: Any) -> None:
    """Train a network.

    \b
    python train_nvs.py --preset=vivid-tiny-base --data=DIR --outdir=runs/tiny
    torchrun --nproc_per_node=8 train_nvs.py --preset=vivid-base --data=DIR --outdir=runs/base
    """
    from torch_utils.distributed import start_processes

    outdir, preset, sr_model, dry_run = (options[name] for name in ("outdir", "preset", "sr_model", "dry_run"))
    if outdir is None and not dry_run:
        if preset is None:
            raise click.UsageError("--outdir is missing: give the run a folder, or a --preset, or --dry-run")
        outdir = Path("runs", preset)
    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    config = make_config(options, processes.device.type, earlier_precision(options, outdir))
    finished = True
    if dry_run:
        describe(config, preset, processes)
    else:
        from metrics.generated import make_evaluate
        from training.model_io import load_network
        from training.training_loop import train

        enlarge = load_network(sr_model, processes.device) if sr_model else None
        evaluate = make_evaluate(config, enlarge, options["metrics_num"], processes) if config.metrics else None
        loss = config.build_loss(perceptual_distance(config, processes.device), config.load_base(processes.device))
        finished = train(config, outdir, processes, loss=loss, evaluate=evaluate, sr_model=enlarge)
    processes.close()
    if not finished:
        sys.exit(STOPPED)


def perceptual_distance(config: TrainingConfig, device: torch.device) -> Distance | None:
    """LPIPS of AlexNet, for a run with a perceptual term: judge it by `lpips_vgg`, which it does not see."""
    from metrics.lpips import load_lpips

    return load_lpips(device).distance if config.perceptual else None


def make_config(options: Mapping[str, Any], device_type: str, precision: str | None = None) -> TrainingConfig:
    """The run that the options describe; they may be more than it has settings."""
    precision = precision or choose_precision(options["fp16"], options["bf16"], device_type)
    network = NetworkConfig(
        **{field.name: options[field.name] for field in fields(NetworkConfig) if field.name in options}
    )
    return TrainingConfig.of(options, network=network, precision=precision)


def describe(config: TrainingConfig, preset: str | None, processes: Processes) -> None:
    """Print, as JSON, what would be done and what it will take."""
    import json

    from training.estimate import estimate

    plan = {"preset": preset, "config": config.to_dict()}
    plan["estimate"] = estimate(config, processes.device, processes.world_size)
    if processes.is_main:
        click.echo(json.dumps(plan, indent=2))


def choose_precision(fp16: bool, bf16: bool | None, device_type: str) -> str:
    """The dtype of activations. float16 is for CUDA alone: elsewhere it is slower than float32."""
    import torch

    from torch_utils.distributed import fast_dtype

    if bf16 or (bf16 is None and fast_dtype(device_type) == torch.bfloat16):
        return "bfloat16"
    return "float16" if fp16 and device_type == "cuda" else "float32"


def earlier_precision(options: dict[str, Any], outdir: Path | None) -> str | None:
    """Return that of the run in the folder where no option asks for one: a run goes on as it began, anywhere."""
    import json

    if options["bf16"] is not None or not options["fp16"] or outdir is None:
        return None
    try:
        return json.loads((outdir / "training_options.json").read_text()).get("precision")
    except (OSError, json.JSONDecodeError, AttributeError):
        return None  # a new run, or a damaged one, of which the loop will speak


if __name__ == "__main__":
    main()
