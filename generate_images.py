"""Novel views for the pairs of a data set: source views and relative poses in, pictures out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from dnnlib.cli import Command, RangeSelection, Seeds, option, preset_option
from presets import SAMPLING

NETWORKS, DATA, SAMPLER, OUTPUT = "Networks", "Data", "Sampler", "Output"

SOLVER_OPTIONS = ("sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise")


@click.command(cls=Command)
@preset_option(SAMPLING, section=NETWORKS)
@option("--net", section=NETWORKS, metavar="FILE|URL|NAME", help="Base network.", required=True)
@option("--gnet", section=NETWORKS, metavar="FILE|URL|NAME", help="Guidance network, usually unconditional.")
@option("--sr-model", section=NETWORKS, metavar="FILE|URL|NAME", help="Super-resolution network behind the base.")
@option("--guidance", section=NETWORKS, type=float, default=1.0, help="Strength of guidance; 1 is none.")
@option("--data", section=DATA, metavar="DIR", default="data", help="RealEstate10K folder, or pixelSplat chunks.")
@option("--split", section=DATA, default="test", help="Which split of it.")
@option("--range-selection", section=DATA, type=RangeSelection(), help="Frame gap: mid, long or A-B (A <= gap < B).")
@option(
    "--published-intrinsics/--correct-intrinsics",
    section=DATA,
    default=False,
    help="Focal lengths as the published code computes them.",
)
@option("--steps", section=SAMPLER, type=click.IntRange(min=1), default=32, help="Sampling steps.")
@option("--sigma_min", section=SAMPLER, type=float, default=0.002, help="Lowest noise level.")
@option("--sigma_max", section=SAMPLER, type=float, default=80.0, help="Highest noise level.")
@option("--rho", section=SAMPLER, type=float, default=7.0, help="Exponent of the noise levels.")
@option("--S_churn", "S_churn", section=SAMPLER, type=float, default=0.0, help="Noise added on the way.")
@option("--S_min", "S_min", section=SAMPLER, type=float, default=0.0, help="... from this noise level")
@option("--S_max", "S_max", section=SAMPLER, type=float, default=math.inf, help="... to this one.")
@option("--S_noise", "S_noise", section=SAMPLER, type=float, default=1.0, help="Factor on the added noise.")
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
    """Generate novel views for pairs of a data set.

    \b
    python generate_images.py --preset=vivid-tiny --outdir=out
    torchrun --nproc_per_node=8 generate_images.py --preset=vivid --data=DIR --seeds=0-9999 --outdir=out
    """
    import logging

    from tqdm import tqdm

    from datasets.realestate10k import RealEstate10K
    from dnnlib.util import file_sha256, writable_directory
    from torch_utils.distributed import start_processes
    from training.generation import GeneratedBatches, NovelViewSampler
    from training.model_io import load_network, resolve_network
    from training.results import ResultFolder

    processes = start_processes(options["device"])
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    log = logging.getLogger("generate_images")
    dataset = RealEstate10K(options["data"], options["split"], options["range_selection"], resolution=None)
    log.info("%s: %s", options["data"], dataset.summary())

    roles = ("net", "gnet", "sr_model")
    files = {role: resolve_network(options[role]) for role in roles if options[role]}
    networks = {role: load_network(file, processes.device) for role, file in files.items()}
    solver = {"num_steps": options["steps"], **{name: options[name] for name in SOLVER_OPTIONS}}
    settings = {name: options[name] for name in ("guidance", "published_intrinsics")}
    sampler = NovelViewSampler(**networks, **settings, sampler_kwargs=solver)

    identity = {
        **{role: file_sha256(files[role]) if role in files else None for role in roles},
        **{name: options[name] for name in ("split", "range_selection")},
        **settings,
        **{name: str(value) if value == math.inf else value for name, value in solver.items()},
        "data": str(Path(options["data"]).resolve()),
    }
    seeds = options["seeds"]
    results = ResultFolder(writable_directory(options["outdir"]), options["subdirs"], identity, options["overwrite"])
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
    processes.close()


if __name__ == "__main__":
    main()
