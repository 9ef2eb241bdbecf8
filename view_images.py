"""A web page to look around in a photograph: drop one, turn or move the camera, see the view."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datasets.config import DataConfig
from dnnlib.cli import Command, option, preset_option, settings_options
from presets import SAMPLING
from training.sampling_config import NETWORKS, NetworkFiles, SamplingConfig

if TYPE_CHECKING:
    import socket

PAGE = "Page"
LOCAL = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
# The page has photographs of its own: what a preset says of data does not concern it.
_DATA = {field.name for field in fields(DataConfig)}
PRESETS = {name: {key: preset[key] for key in preset if key not in _DATA} for name, preset in SAMPLING.items()}


@click.command(cls=Command)
@preset_option(PRESETS, section=NETWORKS)
@settings_options(NetworkFiles)
@settings_options(SamplingConfig)
@option("--device", section=PAGE, help="cpu, cuda, cuda:N or mps.  [default: the best present]", show_default=False)
@option("--host", section=PAGE, default="127.0.0.1", help="Address to listen at; the default is for this machine only.")
@option("--port", section=PAGE, type=click.IntRange(0, 65535), default=8000, help="Port; 0 takes a free one.")
def main(**options: Any) -> None:
    """Show a web page on which one looks around in one's own photographs.

    \b
    python view_images.py --preset=vivid-tiny
    """
    import logging
    import secrets
    from tempfile import TemporaryDirectory

    from dnnlib.page import Studio, create_app, serve, stop_signal
    from metrics.neighbours import NeighbourReport
    from torch_utils.distributed import best_device
    from training.generation import open_sampler
    from training.viewer import PageRenderer

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    device = options["device"] or best_device()
    sampler, _ = open_sampler(NetworkFiles.of(options), SamplingConfig.of(options), device)
    host, token = options["host"], secrets.token_urlsafe(16)
    if host not in LOCAL:
        click.echo(
            f"Anyone who reaches {host} and knows the address can use the page; it is not encrypted on the way.",
            err=True,
        )
    with (
        stop_signal() as wait,
        listen(host, options["port"]) as listener,
        TemporaryDirectory(prefix="view_images-") as folder,
    ):
        studio = Studio(Path(folder), PageRenderer(sampler, NeighbourReport))
        app = create_app(studio, token, [*LOCAL, "[::1]"] if host in LOCAL else None)
        with serve(app, studio, listener):
            click.echo(f"Open {address(host, listener.getsockname()[1])}/{token}/ in a browser; Ctrl+C ends.")
            wait()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError where there can be none."""
    import socket

    from dnnlib.util import UserError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {port}: {error.strerror}; try --port 0") from None


def address(host: str, port: int) -> str:
    """How a browser on this machine asks for the page."""
    name = "localhost" if host in EVERYWHERE else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


if __name__ == "__main__":
    main()
