"""Networks as diffusers keeps models: a folder with `config.json` and `diffusion_pytorch_model.safetensors`.

python -m training.diffusers_model SNAPSHOT FOLDER

`DiffusersNVPrecond.from_pretrained(FOLDER)` and `load_network(FOLDER)` read it. Needs `pip install diffusers`, to
write; `load_network` does without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from dnnlib.cli import Command
from training.model_io import load_network
from training.precond import NVPrecond


class DiffusersNVPrecond(NVPrecond, ModelMixin, ConfigMixin):
    """`NVPrecond` with `save_pretrained` and `from_pretrained`; arguments are that class's, and an attribute of it."""

    @register_to_config
    def __init__(self, init_kwargs: dict[str, Any], typical_depth: float | None = None) -> None:
        super().__init__(**init_kwargs)
        self.typical_depth = typical_depth

    @classmethod
    def from_network(cls, net: NVPrecond) -> DiffusersNVPrecond:
        """A copy of a network."""
        model = cls(net.init_kwargs, net.typical_depth)
        model.load_state_dict(net.state_dict())
        return model.eval().requires_grad_(False)


@click.command(cls=Command)
@click.argument("snapshot")
@click.argument("folder", type=click.Path(path_type=Path))
def main(snapshot: str, folder: Path) -> None:
    """Write the network SNAPSHOT (a file, an address or a preset name) as the diffusers FOLDER."""
    DiffusersNVPrecond.from_network(load_network(snapshot)).save_pretrained(folder)


if __name__ == "__main__":
    main()
