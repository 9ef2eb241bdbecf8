"""Networks for diffusers and for the Hub: a folder that says what they are, how they are sampled, and how to use them.

    python -m training.diffusers_model --preset=vivid-tiny FOLDER
    python -m training.diffusers_model --net=runs/base/network-snapshot-0065536-0.100.safetensors FOLDER

`VividPipeline.from_pretrained(FOLDER)` opens it; `--net=FOLDER`, `--gnet=FOLDER` and `--sr-model=FOLDER` of the command
lines take the network of that name from it. Needs `pip install diffusers`, to write; the command lines do without.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import click

from dnnlib.cli import Command, option, preset_option, settings_options
from dnnlib.util import UserError, writable_directory
from presets import MODELS, SAMPLING
from training.sampling_config import NETWORKS, ROLES, NetworkFiles, SamplingConfig

_OF_DATA = ("data", "range_selection")  # of a preset: no concern of networks
_FOLDERS = ("data", "single_image_data", "outdir")
_PRESETS = {
    name: {key: value for key, value in preset.items() if key not in _OF_DATA} for name, preset in SAMPLING.items()
}


@click.command(cls=Command)
@preset_option(_PRESETS, section=NETWORKS)
@settings_options(NetworkFiles, only=ROLES)
@settings_options(SamplingConfig)
@option("--licence", metavar="NAME", help="Of the networks, for the card.  [default: known ones' own]")
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path, licence: str | None, **options: Any) -> None:
    """Write networks, and how they are sampled, as FOLDER, which diffusers opens and the Hub takes."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not an empty folder: remove it, or name another")
    files, config = NetworkFiles.of(options), SamplingConfig.of(options)
    export(folder, files, config, licence)


def export(folder: Path, files: NetworkFiles, config: SamplingConfig, licence: str | None = None) -> None:
    """Write a pipeline's folder with its card, whole or not at all. It must be empty or missing."""
    from training.diffusers_pipeline import DiffusersNVPrecond, VividPipeline, VividScheduler
    from training.model_card import model_card
    from training.model_io import load_network, read_provenance, resolve_network

    if not files.net:
        raise UserError("there is no base network: give `net` a file, an address or a name")
    networks = {}
    for role, name in files.by_role.items():
        path = resolve_network(name, role)
        networks[role] = DiffusersNVPrecond.from_network(load_network(path), _public(read_provenance(path)))
    pipeline = VividPipeline(
        **networks,
        scheduler=VividScheduler.of(config, networks["net"].arguments.sigma_data),
        num_inference_steps=config.num_steps,
        guidance=config.guidance,
        guidance_interval=None if config.guidance_interval is None else list(config.guidance_interval),
        published_intrinsics=config.published_intrinsics,
        dtype=config.dtype,
    )
    licences = [licence] if licence else [MODELS[name]["licence"] for name in files.by_role.values() if name in MODELS]
    card = model_card(folder.resolve().name, networks, config, list(dict.fromkeys(licences)))
    folder = folder.resolve()
    writable_directory(folder.parent)
    temporary = folder.with_name(f".{folder.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        pipeline.save_pretrained(temporary)
        for role in networks:
            config_file, *weights = sorted((temporary / role).iterdir())
            for file in weights:  # written for nobody else to read
                file.chmod(config_file.stat().st_mode)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _public(provenance: dict[str, Any]) -> dict[str, Any]:
    """Without the folders in which the data of the training lay."""
    options = provenance.get("training_options")
    if not isinstance(options, dict):
        return provenance
    named = {key: Path(value).name for key in _FOLDERS if isinstance(value := options.get(key), str)}
    return {**provenance, "training_options": {**options, **named}}


if __name__ == "__main__":
    main()
