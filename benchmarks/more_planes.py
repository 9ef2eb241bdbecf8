"""A network with a plane sweep becomes one with more planes, to train on from what it knows.

    python -m benchmarks.more_planes --net=vivid-tiny-sr --between=1 --out=runs/sr29.safetensors
    python train_nvs.py --preset=vivid-tiny-sr --init=runs/sr29.safetensors --plane-sweep=29 --data=DIR

Between each two of the P planes come `--between` new ones. The old planes lie where they lay and count as they did; the
denoiser does not look at the new ones yet, nor at `--matching`, and chooses them as it chooses their neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch

from dnnlib.cli import Command
from dnnlib.util import UserError
from training.encodings import PlaneSweep
from training.model_io import load_network, save_network
from training.precond import NVPrecond

_OUTPUT = "unet.out_conv.weight"


@torch.no_grad()
def with_more_planes(net: NVPrecond, between: int, matching: bool) -> NVPrecond:
    """A new network with (between + 1) (P - 1) + 1 planes. Raises UserError where it has none."""
    old, step = net.arguments, between + 1
    if not old.plane_sweep:
        raise UserError("the network has no plane sweep: name one that has")
    planes = step * (old.plane_sweep - 1) + 1
    grown = NVPrecond(**replace(old, plane_sweep=planes, plane_matching=matching or old.plane_matching).to_dict())
    name = f"unet.enc.{old.img_resolution}x{old.img_resolution}_conv.weight"
    state, channels = net.state_dict(), grown.state_dict()[name].shape[1]
    state[name] = _at(_input_places(net, grown, step, channels), state[name], channels)
    state[_OUTPUT] = torch.cat([state[_OUTPUT][: old.img_channels], _between(state[_OUTPUT][old.img_channels :], step)])
    grown.load_state_dict(state)
    grown.typical_depth = net.typical_depth
    return grown


def _input_places(net: NVPrecond, grown: NVPrecond, step: int, channels: int) -> torch.Tensor:
    """Which of the input channels of the grown denoiser are the old ones, in their order."""
    (old,), (new,) = ([part for part in of.encodings.parts if isinstance(part, PlaneSweep)] for of in (net, grown))
    parts = grown.encodings.parts
    before = net.arguments.img_channels + sum(part.input_channels for part in parts[: parts.index(new)])
    # A matching cost that is new comes last, behind as many channels as there were.
    kept = [place for place, plane in enumerate(new.plane_of_channel()) if plane % step == 0][: old.input_channels]
    after = torch.arange(before + new.input_channels, channels)
    return torch.cat([torch.arange(before), before + torch.tensor(kept), after])


def _at(places: torch.Tensor, weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The weight with zeros for all other input channels: its rows keep their length, so what it does stays."""
    wide = weight.new_zeros(len(weight), channels, *weight.shape[2:])
    wide[:, places] = weight
    return wide


def _between(rows: torch.Tensor, step: int) -> torch.Tensor:
    """Rows [P, ...] with others between them, of which each is as near to its neighbours as its place."""
    position = torch.arange(step * (len(rows) - 1) + 1) / step
    low = position.floor().long().clamp(max=max(len(rows) - 2, 0))
    high = (low + 1).clamp(max=len(rows) - 1)
    share = (position - low).reshape(-1, *[1] * (rows.ndim - 1)).to(rows)
    return torch.lerp(rows[low], rows[high], share)


@click.command(cls=Command)
@click.option("--net", required=True, help="File or name.")
@click.option("--between", type=click.IntRange(min=0), default=1, show_default=True, help="New planes between two.")
@click.option("--matching", is_flag=True, help="Add the matching cost of super-resolution.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
def main(net: str, between: int, matching: bool, out: Path) -> None:
    """Write NET with more planes."""
    grown = with_more_planes(load_network(net), between, matching)
    save_network(out, grown, {"more planes for": Path(net).name})
    click.echo(f"{out}: {grown.arguments.plane_sweep} planes")


if __name__ == "__main__":
    main()
