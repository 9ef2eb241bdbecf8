"""Novel views for the pairs of a data set, along the path of one of its clips, or of one's own photographs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, Seeds, option
from dnnlib.sampling_options import DATA, NETWORK_ROLES, batch_option, data_options, network_options, solver_options
from dnnlib.util import UserError
from presets import SAMPLING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from datasets.user_image import Photograph
    from torch_utils.cameras import Camera, View
    from torch_utils.distributed import Processes
    from training.failures import Failures
    from training.generation import NovelViewSampler

    # where the path begins, its cameras, what they really saw if that is known, more for trajectory.json
    _Path = tuple[Photograph, list[Camera], list[View], dict[str, Any]]

PHOTOGRAPHS, PATHS, OUTPUT = "Own photographs, instead of data", "Paths, of photographs and clips", "Output"
_PAIRS = (("pairs",), "pairs of a data set")
# Of an option or a section: the modes in which it does something, and what it is for.
_MODES = {
    "range_selection": _PAIRS,
    "subdirs": _PAIRS,
    DATA: (("pairs", "clip"), "data sets"),
    PHOTOGRAPHS: (("image",), "one's own photographs"),
    PATHS: (("image", "clip"), "paths"),
}


@click.command(cls=Command)
@network_options(SAMPLING)
@data_options()
@option("--clip", section=DATA, metavar="NAME|NUMBER", help="Instead of pairs: follow this clip from its first frame.")
@option(
    "--image",
    "images",
    section=PHOTOGRAPHS,
    metavar="FILE|DIR",
    multiple=True,
    help="Photograph, or a folder of them; more than once if need be.",
)
@option(
    "--trajectory",
    section=PHOTOGRAPHS,
    metavar="NAME|FILE",
    default="orbit",
    help="orbit, pan, tilt, roll, dolly, zoom, truck, pedestal, spiral, shake, or the file of a path.",
)
@option("--amount", section=PHOTOGRAPHS, type=float, help="How far a named path goes, in its own unit.")
@option(
    "--scene-scale",
    section=PHOTOGRAPHS,
    type=float,
    default=1.0,
    help="Factor on distances travelled (see docs/trajectories.md).",
)
@option(
    "--fov",
    section=PHOTOGRAPHS,
    type=float,
    help="Degrees that the shorter side spans.  [default: EXIF, the path's, or 58]",
)
@option(
    "--convention",
    section=PHOTOGRAPHS,
    type=click.Choice(["opencv", "opengl"]),
    help="Axes of a file of plain matrices.",
)
@option(
    "--pose",
    section=PHOTOGRAPHS,
    type=click.Choice(["c2w", "w2c"]),
    help="Camera-to-world matrices, or world-to-camera.",
)
@option(
    "--known-pixels/--no-known-pixels",
    section=PHOTOGRAPHS,
    default=True,
    help="Keep what the photograph shows of a view.",
)
@option(
    "--frames",
    section=PATHS,
    type=int,
    help="How many; of a file or clip, evenly spaced.  [default: 24, or all of a file]",
)
@option(
    "--condition",
    section=PATHS,
    type=click.Choice(["first", "chain", "stochastic"]),
    default="first",
    help="Frames follow from the first view, the newest key frame, or random earlier ones.",
)
@option(
    "--key-every",
    section=PATHS,
    type=click.IntRange(min=1),
    default=4,
    help="For chain and stochastic: every so many frames, a key frame.",
)
@option(
    "--samples",
    section=PATHS,
    type=click.IntRange(min=1),
    default=1,
    help="Answers per frame, with the first of --seeds, and a map of their spread.",
)
@option("--fresh-noise", section=PATHS, is_flag=True, help="Other noise for every frame.")
@option(
    "--baseline",
    section=PATHS,
    type=click.Choice(["homography"]),
    help="Write what is known where the camera only turns.",
)
@option(
    "--export",
    section=PATHS,
    type=click.Choice(["realestate10k", "colmap", "matrices"]),
    multiple=True,
    help="Write the path in this format, too.",
)
@option("--fps", section=PATHS, type=float, default=12.0, help="Frames a second of the videos.")
@solver_options()
@option("--seeds", section=OUTPUT, type=Seeds(), default="0-7", help="Seed s names pair s and its noise: 1,2,5-10.")
@batch_option(OUTPUT, default=4)
@option(
    "--outdir",
    section=OUTPUT,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the pictures go.",
)
@option("--estimate", section=OUTPUT, is_flag=True, help="Print what it will take, by a short probe; make nothing.")
@option("--subdirs", section=OUTPUT, is_flag=True, help="One folder per 1000 seeds.")
@option("--overwrite", section=OUTPUT, is_flag=True, help="Make again what is already there.")
@option("--device", section=OUTPUT, help="cpu, cuda, cuda:N or mps.  [default: the best present]", show_default=False)
def main(**options: Any) -> None:
    """Generate novel views: for pairs of a data set, along one of its clips, or of photographs along a camera path.

    \b
    python generate_images.py --preset=vivid-tiny --image=photo.jpg --trajectory=orbit --outdir=out
    python generate_images.py --preset=vivid-tiny --data=DIR --seeds=0-15 --outdir=out
    python generate_images.py --preset=vivid-tiny --data=DIR --clip=0 --frames=12 --outdir=out
    torchrun --nproc_per_node=8 generate_images.py --preset=vivid --data=DIR --seeds=0-9999 --outdir=out
    """
    _check_mode(click.get_current_context())
    import logging

    from torch_utils.distributed import start_processes

    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    log = logging.getLogger("generate_images")
    if options["estimate"]:
        _estimate(options, processes)
        return processes.close()
    paths = options["images"] or options["clip"] is not None
    failures, total = (_follow_paths if paths else _generate_pairs)(options, processes, log)
    processes.close()
    if processes.is_main:  # torchrun ends all others as soon as one fails: everything is written by now
        failures.check(total)


def _check_mode(ctx: click.Context) -> None:
    """Refuse options of a mode that is not asked for: they would do nothing, silently."""
    params = ctx.params
    mode = "image" if params["images"] else "pairs" if params["clip"] is None else "clip"
    if mode == "image" and params["depth_model"] == "file":
        raise UserError("one's own photographs have no depth beside them: name a depth model to estimate it")
    for parameter in ctx.command.params:
        if ctx.get_parameter_source(parameter.name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        modes, what = _MODES.get(parameter.name) or _MODES.get(parameter.section) or ((mode,), "")
        if mode not in modes:
            remedy = f"--{mode}" if mode != "pairs" else "give " + " or ".join(f"--{other}" for other in modes)
            raise UserError(f"{parameter.opts[0]} is for {what}: leave it out, or {remedy}")
    if params["outdir"] is None and not params["estimate"]:
        raise click.UsageError("--outdir is missing: say where the pictures go, or give --estimate", ctx)
    if mode != "pairs" and len(params["seeds"]) < params["samples"]:
        raise UserError(f"{params['samples']} samples need as many seeds; --seeds has {len(params['seeds'])}")


def _estimate(options: dict[str, Any], processes: Processes) -> None:
    """Print what the run will take: no data are read but photographs or a clip, to count their frames."""
    from dnnlib.util import format_bytes, format_seconds
    from torch_utils.memory import memory_limit
    from training.estimate import estimate_sampling
    from training.generation import open_sampler

    sampler, _ = open_sampler(options, processes.device)
    if options["images"] or options["clip"] is not None:
        paths = _open_paths(options, sampler).values()
        images = sum(len(open_path()[1]) for open_path in paths) * options["samples"]
    else:
        images = len(options["seeds"])
    mine = -(-images // processes.world_size)
    found = estimate_sampling(sampler, options["batch"], mine)
    if not processes.is_main:
        return
    click.echo(f"{'an image':10}{'parameters':>14}{'evaluations':>13}{'GFLOP':>11}{'seconds':>10}")
    rows = [(role, net.parameters, net.evaluations, net.flop, net.seconds) for role, net in found.networks.items()]
    sums = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    for role, parameters, evaluations, flop, seconds in [*rows, ("all", *sums)]:
        click.echo(f"{role:10}{parameters:14,}{evaluations:13}{flop / 1e9:11,.2f}{seconds:10.3f}")
    need, there = found.memory, format_bytes(memory_limit(processes.device))
    at_once, each = format_bytes(need.of(found.batch)), format_bytes(need.per_image)
    click.echo(f"memory    {at_once} at --batch={found.batch}, {each} of it for each image at once; {there} there")
    click.echo(f"fits      --batch={found.fitting_batch}: what --batch=auto takes of as many images or more")
    where = f"{processes.world_size} x {processes.device.type}"
    click.echo(f"in all    {images} images: {format_seconds(found.seconds * mine)} on {where}")


def _follow_paths(options: dict[str, Any], processes: Processes, log: logging.Logger) -> tuple[Failures, int]:
    """Render every path and report on it; returns which could not be rendered, of how many."""
    from dnnlib.video import check_fps
    from training.batching import choose_batch
    from training.failures import Failures
    from training.generation import open_sampler

    check_fps(options["fps"])  # now, and not in a folder that has begun to fill
    sampler, _ = open_sampler(options, processes.device)
    batch = choose_batch(options["batch"], sampler, options["frames"] and options["frames"] * options["samples"])
    paths, failures = _open_paths(options, sampler), Failures()
    for name in processes.share(list(paths)):
        folder = options["outdir"] / (name if len(paths) > 1 else "")
        try:
            _follow_path(paths[name](), folder, sampler, batch, options, processes, log)
        except Exception as error:
            failures.add(name, error)
    failures.gather(processes)
    return failures, len(paths)


def _follow_path(
    path: _Path,
    folder: Path,
    sampler: NovelViewSampler,
    batch: int,
    options: dict[str, Any],
    processes: Processes,
    log: logging.Logger,
) -> None:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from metrics.neighbours import NeighbourReport
    from metrics.truth import TruthReport
    from training.trajectory import PathFolder, PathRenderer

    photograph, cameras, truth, details = path
    fov = f"{photograph.fov_deg:.1f} degrees ({photograph.fov_from})"
    log.info("%s: %s, %d frames", photograph.name, fov, len(cameras))
    seeds = options["seeds"][: options["samples"]]
    how = {name: options[name] for name in ("condition", "key_every", "fresh_noise")}
    how["known_pixels"] = options["known_pixels"] and bool(options["images"])
    renderer = PathRenderer(sampler, photograph.view, cameras, seeds, batch_size=batch, **how)
    reports = [NeighbourReport(), *([TruthReport(truth)] if truth else [])]
    frames = PathFolder(folder, options["overwrite"]).write(
        renderer,
        photograph,
        fps=options["fps"],
        homography=options["baseline"] == "homography",
        truth=truth,
        reports=reports,
        formats=options["export"],
        details={**details, **{name: options[name] for name in (*NETWORK_ROLES, "guidance", "steps")}},
    )
    with logging_redirect_tqdm():
        for _ in tqdm(frames, total=len(cameras), unit="frame", disable=not processes.is_main):
            pass
    log.info("%s; see %s", "; ".join(map(str, reports)), folder / "sheet.png")


def _open_paths(options: dict[str, Any], sampler: NovelViewSampler) -> dict[str, Callable[[], _Path]]:
    """What opens each photograph along the path, by name, or the one clip along its own."""
    if not options["images"]:
        return {options["clip"]: lambda: _clip(options, sampler.resolution)}
    from datasets.user_image import photograph_files

    files, typical_depth = photograph_files(options["images"]), sampler.net.typical_depth
    return {name: partial(_photograph, file, options, typical_depth) for name, file in files.items()}


def _photograph(file: Path, options: dict[str, Any], typical_depth: float | None) -> _Path:
    from datasets.trajectories import plan_path
    from datasets.user_image import read_photograph

    path = [options[name] for name in ("trajectory", "frames", "amount", "scene_scale", "convention", "pose")]
    photograph, cameras = plan_path(read_photograph(file, options["fov"]), *path, typical_depth)
    details = {name: options[name] for name in ("trajectory", "scene_scale")}
    return photograph, cameras, [], {**details, "typical_depth": typical_depth}


def _clip(options: dict[str, Any], resolution: int) -> _Path:
    from datasets.clip_path import clip_path, open_clip
    from datasets.realestate10k import open_split
    from torch_utils.depth import STORED

    clips = open_split(options["data"], options["split"], depth=options["depth_model"] == STORED)
    source, positions, truth = clip_path(*open_clip(clips, options["clip"]), options["frames"], resolution)
    details = {"data": options["data"], "split": options["split"], "clip": source.name, "positions": positions}
    return source, [view.camera for view in truth], truth, details


def _generate_pairs(options: dict[str, Any], processes: Processes, log: logging.Logger) -> tuple[Failures, int]:
    """The pairs of a data set that the seeds name; returns which could not be made, of how many."""
    from tqdm import tqdm

    from datasets.realestate10k import RealEstate10K
    from torch_utils.depth import STORED
    from training.batching import choose_batch
    from training.failures import Failures
    from training.generation import GeneratedBatches, open_sampler
    from training.results import open_result_folder

    where = [options[name] for name in ("data", "split", "range_selection")]
    dataset = RealEstate10K(*where, resolution=None, depth=options["depth_model"] == STORED)
    log.info("%s: %s", options["data"], dataset.summary())
    sampler, files = open_sampler(options, processes.device)
    results = open_result_folder(options, sampler, files)
    seeds = options["seeds"]
    missing = results.missing(seeds)
    processes.barrier()  # nobody writes before everybody has seen what is there
    details = {
        "networks": {role: options[role] for role in files},
        "device": str(processes.device),
        "dtype": str(sampler.net.compute_dtype).removeprefix("torch."),
    }
    if processes.is_main:
        results.write_run(details)

    mine = processes.share(missing)
    records, failures = [], Failures()
    batches = GeneratedBatches(sampler, dataset, mine, choose_batch(options["batch"], sampler, len(mine)), failures.add)
    for batch in tqdm(batches, unit="batch", disable=not processes.is_main):
        records += results.save(batch, failures.add)
    records = processes.gather(records)
    failures.gather(processes)
    if processes.is_main:
        results.finish(seeds, records, dataset, sampler.resolution, details, failures.reasons)
        made, there = len(missing) - len(failures.reasons), len(seeds) - len(missing)
        log.info("%d images made, %d were there: see %s", made, there, options["outdir"] / "sheet.png")
    return failures, len(seeds)


if __name__ == "__main__":
    main()
