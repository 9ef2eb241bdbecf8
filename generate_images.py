"""Novel views for the pairs of a data set, or of one's own photographs along a camera path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.cli import Command, Seeds, option
from dnnlib.sampling_options import DATA, NETWORK_ROLES, data_options, network_options, solver_options
from dnnlib.util import UserError
from presets import SAMPLING

if TYPE_CHECKING:
    import logging

    from torch_utils.distributed import Processes

PHOTOGRAPHS, OUTPUT = "Own photographs, instead of data", "Output"


@click.command(cls=Command)
@network_options(SAMPLING)
@data_options()
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
@option(
    "--frames",
    section=PHOTOGRAPHS,
    type=int,
    help="How many; of a file, evenly spaced.  [default: 24, or all of a file]",
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
    "--condition",
    section=PHOTOGRAPHS,
    type=click.Choice(["first", "chain", "stochastic"]),
    default="first",
    help="Frames follow from the photograph, the newest key frame, or random earlier ones.",
)
@option(
    "--key-every",
    section=PHOTOGRAPHS,
    type=click.IntRange(min=1),
    default=4,
    help="For chain and stochastic: every so many frames, a key frame.",
)
@option(
    "--samples",
    section=PHOTOGRAPHS,
    type=click.IntRange(min=1),
    default=1,
    help="Answers per frame, with the first of --seeds, and a map of their spread.",
)
@option("--fresh-noise", section=PHOTOGRAPHS, is_flag=True, help="Other noise for every frame.")
@option(
    "--baseline",
    section=PHOTOGRAPHS,
    type=click.Choice(["homography"]),
    help="Write what is known where the camera only turns.",
)
@option(
    "--export",
    section=PHOTOGRAPHS,
    type=click.Choice(["realestate10k", "colmap", "matrices"]),
    multiple=True,
    help="Write the path in this format, too.",
)
@option("--fps", section=PHOTOGRAPHS, type=float, default=12.0, help="Frames a second of the videos.")
@solver_options()
@option("--seeds", section=OUTPUT, type=Seeds(), default="0-7", help="Seed s names pair s and its noise: 1,2,5-10.")
@option("--batch", section=OUTPUT, type=click.IntRange(min=1), default=4, help="Images at once.")
@option(
    "--outdir",
    section=OUTPUT,
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the pictures go.",
)
@option("--subdirs", section=OUTPUT, is_flag=True, help="One folder per 1000 seeds.")
@option("--overwrite", section=OUTPUT, is_flag=True, help="Make again what is already there.")
@option("--device", section=OUTPUT, help="cpu, cuda, cuda:N or mps.  [default: the best present]", show_default=False)
def main(**options: Any) -> None:
    """Generate novel views: for pairs of a data set, or of photographs along a camera path.

    \b
    python generate_images.py --preset=vivid-tiny --image=photo.jpg --trajectory=orbit --outdir=out
    python generate_images.py --preset=vivid-tiny --data=DIR --seeds=0-15 --outdir=out
    torchrun --nproc_per_node=8 generate_images.py --preset=vivid --data=DIR --seeds=0-9999 --outdir=out
    """
    _check_mode(click.get_current_context())
    import logging

    from torch_utils.distributed import start_processes

    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    log = logging.getLogger("generate_images")
    if options["images"]:
        _follow_path(options, processes, log)
    else:
        _generate_pairs(options, processes, log)
    processes.close()


def _check_mode(ctx: click.Context) -> None:
    """Refuse options of the mode that is not asked for: they would do nothing, silently."""
    own = bool(ctx.params["images"])
    if own and ctx.params["depth_model"] == "file":
        raise UserError("one's own photographs have no depth beside them: name a depth model to estimate it")
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
        if given and own and (parameter.section == DATA or parameter.name == "subdirs"):
            raise UserError(f"{parameter.opts[0]} is for pairs of a data set: leave it out, or --image")
        if given and not own and parameter.section == PHOTOGRAPHS:
            raise UserError(f"{parameter.opts[0]} is for one's own photographs: name one with --image")


def _follow_path(options: dict[str, Any], processes: Processes, log: logging.Logger) -> None:
    """Every photograph along the path; several get a folder each."""
    from tqdm import tqdm

    from datasets.trajectories import plan_path
    from datasets.user_image import photograph_files, read_photograph
    from metrics.neighbours import NeighbourReport
    from training.generation import open_sampler
    from training.trajectory import PathFolder, PathRenderer

    seeds = options["seeds"][: options["samples"]]
    if len(seeds) < options["samples"]:
        raise UserError(f"{options['samples']} samples need as many seeds; --seeds has {len(seeds)}")
    path = [options[name] for name in ("trajectory", "frames", "amount", "scene_scale", "convention", "pose")]
    how = {name: options[name] for name in ("condition", "key_every", "fresh_noise")}
    photographs = photograph_files(options["images"])
    sampler, _ = open_sampler(options, processes.device)
    for name, file in processes.share(list(photographs.items())):
        photograph, cameras = plan_path(read_photograph(file, options["fov"]), *path)
        log.info("%s: %.1f degrees (%s), %d frames", file, photograph.fov_deg, photograph.fov_from, len(cameras))
        renderer = PathRenderer(sampler, photograph.view, cameras, seeds, batch_size=options["batch"], **how)
        folder = PathFolder(options["outdir"] / (name if len(photographs) > 1 else ""), options["overwrite"])
        report = NeighbourReport()
        details = {name: options[name] for name in ("trajectory", "scene_scale", *NETWORK_ROLES, "guidance", "steps")}
        frames = folder.write(
            renderer,
            photograph,
            fps=options["fps"],
            homography=options["baseline"] == "homography",
            report=report,
            formats=options["export"],
            details=details,
        )
        for _ in tqdm(frames, total=len(cameras), unit="frame", disable=not processes.is_main):
            pass
        log.info("%s; see %s", report, folder.folder / "sheet.png")


def _generate_pairs(options: dict[str, Any], processes: Processes, log: logging.Logger) -> None:
    """The pairs of a data set that the seeds name."""
    from tqdm import tqdm

    from datasets.realestate10k import RealEstate10K
    from torch_utils.depth import STORED
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
    details = {"networks": {role: options[role] for role in files}, "device": str(processes.device)}
    if processes.is_main:
        results.write_run(details)

    batches = GeneratedBatches(sampler, dataset, processes.share(missing), options["batch"])
    records = [results.save(batch) for batch in tqdm(batches, unit="batch", disable=not processes.is_main)]
    records = processes.gather([record for batch in records for record in batch])
    if processes.is_main:
        results.finish(seeds, records, dataset, sampler.resolution, details)
        log.info(
            "%d images made, %d were there: see %s",
            len(missing),
            len(seeds) - len(missing),
            options["outdir"] / "sheet.png",
        )


if __name__ == "__main__":
    main()
