"""The card of an exported folder: front matter that the Hub reads, what its networks are, how to use them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCardData

from dnnlib.util import one_line
from training.sampling_config import DEFAULTS, Role, SamplingConfig

if TYPE_CHECKING:
    from training.diffusers_pipeline import DiffusersNVPrecond

# Of the Hub's own names for licences, those that networks are likely to have; any other goes by its own name.
_HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "gpl-2.0", "gpl-3.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
_ROLES: dict[Role, str] = {"net": "base", "gnet": "guidance", "sr_model": "super-resolution"}
_TAGS = ["novel-view-synthesis", "diffusion", "vivid", "arxiv:2411.07765"]

_TEMPLATE = Path(__file__).with_suffix(".md")


def model_card(
    name: str, networks: Mapping[Role, DiffusersNVPrecond], config: SamplingConfig, licences: Sequence[str]
) -> str:
    """The text of README.md.

    Args:
        name: of the folder; networks: what is in it; config: how they are sampled.
        licences: of the networks, in words or as SPDX has them; none: not known.
    """
    depth = networks["net"].typical_depth
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        front_matter=_front_matter(licences),
        name=name,
        rows="\n".join(_row(role, net) for role, net in networks.items()),
        licence="; ".join(licences) or "not stated",
        options=" ".join([*(f"--{role.replace('_', '-')}={name}" for role in networks), *_options(config)]),
        unit=f"; there, the median depth of a view is {depth:.3g}" if depth else "",
    )


def _front_matter(licences: Sequence[str]) -> str:
    names = [licence.lower() for licence in licences]
    data: dict[str, Any] = {"license": names[0] if len(names) == 1 else "other" if names else "unknown"}
    if data["license"] not in (*_HUB_LICENCES, "unknown"):
        data = {"license": "other", "license_name": "-".join(re.findall(r"[a-z0-9.]+", " ".join(names)))}
    return ModelCardData(**data, library_name="diffusers", pipeline_tag="image-to-image", tags=_TAGS).to_yaml()


def _row(role: Role, net: DiffusersNVPrecond) -> str:
    images = (net.config["provenance"] or {}).get("images")
    seen = f"{images:,}" if isinstance(images, int) else "not stated"
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return f"| `{role}` | {_ROLES[role]} | {net.img_resolution}×{net.img_resolution} | {parameters:,} | {seen} |"


def _options(config: SamplingConfig) -> list[str]:
    """The options of the command lines that set what is not the default."""
    options = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = field.metadata["option"] or f"--{field.name.replace('_', '-')}"
        if value == getattr(DEFAULTS, field.name):
            continue
        if isinstance(value, bool):
            options.append(name.split("/")[not value])
        else:
            values = value if isinstance(value, tuple) else (value,)
            options.append(f"{name} {' '.join(map(str, values))}" if len(values) > 1 else f"{name}={value}")
    return [one_line(text) for text in options]
