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
    from dnnlib.page import Send, Studio
    from training.generation import NovelViewSampler

PAGE = "Page"
DOWNLOADS = ("video.mp4", "video.gif", "trajectory.json")
LOCAL = ("127.0.0.1", "localhost")
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
    import socket
    from tempfile import TemporaryDirectory

    from dnnlib.page import create_app
    from dnnlib.util import UserError
    from torch_utils.distributed import best_device
    from training.generation import open_sampler

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it would tell every request
    sampler, _ = open_sampler(NetworkFiles.of(options), SamplingConfig.of(options), options["device"] or best_device())
    host = options["host"]
    if host not in LOCAL:
        click.echo(
            f"Anyone who reaches {host} can use the page and see its pictures: it asks for no password.", err=True
        )
    try:
        listener = socket.create_server((host, options["port"]))
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {options['port']}: {error.strerror}; try --port 0") from None
    with listener, TemporaryDirectory(prefix="view_images-") as folder:
        app = create_app(studio(sampler, Path(folder)), list(LOCAL) if host in LOCAL else None)
        from werkzeug.serving import make_server

        port = listener.getsockname()[1]
        server = make_server(host, port, app, threaded=True, fd=listener.fileno())
        click.echo(f"Open http://{host}:{port} in a browser; Ctrl+C ends.")
        server.serve_forever()


def studio(sampler: NovelViewSampler, folder: Path) -> Studio:
    """The page's photographs and renderings, made by `sampler`."""
    from datasets.path_config import ViewPath
    from datasets.trajectories import PATHS, Move, plan_path, unit_of_paths
    from datasets.user_image import read_photograph
    from dnnlib.imaging import save_png
    from dnnlib.page import Studio
    from dnnlib.util import UserError
    from metrics.neighbours import NeighbourReport
    from training.path_config import RenderConfig
    from training.trajectory import PathFolder, PathRenderer, evaluations, photograph_with_crop, watch_evaluations

    typical_depth = sampler.net.typical_depth

    def open_photograph(file: Path) -> dict[str, Any]:
        photograph = read_photograph(file)
        save_png(file.with_name("preview.png"), photograph_with_crop(photograph.view, 512, 512))
        save_png(file.with_name("square.png"), photograph.view.square(512).image.permute(1, 2, 0).numpy())
        return {"fov": round(photograph.fov_deg, 1), "fov_from": photograph.fov_from}

    def render(file: Path, request: dict[str, Any], folder: Path, send: Send) -> None:
        try:
            photograph = read_photograph(file, request.get("fov"))
            if "move" in request:
                move, unit = Move(**request["move"]), request["scene_scale"] * unit_of_paths(typical_depth)
                cameras = [move.camera(photograph.view.camera, unit)]
            else:
                path = request["path"]
                if "text" in request:
                    path = folder / f"path{Path(request['path']).suffix}"
                    path.write_text(request["text"])
                wanted = (request.get(name) for name in ("frames", "amount", "scene_scale", "convention", "pose"))
                photograph, cameras = plan_path(photograph, str(path), *wanted, typical_depth)
            config = RenderConfig(condition=request["condition"])
            renderer = PathRenderer(sampler, ViewPath(photograph, cameras), config, [request["seed"]], batch_size=1)
        except (KeyError, TypeError) as error:
            raise UserError(f"the page asked for something unknown ({error})") from None
        report, done, total = NeighbourReport(), 0, evaluations(renderer)

        def tick() -> None:
            nonlocal done
            done += 1
            send({"progress": min(done / total, 1)})

        with watch_evaluations(sampler, tick):
            for frame in PathFolder(folder).write(renderer, [report]):
                send({"frame": frame.name})
        send({"report": str(report), "files": [name for name in DOWNLOADS if (folder / name).exists()]})

    paths = {name: {"amount": path.amount, "unit": path.unit} for name, path in PATHS.items()}
    return Studio(folder, open_photograph, render, paths)


if __name__ == "__main__":
    main()
