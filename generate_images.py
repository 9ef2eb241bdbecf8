"""Novel views for the pairs of a data set, along the path of one of its clips, or of one's own photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from datasets.config import DATA, DataConfig, open_clip_pairs
from datasets.path_config import PATHS, PHOTOGRAPHS, PathConfig, open_paths
from dnnlib.cli import (
    Command,
    OutputFile,
    Seeds,
    batch_option,
    given,
    option,
    preset_option,
    settings_options,
    yielding,
)
from dnnlib.settings import Settings
from dnnlib.text_files import json_document
from dnnlib.util import STORED, UserError
from presets import SAMPLING
from training.path_config import RenderConfig
from training.sampling_config import NETWORKS, NetworkFiles, SamplingConfig

if TYPE_CHECKING:
    from torch_utils.distributed import Processes
    from training.failures import Failures
    from training.trajectory import PathFolder, PathRenderer

OUTPUT = "Output"
_PAIRS = (("pairs",), "pairs of a data set")
# Of an option or a section: the modes in which it does something, and what it is for.
_MODES = {
    "range_selection": _PAIRS,
    "pairs": _PAIRS,
    "subdirs": _PAIRS,
    "write_pairs": _PAIRS,
    DATA: (("pairs", "clip"), "data sets"),
    PHOTOGRAPHS: (("image",), "one's own photographs"),
    PATHS: (("image", "clip"), "paths"),
}


@click.command(cls=Command)
@preset_option(SAMPLING, section=NETWORKS)
@settings_options(NetworkFiles)
@settings_options(SamplingConfig)
@settings_options(DataConfig, only=("data", "split", "range_selection", "pairs"))
@settings_options(PathConfig)
@settings_options(RenderConfig)
@option(
    "--seeds",
    section=OUTPUT,
    type=Seeds(),
    default="0-7",
    help="Seed s names pair s and its noise: 1,2,5-10; of a list, all its pairs unless given.",
)
@batch_option(OUTPUT, default=4)
@option("--outdir", section=OUTPUT, metavar="DIR", type=click.Path(path_type=Path), help="Where the pictures go.")
@option(
    "--write-pairs",
    section=OUTPUT,
    metavar="FILE",
    type=OutputFile(),
    help="The list of pairs as JSON lines, which --pairs takes.",
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
    import logging

    from torch_utils.distributed import start_processes

    _check_mode(click.get_current_context())
    options = _recalled(click.get_current_context(), options)
    if options["condition"] == "first" and given(click.get_current_context(), "key_every"):
        raise UserError("`key_every` is for `condition` chain or stochastic: leave it out, or give one")
    job = Job.of(yielding(options, "range_selection", to="pairs"))
    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    if options["estimate"]:
        _estimate(job, processes)
        return processes.close()
    failures, total = (_follow_paths if job.path.is_given else _generate_pairs)(job, processes)
    processes.close()
    if processes.is_main:  # torchrun ends all others as soon as one fails: everything is written by now
        failures.check(total)


def _check_mode(ctx: click.Context) -> None:
    """Refuse options of a mode that is not asked for: they would do nothing, silently."""
    params = ctx.params
    mode = "image" if params["images"] else "pairs" if params["clip"] is None else "clip"
    if mode == "image" and params["depth_model"] == STORED:
        raise UserError("one's own photographs have no depth beside them: name a depth model to estimate it")
    for parameter in ctx.command.params:
        if not given(ctx, parameter.name):
            continue
        modes, what = _MODES.get(parameter.name) or _MODES.get(getattr(parameter, "section", "")) or ((mode,), "")
        if mode not in modes:
            remedy = f"--{mode}" if mode != "pairs" else "give " + " or ".join(f"--{other}" for other in modes)
            raise UserError(f"{parameter.opts[0]} is for {what}: leave it out, or {remedy}")
    if params["outdir"] is None and not params["estimate"]:
        raise click.UsageError("--outdir is missing: say where the pictures go, or give --estimate", ctx)
    if params["keys"] and given(ctx, "trajectory"):
        raise UserError("each `keys` is part of a path of its own: leave `trajectory` out")
    if mode != "pairs" and len(params["seeds"]) < params["samples"]:
        raise UserError(f"{params['samples']} samples need as many seeds; --seeds has {len(params['seeds'])}")


def _recalled(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with what a `trajectory.json` that is given back was made with, where they do not say otherwise.

    Its networks' settings count for the same network and preset alone.
    """
    document = json_document(options["trajectory"]) if options["images"] else None
    if not isinstance(document, dict) or "exact" not in document:
        return options
    names = {field.name for field in fields(RenderConfig)} - {"export", "samples"}
    if (options["net"], options["preset"]) == (document.get("net"), document.get("preset")):
        names |= {field.name for part in (NetworkFiles, SamplingConfig) for field in fields(part)} - {"net"}
    values = {name: document[name] for name in names if name in document and not given(ctx, name)}
    if not given(ctx, "seeds") and not given(ctx, "samples"):
        values |= {"seeds": document["seeds"], "samples": len(document["seeds"])}
    numbers = {"inf": float("inf"), "-inf": -float("inf")}
    values = {name: numbers.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list) and name != "seeds"}
    return {**options, **values, **tuples}


@dataclass(frozen=True)
class Job(Settings):
    """What the command was asked for, as values."""

    networks: NetworkFiles
    sampling: SamplingConfig
    data: DataConfig
    path: PathConfig
    render: RenderConfig
    seeds: list[int]
    batch: int | Literal["auto"]
    outdir: Path
    preset: str | None
    subdirs: bool
    overwrite: bool
    write_pairs: Path | None

    @classmethod
    def of(cls, options: Mapping[str, Any], **values: Any) -> Job:
        parts = {
            "networks": NetworkFiles.of(options),
            "sampling": SamplingConfig.of(options),
            "data": DataConfig.of(options),
            "path": PathConfig.of(options),
            "render": RenderConfig.of(options),
        }
        return super().of(options, **parts, **values)


def _takes_whole_list(job: Job) -> bool:
    """Whether all pairs of a list are to be made, since nobody says which."""
    return job.data.pairs is not None and not given(click.get_current_context(), "seeds")


def _estimate(job: Job, processes: Processes) -> None:
    """Print what the run will take: no data are read but photographs or a clip, to count their frames."""
    from datasets.pairs import read_pairs
    from training.estimate import estimate_sampling
    from training.generation import open_sampler

    sampler, _ = open_sampler(job.networks, job.sampling, processes.device)
    images = len(job.seeds)
    if _takes_whole_list(job):
        images = len(read_pairs(str(job.data.pairs)))
    if job.path.is_given:
        paths = open_paths(job.path, job.data, sampler.resolution, sampler.net.typical_depth).values()
        images = job.render.samples * sum(len(open_path().cameras) for open_path in paths)
    found = estimate_sampling(sampler, job.batch, -(-images // processes.world_size))
    if processes.is_main:
        click.echo(found.to_text(images, processes))


def _follow_paths(job: Job, processes: Processes) -> tuple[Failures, int]:
    """Render every path and report on it; returns which could not be rendered, of how many."""
    from dnnlib.video import check_fps
    from training.batching import choose_batch
    from training.failures import Failures
    from training.generation import open_sampler
    from training.results import network_identity
    from training.trajectory import PathFolder, PathRenderer, path_identity

    check_fps(job.render.fps)  # now, and not in a folder that has begun to fill
    sampler, files = open_sampler(job.networks, job.sampling, processes.device)
    networks = network_identity(files, job.networks)
    samples, frames = job.render.samples, job.path.frames
    batch = choose_batch(job.batch, sampler, frames and frames * samples)
    details = {**asdict(job.networks.public()), "preset": job.preset}
    paths, failures = open_paths(job.path, job.data, sampler.resolution, sampler.net.typical_depth), Failures()
    for name in processes.share(list(paths)):
        folder = job.outdir / (name if len(paths) > 1 else "")
        try:
            renderer = PathRenderer(sampler, paths[name](), job.render, job.seeds[:samples], batch)
            target = PathFolder(folder, job.overwrite, path_identity(renderer, networks))
            _follow_path(renderer, target, details, processes)
        except Exception as error:
            failures.add(name, error)
    failures.gather(processes)
    return failures, len(paths)


def _follow_path(renderer: PathRenderer, folder: PathFolder, details: dict[str, Any], processes: Processes) -> None:
    import logging

    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from metrics.consistency import path_reports

    log, path = logging.getLogger("generate_images"), renderer.path
    photograph = path.photograph
    fov = f"{photograph.fov_deg:.1f} degrees ({photograph.fov_from})"
    log.info("%s: %s, %d frames", photograph.name, fov, len(renderer))
    reports = path_reports(path.truth)
    frames = folder.write(renderer, reports, details)
    with logging_redirect_tqdm():
        for _ in tqdm(frames, total=len(renderer), unit="frame", disable=not processes.is_main):
            pass
    log.info("%s; see %s", "; ".join(map(str, reports)), folder.folder / "sheet.png")


def _generate_pairs(job: Job, processes: Processes) -> tuple[Failures, int]:
    """The pairs of a data set that the seeds name; returns which could not be made, of how many."""
    import logging

    from tqdm import tqdm

    from datasets.pairs import FramePair, write_pair_lines
    from training.batching import choose_batch
    from training.failures import Failures
    from training.generation import GeneratedBatches, open_sampler
    from training.results import RunFolder, generate_into, run_details, run_identity

    log = logging.getLogger("generate_images")
    dataset = open_clip_pairs(job.data)
    log.info("%s: %s", job.data.data, dataset.summary())
    seeds = list(range(len(dataset))) if _takes_whole_list(job) else job.seeds
    if job.data.pairs is not None and max(seeds) >= len(dataset):
        log.warning("seeds from %d on go through the list again, with other noise", len(dataset))
    sampler, files = open_sampler(job.networks, job.sampling, processes.device)
    identity = run_identity(files, job.networks, sampler, job.data)
    folder = RunFolder(job.outdir, identity, run_details(job.networks, processes), job.subdirs, job.overwrite)
    if job.write_pairs is not None and processes.is_main:
        write_pair_lines(job.write_pairs, {seed: FramePair(*dataset.choose(seed)) for seed in seeds})
    missing, failures = folder.missing(seeds, dataset), Failures()
    mine = processes.share(missing)
    batches = GeneratedBatches(sampler, dataset, mine, choose_batch(job.batch, sampler, len(mine)), failures.add)
    made = generate_into(folder, batches, seeds, processes, failures)
    for _ in tqdm(made, total=len(batches), unit="batch", disable=not processes.is_main):
        pass
    new, there = len(missing) - len(failures.reasons), len(seeds) - len(missing)
    log.info("%d images made, %d were there: see %s", new, there, job.outdir / "sheet.png")
    return failures, len(seeds)


if __name__ == "__main__":
    main()
