"""Train base, unconditional and super-resolution networks for novel view synthesis."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, Count, IntList, RangeSelection, option, preset_option
from presets import TRAINING

if TYPE_CHECKING:
    import torch

    from torch_utils.distributed import Processes
    from training.config import TrainingConfig
    from training.loss import Distance

STOPPED = 75  # exit code of a run that a signal ended before its end: EX_TEMPFAIL of sysexits.h, "try again"
RUN, DATA, NETWORK, LEARNING, SPEED, REPORTS = "Run", "Data", "Network", "Learning", "Speed", "Reports"


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
@option("--duration", section=RUN, type=Count(), default="1Gi", help="Images to see.")
@option("--seed", section=RUN, type=int, default=0, help="Names initial weights, pairs and noise.")
@option("--device", section=RUN, help="cpu, cuda or mps.  [default: the best present]", show_default=False)
@option("-n", "--dry-run", section=RUN, is_flag=True, help="Print the configuration and what it will take; no data.")
@option("--data", section=DATA, metavar="DIR", default="data", help="RealEstate10K folder, or pixelSplat chunks.")
@option("--range-selection", section=DATA, type=RangeSelection(), help="Frame gap: mid, long or A-B (A <= gap < B).")
@option("--depth-model", section=DATA, metavar="NAME|DIR", help="Depth of views: small, base, large, DIR, or file.")
@option("--single-image-mix", section=DATA, type=float, default=0.0, help="Share of pairs from photographs, [0, 1).")
@option("--single-image-data", section=DATA, metavar="DIR", help="Their folder.  [default: SingleImages in --data]")
@option("--synthetic-mix", section=DATA, type=float, default=0.0, help="Share from rooms papered with them, [0, 1).")
@option("--resolution", "img_resolution", section=NETWORK, type=int, default=64, help="Side of the images.")
@option("--channels", "model_channels", section=NETWORK, type=int, default=128, help="Channels of the first level.")
@option("--channel-mult", section=NETWORK, type=IntList(), default="1,2,3,4", help="Channels of the levels, relative.")
@option("--blocks", "num_blocks", section=NETWORK, type=int, default=3, help="Residual blocks per level.")
@option("--attn-resolutions", section=NETWORK, type=IntList(), default="16,8", help="Levels with attention.")
@option("--extra-attn", section=NETWORK, type=int, help="Number of one more block with attention per level.")
@option("--channels-per-head", section=NETWORK, type=int, help="Width of attention heads.  [default: the published]")
@option("--dropout", section=NETWORK, type=float, default=0.0, help="Dropout probability.")
@option("--uncond/--cond", section=NETWORK, default=False, help="Unconditional network, for guidance.")
@option("--sr-training/--base-training", "super_res", section=NETWORK, default=False, help="Super-resolution network.")
@option("--noisy-sr", section=NETWORK, type=float, default=0.25, help="Noise on the low-resolution image.")
@option("--no-time-enc/--time-enc", section=NETWORK, default=False, help="Source features that serve a whole sample.")
@option(
    "--epipolar-attn-bias/--no-epipolar-attn-bias",
    "epipolar_attention_bias",
    section=NETWORK,
    default=False,
    help="Bias by epipolar lines.",
)
@option("--depth-input/--no-depth-input", section=NETWORK, default=False, help="Depth of the source view as input.")
@option("--warp-depth-coor/--no-warp-depth-coor", section=NETWORK, default=False, help="Coordinates moved by depth.")
@option(
    "--plane-sweep", section=NETWORK, type=click.IntRange(min=0), default=0, help="Planes the source moves on; 0: off."
)
@option(
    "--plane-nearest",
    section=NETWORK,
    type=float,
    default=0.5,
    help="Inverse depth of the nearest, in 1/unit.",
)
@option("--plane-spacing", section=NETWORK, type=float, default=2.0, help="Above 1: planes lie denser farther away.")
@option(
    "--plane-matching/--no-plane-matching", section=NETWORK, default=False, help="Compare planes with the small image."
)
@option("--sigma-data", section=NETWORK, type=float, default=0.5, help="Spread of the views, or of what planes miss.")
@option("--batch", section=LEARNING, type=Count(), default="1024", help="Images per step, over all processes.")
@option("--lr", section=LEARNING, type=float, default=0.012, help="Reference learning rate.")
@option("--decay", section=LEARNING, type=float, default=35000, help="Batches before it decays; 0 is never.")
@option("--ramp-up", section=LEARNING, type=Count(), default="10000000", help="Images of its linear ramp.")
@option("--P_mean", "P_mean", section=LEARNING, type=float, default=-0.8, help="Mean of ln sigma.")
@option("--P_std", "P_std", section=LEARNING, type=float, default=1.6, help="Standard deviation of ln sigma.")
@option("--perceptual", section=LEARNING, type=float, default=0.0, help="Weight of LPIPS at low noise; 0 is none.")
@option("--perceptual-sigma", section=LEARNING, type=float, default=0.5, help="Highest noise level that has it.")
@option("--init", section=LEARNING, metavar="NET", help="Start from the weights of a network, not from random ones.")
@option("--batch-gpu", section=SPEED, type=Count(), help="Most images of a process at once.  [default: all]")
@option("--fp16/--no-fp16", section=SPEED, default=True, help="Compute in float16 on CUDA.")
@option("--bf16/--no-bf16", section=SPEED, default=None, help="Compute in bfloat16.  [default: on CPUs made for it]")
@option("--ls", "loss_scaling", section=SPEED, type=float, default=1.0, help="Loss scaling, for float16.")
@option("--bench/--no-bench", section=SPEED, default=True, help="Let cuDNN measure its convolutions.")
@option("--compile/--no-compile", section=SPEED, default=False, help="Fuse element-wise work; takes minutes, once.")
@option("--workers", section=SPEED, type=click.IntRange(min=0), default=2, help="Data loading processes.")
@option("--status", section=REPORTS, type=Count(), default="128Ki", help="Images between status lines.")
@option("--snapshot", section=REPORTS, type=Count(), default="8Mi", help="Images between network snapshots.")
@option("--checkpoint", section=REPORTS, type=Count(), default="8Mi", help="Images between training states.")
@option("--samples", section=REPORTS, type=Count(), help="Images between sample sheets.  [default: never]")
@option("--metrics", section=REPORTS, type=Count(), help="Images between metrics.  [default: never]")
@option("--metrics-num", section=REPORTS, type=Count(), default="256", help="Test pairs that metrics are made of.")
@option("--sr-model", section=REPORTS, metavar="NET", help="Super-resolution network for sample sheets and metrics.")
def main(**options: Any) -> None:
    """Train a network.

    \b
    python train_nvs.py --preset=vivid-tiny-base --data=DIR --outdir=runs/tiny
    torchrun --nproc_per_node=8 train_nvs.py --preset=vivid-base --data=DIR --outdir=runs/base
    """
    from torch_utils.distributed import start_processes

    outdir, preset, sr_model = (options.pop(name) for name in ("outdir", "preset", "sr_model"))
    dry_run, metrics_num = options.pop("dry_run"), options.pop("metrics_num")
    if outdir is None and not dry_run:
        if preset is None:
            raise click.UsageError("--outdir is missing: give the run a folder, or a --preset, or --dry-run")
        outdir = Path("runs", preset)
    processes = start_processes(options.pop("device"))
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
        evaluate = make_evaluate(config, enlarge, metrics_num, processes) if config.metrics else None
        distance = perceptual_distance(config, processes.device)
        finished = train(config, outdir, processes, evaluate=evaluate, sr_model=enlarge, distance=distance)
    processes.close()
    if not finished:
        sys.exit(STOPPED)


def perceptual_distance(config: TrainingConfig, device: torch.device) -> Distance | None:
    """LPIPS of AlexNet, for a run with a perceptual term: judge it by `lpips_vgg`, which it does not see."""
    from metrics.lpips import load_lpips

    return load_lpips(device).distance if config.perceptual else None


def make_config(options: dict[str, Any], device_type: str, precision: str | None = None) -> TrainingConfig:
    """The run that the options describe: fields of `NetworkConfig`, the precision, and fields of `TrainingConfig`."""
    from dataclasses import fields

    from training.config import TrainingConfig
    from training.network_config import NetworkConfig

    precision = precision or choose_precision(options["fp16"], options["bf16"], device_type)
    names = {field.name for field in fields(NetworkConfig)}
    network = NetworkConfig(**{name: value for name, value in options.items() if name in names})
    others = {name: value for name, value in options.items() if name not in (*names, "fp16", "bf16")}
    return TrainingConfig(network, precision=precision, **others)


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
    """That of the run in the folder, where no option asks for one: a run goes on as it began, on whatever machine."""
    import json

    if options["bf16"] is not None or not options["fp16"] or outdir is None:
        return None
    try:
        return json.loads((outdir / "training_options.json").read_text()).get("precision")
    except (OSError, json.JSONDecodeError, AttributeError):
        return None  # a new run, or a damaged one, of which the loop will speak


if __name__ == "__main__":
    main()
