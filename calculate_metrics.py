"""Metrics of novel views, made on the spot or read from a folder; statistics; pictures of the worst and the best."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datasets.config import DATA, DataConfig, open_pairs
from dnnlib.cli import (
    Assignment,
    Count,
    Group,
    Names,
    OutputFile,
    batch_option,
    given,
    naming_options,
    option,
    preset_option,
    settings_options,
    yielding,
)
from dnnlib.util import UserError, atomic_path, file_sha256, present, writable_directory
from presets import SAMPLING
from training.sampling_config import NETWORKS, NetworkFiles, SamplingConfig

if TYPE_CHECKING:
    from metrics.saved import SavedViews
    from metrics.table import Table
    from torch_utils.distributed import Processes

IMAGES, METRICS, WORK, OUTPUT = "Images", "Metrics", "Work", "Output"
PATH = click.Path(path_type=Path)

BATCH = 64
DEFAULT_REFERENCE_METRIC = "fd_efficientnet"


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
        option("--source", section=IMAGES, type=PATH, metavar="DIR", help="... beside source views, where needed,"),
        option("--target", section=IMAGES, type=PATH, metavar="DIR", help="... beside the true images of these names,"),
        option("--generated", section=IMAGES, type=PATH, metavar="DIR", help="Other people's images, of any names,"),
        option(
            "--images", section=IMAGES, type=PATH, metavar="DIR|ZIP", help="From generate_images.py, or pred/ and gt/."
        ),
    ):
        function = decorate(function)
    return function


def judging_options(function: Callable) -> Callable:
    """The options of every command that prints a table."""
    names = "Such as psnr,ssim,lpips,lpips_vgg,tsed,fid,joint_fid."
    for decorate in (
        option(
            "--write-pairs",
            section=OUTPUT,
            type=OutputFile(),
            metavar="FILE",
            help="The list of pairs with their numbers, as JSON lines, which --pairs takes.",
        ),
        option(
            "--json", "json_file", section=OUTPUT, type=OutputFile(), metavar="FILE", help="The table as JSON, too."
        ),
        option("--allow-few", section=METRICS, is_flag=True, help="Also where there are fewer images than features."),
        option(
            "--baseline",
            section=METRICS,
            type=click.Choice(["warp", "homography"]),
            help="Judge source views moved by depth, or by the rotation alone, too.",
        ),
        option(
            "--bootstrap",
            section=METRICS,
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help="Intervals of distances between sets of images, from so many resamples.",
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
    python calculate_metrics.py gen --protocol=list
    torchrun --nproc_per_node=8 -- calculate_metrics.py gen --preset=vivid --data=DIR --range-selection=mid
    python calculate_metrics.py calc --images=out
    python calculate_metrics.py calc --images=out --metrics=fid,joint_fid,tsed --json=metrics.json
    python calculate_metrics.py calc --generated=theirs --target=truth
    python calculate_metrics.py compare out-a out-b --outdir=differences
    python calculate_metrics.py show --images=out
    """


def list_protocols(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    """``--protocol list`` prints them; any other name must be one of them."""
    if name is None or ctx.resilient_parsing:
        return name
    from metrics.protocols import PROTOCOLS, find_protocol

    if name == "list":
        text = "\n\n".join(protocol.describe() for protocol in PROTOCOLS.values())
        click.echo(naming_options(text, ctx.command))
        ctx.exit()
    return find_protocol(name).name


@main.command()
@preset_option(SAMPLING, section=NETWORKS)
@settings_options(NetworkFiles)
@settings_options(SamplingConfig)
@settings_options(DataConfig, only=("data", "split", "range_selection", "pairs"))
@option(
    "--protocol",
    section=DATA,
    metavar="NAME|list",
    is_eager=True,
    callback=list_protocols,
    help="Pairs and metrics as a paper has them.",
)
@option("--num", section=DATA, type=Count(), metavar="N", help="How many pairs.  [default: all of a list, else 10,000]")
@option("--seed", section=DATA, type=click.IntRange(min=0), default=0, help="The first of them; seed s names pair s.")
@judging_options
@work_options
@batch_option(WORK, default=BATCH)
@option("--outdir", section=OUTPUT, type=PATH, metavar="DIR", help="Keep the pictures, as generate_images.py does.")
def gen(json_file: Path | None, write_pairs: Path | None, **options: Any) -> None:
    """Metrics of novel views made on the spot, for pairs of a data set."""
    from metrics.generated import GenerationJob, judge_generated
    from torch_utils.distributed import start_processes
    from training.failures import Failures

    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    ctx = click.get_current_context()
    if options["protocol"] and given(ctx, "range_selection"):
        raise UserError("a protocol has a range of its own: leave --range-selection out")
    for name in ("pairs", "protocol"):
        options = yielding(options, "range_selection", to=name)
    parts = {"networks": NetworkFiles.of(options), "sampling": SamplingConfig.of(options)}
    job = GenerationJob.of(options, **parts, data=DataConfig.of(options, seed=0), most_at_once=BATCH)
    failures = Failures()
    table, count = judge_generated(job, processes, failures)
    if processes.is_main and table is not None:
        tell(table, json_file, write_pairs)
    processes.close()
    if processes.is_main:
        failures.check(count)


@main.command()
@image_options
@judging_options
@option("--ref", section=METRICS, type=PATH, metavar="FILE", help="Compare with these statistics; see ref.")
@option("--depth-model", section=METRICS, metavar="NAME|DIR", help="Depth of views: small, base, large, DIR, or file.")
@option("--pairs", section=IMAGES, type=PATH, metavar="FILE", help="Only the pairs of this list.")
def calc(
    metrics: list[str] | None,
    ref: Path | None,
    baseline: str | None,
    depth_model: str | None,
    json_file: Path | None,
    write_pairs: Path | None,
    pairs: Path | None,
    **options: Any,
) -> None:
    """Metrics of images that generate_images.py wrote, or that lie in other people's folders."""
    from datasets.pairs import read_pairs
    from metrics.choice import default_metrics
    from metrics.judging import judge_saved
    from metrics.reference import load_reference
    from metrics.runner import Evaluation

    processes, saved = start(options)
    weights, notes = dict(options["weights"]), list(saved.remarks)
    if pairs is not None:
        wanted = read_pairs(pairs)
        saved = saved.listed(wanted)
        notes.append(f"{len(saved)} of {len(wanted)} listed pairs are here")
    if write_pairs is not None and not saved.pairs:
        raise UserError("which pairs these images show is not known, there is no run.json: leave `write_pairs` out")
    if metrics is None:
        metrics, left_out = default_metrics(saved.has_cameras, len(saved), options["allow_few"], weights)
        notes += left_out
    evaluation = Evaluation(
        metrics,
        device=processes.device,
        weights=weights,
        reference=None if ref is None else load_reference(ref),
        allow_few=options["allow_few"],
        workers=options["workers"],
        bootstrap=options["bootstrap"],
    )
    evaluation.check_count(len(saved))
    judge_saved(saved, evaluation, processes, options["batch"], baseline, depth_model, options["workers"])
    if processes.is_main:
        table = evaluation.compute(saved.range_selection, notes)
        judging = {"bootstrap": options["bootstrap"], "baseline": baseline, "depth_model": depth_model}
        judging["reference"] = None if ref is None else file_sha256(ref)
        run = {**saved.described, "judging": judging}
        table = replace(table, pairs=saved.pairs, names=saved.names, run=run)
        tell(table, json_file, write_pairs)
    processes.close()


def tell(table: Table, json_file: Path | None, pairs_file: Path | None) -> None:
    """Print the table; write it as JSON, and the list of pairs, where asked to."""
    table = replace(table, notes=[naming_options(note, click.get_current_context().command) for note in table.notes])
    click.echo(table.to_text())
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps(table.to_dict(), indent=1, allow_nan=False) + "\n")
    if pairs_file is not None:
        table.write_pairs(pairs_file)


@main.command()
@image_options
@settings_options(DataConfig, only=("data", "split", "range_selection", "pairs"))
@option("--resolution", section=DATA, type=click.IntRange(min=1), default=256, help="Side of the views of a data set.")
@option(
    "--metrics",
    section=METRICS,
    type=Names(),
    metavar="LIST",
    default=DEFAULT_REFERENCE_METRIC,
    help="What it is for.",
)
@option("--dest", section=OUTPUT, type=OutputFile(), metavar="FILE", required=True, help="Where the statistics go.")
def ref(metrics: list[str], dest: Path, **options: Any) -> None:
    """Statistics of the true targets, of a folder or of a data set, to compare other images with."""
    from metrics.detectors import load_detectors
    from metrics.generated import true_views
    from metrics.judging import batches
    from metrics.reference import build_reference, detectors_of
    from torch_utils.distributed import start_processes

    wanted = detectors_of(metrics)
    data, resolution = DataConfig.of(options), options.pop("resolution")
    from_folder = any(options[name] is not None for name in ("images", "target"))
    if not from_folder and any(options[name] is not None for name in ("generated", "source")):
        raise UserError("statistics are of true images: give them as `target`, or `images` or `data`")
    if from_folder and given(click.get_current_context(), "data"):
        raise UserError("statistics of a data set, or of a folder? Leave out `data`, or `images` and `target`")
    if from_folder:
        options["generated"] = options["generated"] or options["target"]
        processes, saved = start(options)
        count, views = len(saved), batches(saved, options["batch"], options["workers"])
    else:
        processes = start_processes(options["device"])
        dataset = open_pairs(data, resolution)
        count = options["num"] or len(dataset)
        if data.pairs is not None:
            count = min(count, len(dataset))  # a list does not start again
        views = true_views(dataset, range(count), options["batch"])
    networks = load_detectors(wanted.values(), processes.device, dict(options["weights"]))
    reference = build_reference(
        ((present(batch.target), batch.source) for batch in views),
        {name: networks[detector] for name, detector in wanted.items()},
    )
    reference.save(dest)
    click.echo(f"{dest}: statistics of {count} images, {', '.join(wanted)}")
    processes.close()


@main.command()
@image_options
@option("--metrics", section=METRICS, type=Names(), metavar="LIST", help="Of single images: psnr,ssim,lpips,tsed.")
@option("--count", section=OUTPUT, type=click.IntRange(min=1), default=1, help="So many worst, median and best each.")
@option("--outdir", section=OUTPUT, type=PATH, metavar="DIR", default="show", help="Where the pictures go.")
def show(metrics: list[str] | None, count: int, outdir: Path, **options: Any) -> None:
    """Pictures: worst, median and best samples of each metric, and each metric against the frame gap."""
    from dnnlib.imaging import save_png
    from metrics.choice import IMAGE_DEFAULTS
    from metrics.definitions import IMAGE_METRICS
    from metrics.gallery import samples_sheet, save_gap_plot
    from metrics.judging import judge_saved
    from metrics.runner import Evaluation

    processes, saved = start(options)
    if metrics is None:
        metrics = [*IMAGE_DEFAULTS, *(["tsed"] if saved.has_cameras else [])]
    folder = writable_directory(outdir)
    unknown = [name for name in metrics if name not in IMAGE_METRICS]
    if unknown:
        raise UserError(f"{', '.join(unknown)} has no number for a single image; known are {', '.join(IMAGE_METRICS)}")
    evaluation = Evaluation(metrics, device=processes.device, workers=options["workers"])
    judge_saved(saved, evaluation, processes, options["batch"], workers=options["workers"])
    measured = evaluation.compute().scores
    if processes.is_main:
        save_png(folder / "samples.png", samples_sheet(saved, measured, count))
        click.echo(folder / "samples.png")
        if saved.has_cameras:
            save_gap_plot(folder / "gaps.png", measured, {seed: saved.records[seed].gap for seed in saved.files})
            click.echo(folder / "gaps.png")
        else:
            click.echo("no plot against the frame gap: there is no run.json that tells the gaps", err=True)
    processes.close()


@main.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@option("--metrics", section=METRICS, type=Names(), default="psnr,ssim,lpips", metavar="LIST", help="Of folders.")
@option("--count", section=OUTPUT, type=click.IntRange(min=1), default=3, help="How many pairs to name each way.")
@option("--json", "json_file", section=OUTPUT, type=OutputFile(), metavar="FILE", help="The table as JSON, too.")
@option(
    "--outdir", section=OUTPUT, type=PATH, metavar="DIR", help="Pictures of the pairs that differ most; of folders."
)
@option("--batch", section=WORK, type=click.IntRange(min=1), default=BATCH, help="Images at once.")
@work_options
def compare(
    first: Path,
    second: Path,
    metrics: list[str],
    count: int,
    json_file: Path | None,
    outdir: Path | None,
    **options: Any,
) -> None:
    """Paired differences of two runs over one list of pairs.

    A and B are folders of generate_images.py, folders with pred/ and gt/ in them, or files that --write-pairs or --json
    wrote.
    """
    from dnnlib.imaging import save_png
    from metrics.compare import compare as compare_numbers
    from metrics.compare import read_judged, to_json, to_text
    from metrics.folders import open_saved
    from metrics.gallery import compared_sheet
    from metrics.judging import judge_run
    from torch_utils.distributed import start_processes

    processes = start_processes(options["device"])
    with_images = [path.is_dir() or path.suffix == ".zip" for path in (first, second)]
    if outdir is not None and not all(with_images):
        raise UserError("pictures need the folders of both runs: leave --outdir out, or give folders")
    picture = None if outdir is None else writable_directory(outdir) / "differences.png"
    how = {"weights": dict(options["weights"]), "workers": options["workers"]}
    one, other = (
        judge_run(path, metrics, processes, options["batch"], **how) if has_images else read_judged(path)
        for path, has_images in zip((first, second), with_images, strict=True)
    )
    found = compare_numbers(one, other, count)
    if processes.is_main:
        click.echo(to_text(found))
        if json_file is not None:
            with atomic_path(json_file) as temporary:
                temporary.write_text(to_json(found) + "\n")
        if picture is not None:
            save_png(picture, compared_sheet(open_saved(first), open_saved(second), found))
            click.echo(picture)
    processes.close()


def start(options: dict[str, Any]) -> tuple[Processes, SavedViews]:
    """This process, and the images that the options choose."""
    from metrics.folders import open_saved
    from torch_utils.distributed import start_processes

    processes = start_processes(options["device"])
    saved = open_saved(*(options[name] for name in ("images", "generated", "target", "source")))
    return processes, saved.choose(options["num"], options["seed"])


if __name__ == "__main__":
    main()
