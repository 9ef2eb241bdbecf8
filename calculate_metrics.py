"""Metrics of novel views, made on the spot or read from a folder; statistics; pictures of the worst and the best."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datasets.config import DATA, DataConfig, open_pairs
from dnnlib.cli import Count, Group, batch_option, option, preset_option, settings_options, yielding
from dnnlib.util import UserError, atomic_path, writable_directory
from presets import SAMPLING
from training.sampling_config import NETWORKS, NetworkFiles, SamplingConfig

if TYPE_CHECKING:
    import torch

    from metrics.saved import SavedViews
    from metrics.table import Table
    from metrics.views import Views
    from torch_utils.depth import DepthModel
    from torch_utils.distributed import Processes
    from training.generation import GeneratedBatch

IMAGES, METRICS, WORK, OUTPUT = "Images", "Metrics", "Work", "Output"
PATH = click.Path(path_type=Path)

BATCH = 64
DEFAULT_IMAGE_METRICS = ("psnr", "ssim", "lpips")
DEFAULT_GENERATIVE_METRIC = "fd_efficientnet"


class Names(click.ParamType):
    """``psnr,lpips``: a list of strings, each once."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = value.split(",") if isinstance(value, str) else value
        names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
        return names or self.fail("name one or more", param, ctx)


class Assignment(click.ParamType):
    """``inception=FILE``: a pair of strings."""

    name = "assignment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, _, path = value.partition("=")
        if not name or not path:
            self.fail(f"{value!r} is no NAME=PATH, as in inception=inception-2015-12-05.pt", param, ctx)
        return name, path


def work_options(function: Callable) -> Callable:
    """The options of every command."""
    device_help = "cpu, cuda, cuda:N or mps.  [default: the best present]"
    weights_help = "Weights of inception, dinov2, efficientnet, lpips or lpips_vgg that are elsewhere."
    for decorate in (
        option("--weights", section=METRICS, type=Assignment(), multiple=True, metavar="NAME=PATH", help=weights_help),
        option("--device", section=WORK, help=device_help, show_default=False),
        option("--workers", section=WORK, type=click.IntRange(min=0), default=2, help="Processes that help."),
    ):
        function = decorate(function)
    return function


def image_options(function: Callable) -> Callable:
    """The options of every command that reads images."""
    for decorate in (
        work_options,
        option("--batch", section=WORK, type=click.IntRange(min=1), default=BATCH, help="Images at once."),
        option("--seed", section=IMAGES, type=click.IntRange(min=0), default=0, help="Draws them."),
        option("--num", section=IMAGES, type=Count(), metavar="N", help="Only so many of them."),
        option(
            "--images", section=IMAGES, type=PATH, metavar="DIR|ZIP", required=True, help="From generate_images.py."
        ),
    ):
        function = decorate(function)
    return function


def judging_options(function: Callable) -> Callable:
    """The options of every command that prints a table."""
    names = "Such as psnr,ssim,lpips,lpips_vgg,tsed,fid,joint_fid."
    for decorate in (
        option("--json", "json_file", section=OUTPUT, type=PATH, metavar="FILE", help="The table as JSON, too."),
        option("--allow-few", section=METRICS, is_flag=True, help="Also where there are fewer images than features."),
        option(
            "--baseline",
            section=METRICS,
            type=click.Choice(["warp", "homography"]),
            help="Judge source views moved by depth, or by the rotation alone, too.",
        ),
        option("--metrics", section=METRICS, type=Names(), metavar="LIST", help=names),
    ):
        function = decorate(function)
    return function


@click.group(cls=Group)
def main() -> None:
    """Judge novel views.

    \b
    python calculate_metrics.py gen --preset=vivid-tiny --num=100
    torchrun --nproc_per_node=8 -- calculate_metrics.py gen --preset=vivid --data=DIR --range-selection=mid
    python calculate_metrics.py calc --images=out
    python calculate_metrics.py calc --images=out --metrics=fid,joint_fid,tsed --json=metrics.json
    python calculate_metrics.py show --images=out
    """


@main.command()
@preset_option(SAMPLING, section=NETWORKS)
@settings_options(NetworkFiles)
@settings_options(SamplingConfig)
@settings_options(DataConfig, only=("data", "split", "range_selection", "pairs"))
@option("--num", section=DATA, type=Count(), default="10000", metavar="N", help="How many pairs.")
@option("--seed", section=DATA, type=click.IntRange(min=0), default=0, help="The first of them; seed s names pair s.")
@judging_options
@work_options
@batch_option(WORK, default=BATCH)
@option("--outdir", section=OUTPUT, type=PATH, metavar="DIR", help="Keep the pictures, as generate_images.py does.")
def gen(
    metrics: list[str] | None, allow_few: bool, baseline: str | None, json_file: Path | None, **options: Any
) -> None:
    """Metrics of novel views made on the spot, for pairs of a data set."""
    from tqdm import tqdm

    from metrics.runner import Evaluation
    from torch_utils.depth import choose_depth_model
    from torch_utils.distributed import start_processes
    from training.batching import choose_batch
    from training.failures import Failures
    from training.generation import GeneratedBatches, open_sampler
    from training.results import RunFolder, generate_into, run_identity

    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    options = yielding(options, "range_selection", to="pairs")
    networks, data = NetworkFiles.of(options), DataConfig.of(options, seed=0)
    dataset = open_pairs(data)
    logging.info("%s: %s", data.data, dataset.summary())
    count = options["num"] if data.pairs is None else min(options["num"], len(dataset))
    sampler, files = open_sampler(networks, SamplingConfig.of(options), processes.device)

    weights, notes = dict(options["weights"]), []
    if metrics is None:
        metrics, notes = default_metrics(True, count, allow_few, weights)
    judge = {"device": processes.device, "weights": weights, "allow_few": allow_few, "workers": options["workers"]}
    evaluation = Evaluation(metrics, **judge)
    evaluation.check_count(count)
    warp = baseline == "warp" or evaluation.needs("visible")
    depth_model = choose_depth_model(options["depth_model"], warp, processes.device)
    seeds, folder, failures = range(options["seed"], options["seed"] + count), None, Failures()
    missing = list(seeds)
    if options["outdir"] is not None:
        identity = run_identity(files, networks, sampler, data)
        folder = RunFolder(options["outdir"], identity, {"networks": networks.by_role, "device": str(processes.device)})
        missing = folder.missing(seeds, dataset)
    mine = processes.share(missing)
    most = min(len(mine), BATCH)  # metrics take memory, which no probe sees
    batch_size = choose_batch(options["batch"], sampler, most)
    batches = made = GeneratedBatches(sampler, dataset, mine, batch_size, failures.add)
    if folder is not None:
        there = processes.share(sorted({*seeds} - {*missing}))
        made = chain(
            generate_into(folder, batches, seeds, processes, failures),
            folder.load(there, batch_size, dataset, sampler.resolution),
        )
    for batch in tqdm(made, total=len(batches), unit="batch", disable=not processes.is_main):
        views = views_of(batch)
        if warp:
            views = views.with_depth(depth_of(batch, depth_model, processes.device))
        evaluation.update(views.with_homography() if baseline == "homography" else views)
    evaluation.gather(processes)
    failures.gather(processes)
    if processes.is_main and len(failures.reasons) < count:
        tell(evaluation.compute(options["range_selection"] or "", notes), json_file)
    processes.close()
    if processes.is_main:
        failures.check(count)


def views_of(batch: GeneratedBatch) -> Views:
    """Generated images, beside the truth, as the metrics take them."""
    import torch

    from metrics.views import Views

    source, target = (torch.stack([getattr(pair, role).image for pair in batch.pairs]) for role in ("source", "target"))
    cameras = [(pair.source.camera, pair.target.camera) for pair in batch.pairs]
    return Views(batch.seeds, batch.images, target, source, cameras)


def depth_of(batch: GeneratedBatch, model: DepthModel | None, device: torch.device) -> torch.Tensor:
    """z-depth of a batch's source views, [N, 1, R, R]: the model's, or what they carry."""
    import torch

    if model is None:
        return torch.stack([pair.source.depth for pair in batch.pairs])[:, None]
    return model(torch.stack([pair.source.image for pair in batch.pairs]).to(device)).cpu()


@main.command()
@image_options
@judging_options
@option("--ref", section=METRICS, type=PATH, metavar="FILE", help="Compare with these statistics; see ref.")
@option("--depth-model", section=METRICS, metavar="NAME|DIR", help="Depth of views: small, base, large, DIR, or file.")
def calc(
    metrics: list[str] | None,
    ref: Path | None,
    allow_few: bool,
    baseline: str | None,
    depth_model: str | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Metrics of images that generate_images.py wrote."""
    from metrics.reference import load_reference
    from metrics.runner import Evaluation

    processes, saved = start(options)
    weights, notes = dict(options["weights"]), []
    if metrics is None:
        metrics, notes = default_metrics(saved.has_cameras, len(saved), allow_few, weights)
    evaluation = Evaluation(
        metrics,
        device=processes.device,
        weights=weights,
        reference=None if ref is None else load_reference(ref),
        allow_few=allow_few,
        workers=options["workers"],
    )
    evaluation.check_count(len(saved))
    with_depth = depth_adder(depth_model, baseline == "warp" or evaluation.needs("visible"), saved, processes.device)
    mine = saved.only(processes.share(list(saved.files)))
    for views in batches(mine, options, processes.is_main):
        views = with_depth(views)
        evaluation.update(views.with_homography() if baseline == "homography" else views)
    evaluation.gather(processes)
    if processes.is_main:
        tell(evaluation.compute(saved.range_selection, notes), json_file)
    processes.close()


def tell(table: Table, json_file: Path | None) -> None:
    """Print the table; write it as JSON where asked to."""
    click.echo(table.to_text())
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps(table.to_dict(), indent=1, allow_nan=False) + "\n")


@main.command()
@image_options
@option(
    "--metrics",
    section=METRICS,
    type=Names(),
    metavar="LIST",
    default=DEFAULT_GENERATIVE_METRIC,
    help="What it is for.",
)
@option("--dest", section=OUTPUT, type=PATH, metavar="FILE", required=True, help="Where the statistics go, as npz.")
def ref(metrics: list[str], dest: Path, **options: Any) -> None:
    """Statistics of the true targets, to compare other images with."""
    from metrics.definitions import FEATURE_METRICS
    from metrics.detectors import load_detectors
    from metrics.reference import build_reference

    processes, saved = start(options)
    wrong = [name for name in metrics if name not in FEATURE_METRICS or FEATURE_METRICS[name].keeps_features]
    if wrong:
        known = [name for name, metric in FEATURE_METRICS.items() if not metric.keeps_features]
        raise UserError(f"there are no statistics for {', '.join(wrong)}; known are {', '.join(known)}")
    wanted = {FEATURE_METRICS[name].reference_name: FEATURE_METRICS[name].detector for name in metrics}
    networks = load_detectors(wanted.values(), processes.device, dict(options["weights"]))
    reference = build_reference(
        ((views.target, views.source) for views in batches(saved, options)),
        {name: networks[detector] for name, detector in wanted.items()},
    )
    reference.save(dest)
    click.echo(f"{dest}: statistics of {len(saved)} images, {', '.join(wanted)}")
    processes.close()


@main.command()
@image_options
@option("--metrics", section=METRICS, type=Names(), metavar="LIST", help="Of single images: psnr,ssim,lpips,tsed.")
@option("--count", section=OUTPUT, type=click.IntRange(min=1), default=1, help="So many worst, median and best each.")
@option("--outdir", section=OUTPUT, type=PATH, metavar="DIR", default="show", help="Where the pictures go.")
def show(metrics: list[str] | None, count: int, outdir: Path, **options: Any) -> None:
    """Pictures: worst, median and best samples of each metric, and each metric against the frame gap."""
    from dnnlib.imaging import save_png
    from metrics.definitions import IMAGE_METRICS
    from metrics.gallery import samples_sheet, save_gap_plot
    from metrics.runner import Evaluation

    processes, saved = start(options)
    if metrics is None:
        metrics = [*DEFAULT_IMAGE_METRICS, *(["tsed"] if saved.has_cameras else [])]
    unknown = [name for name in metrics if name not in IMAGE_METRICS]
    if unknown:
        raise UserError(f"{', '.join(unknown)} has no number for a single image; known are {', '.join(IMAGE_METRICS)}")
    evaluation = Evaluation(metrics, device=processes.device, workers=options["workers"])
    for views in batches(saved, options):
        evaluation.update(views)
    measured = evaluation.compute().scores
    folder = writable_directory(outdir)
    save_png(folder / "samples.png", samples_sheet(saved, measured, count))
    click.echo(folder / "samples.png")
    if saved.has_cameras:
        save_gap_plot(folder / "gaps.png", measured, {seed: saved.records[seed].gap for seed in saved.files})
        click.echo(folder / "gaps.png")
    else:
        click.echo("no plot against the frame gap: there is no run.json that tells the gaps", err=True)
    processes.close()


def start(options: dict[str, Any]) -> tuple[Processes, SavedViews]:
    """This process, and the images that the options choose."""
    from metrics.saved import open_results
    from torch_utils.distributed import start_processes

    processes = start_processes(options["device"])
    return processes, open_results(options["images"]).choose(options["num"], options["seed"])


def depth_adder(name: str | None, needed: bool, saved: SavedViews, device: torch.device) -> Callable[[Views], Views]:
    """What adds the warp by depth, and which pixels it shows, to a batch; nothing where nobody needs it."""
    from torch_utils.depth import choose_depth_model

    model = choose_depth_model(name, needed, device)
    if not needed:
        return lambda views: views
    if model is None:
        return lambda views: views.with_depth(saved.stored_depth(views))
    return lambda views: views.with_depth(model(views.source.to(device)).cpu())


def default_metrics(
    has_cameras: bool, count: int, allow_few: bool, weights: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """What is computed unless told otherwise, none of which needs a download, and what is left out and why."""
    from metrics.runner import Evaluation

    names, left_out = list(DEFAULT_IMAGE_METRICS), []
    if has_cameras:
        names.append("tsed")
    else:
        left_out.append("left out: tsed needs run.json of generate_images, which tells the cameras")
    try:
        Evaluation([DEFAULT_GENERATIVE_METRIC], weights=weights, allow_few=allow_few).check_count(count)
        names.append(DEFAULT_GENERATIVE_METRIC)
    except UserError as error:
        left_out.append(f"left out: {error}")
    return names, left_out


def batches(saved: SavedViews, options: dict[str, Any], visible: bool = True) -> Iterable[Views]:
    """The images in batches, under a progress bar."""
    from tqdm import tqdm

    size = options["batch"]
    total = -(-len(saved) // size)
    return tqdm(saved.batches(size, options["workers"]), total=total, unit="batch", disable=None if visible else True)


if __name__ == "__main__":
    main()
