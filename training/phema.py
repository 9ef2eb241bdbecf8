"""Power-function EMA and its reconstruction after the fact: EDM2 section 3 and appendix C (arXiv:2312.02696).

A power-function profile p(t) = (gamma+1) t^gamma / T^(gamma+1) on [0, T] is named by its relative standard deviation,
std = sqrt((gamma+1) / ((gamma+2)^2 (gamma+3))): 0.05 is a short memory, 0.10 a long one.

python -m training.phema RUN --std=0.08 --out=FILE makes the average of any std, or of several, from the snapshots in a
run folder.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
import numpy as np

from dnnlib.cli import Command, Count, OutputFile, option
from dnnlib.util import UserError

if TYPE_CHECKING:  # torch takes seconds, which --help should not wait for
    import torch
    from torch import nn

    from training.precond import NVPrecond

_Net = TypeVar("_Net", bound="nn.Module")


def std_to_exponent(std: float) -> float:
    """gamma of a relative standard deviation: the root of gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s, s = std^-2."""
    inverse = float(std) ** -2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def ema_beta(std: float, images: float, batch: float) -> float:
    """beta = (1 - batch/images)^(gamma+1), with `images` seen after a step of `batch` images. Equation 127."""
    return (1 - batch / images) ** (std_to_exponent(std) + 1)


def profile_products(
    ofs_a: Sequence[float], std_a: Sequence[float], ofs_b: Sequence[float], std_b: Sequence[float]
) -> np.ndarray:
    """Inner products of the profiles that end at `ofs` and have `std`: float64 [A, B]. Equation 151.

    With t = min(Ta, Tb): (t/Ta)^(ga+1) (t/Tb)^(gb+1) (ga+1) (gb+1) / ((ga+gb+1) t), which does not overflow.
    """
    t_a, t_b = np.asarray(ofs_a, np.float64)[:, None], np.asarray(ofs_b, np.float64)[None, :]
    g_a = np.array([std_to_exponent(std) for std in std_a])[:, None]
    g_b = np.array([std_to_exponent(std) for std in std_b])[None, :]
    t = np.minimum(t_a, t_b)
    return (t / t_a) ** (g_a + 1) * (t / t_b) ** (g_b + 1) * (g_a + 1) * (g_b + 1) / ((g_a + g_b + 1) * t)


def reconstruction_weights(
    in_ofs: Sequence[float], in_std: Sequence[float], out_ofs: float, out_std: float
) -> np.ndarray:
    """Weights of snapshots (images seen, std) whose sum comes closest to the wanted profile: float64, sum 1.

    Least squares over functions of t: A x = b with the inner products of the profiles, in float64. Algorithm 3.
    """
    if len({*zip(in_ofs, in_std, strict=True)}) < len(in_ofs):
        raise ValueError("the same snapshot is given twice")
    a = profile_products(in_ofs, in_std, in_ofs, in_std)
    b = profile_products(in_ofs, in_std, [out_ofs], [out_std])
    x = np.linalg.solve(a, b)[:, 0]
    return x / x.sum()


def profile_error(in_ofs: Sequence[float], in_std: Sequence[float], out_ofs: float, out_std: float) -> float:
    """||p - q|| / ||p|| of the wanted profile p and the weighted sum q of those of the snapshots, in [0, 1] or so."""
    x = reconstruction_weights(in_ofs, in_std, out_ofs, out_std)
    a = profile_products(in_ofs, in_std, in_ofs, in_std)
    b = profile_products(in_ofs, in_std, [out_ofs], [out_std])[:, 0]
    (norm,) = profile_products([out_ofs], [out_std], [out_ofs], [out_std])[0]
    return float(np.sqrt(max(norm - 2 * x @ b + x @ a @ x, 0) / norm))


def reconstruct(
    states: Iterable[dict[str, torch.Tensor]], weights: Sequence[Sequence[float]]
) -> list[dict[str, torch.Tensor]]:
    """A weighted sum of state dicts for each set of weights, accumulated in float32; the states are taken once."""
    totals: list[dict[str, torch.Tensor]] = [{} for _ in weights]
    for state, *of_state in zip(states, *weights, strict=True):
        for total, weight in zip(totals, of_state, strict=True):
            for name, tensor in state.items():
                total[name] = total.get(name, 0) + tensor.float() * float(weight)
    return totals


@dataclass(frozen=True)
class Reconstruction:
    """An average of a run that was made after the fact.

    Attributes:
        std: relative standard deviation of its profile. images: seen at its end.
        snapshots: names of the files it is of. profile_error: see the function of this name.
    """

    net: NVPrecond
    std: float
    images: int
    snapshots: tuple[str, ...]
    profile_error: float

    def provenance(self) -> dict[str, Any]:
        """Where the network comes from, for its file."""
        known = {"images": self.images, "ema_std": self.std, "snapshots": list(self.snapshots)}
        return {**known, "profile_error": self.profile_error}


def reconstruct_run(folder: Path, stds: Sequence[float], images: int | None = None) -> list[Reconstruction]:
    """The averages of a run with any stds at `images` seen (default: at its last snapshot); each snapshot is read once.

    Raises UserError where the folder holds no snapshots, or none that reach there.
    """
    from training.model_io import load_network

    files = _snapshots(folder)
    last = max(seen for seen, _ in files.values())
    images = last if images is None else images
    if not 0 < images <= last:
        raise UserError(f"the snapshots in {folder} go up to {last} images: `images` must be within")
    used = {path: key for path, key in files.items() if key[0] <= images}
    if len(used) < 2:
        raise UserError(f"{folder} holds {len(used)} snapshots up to {images} images: an average takes two or more")
    in_ofs, in_std = zip(*used.values(), strict=True)
    weights = [reconstruction_weights(in_ofs, in_std, images, std).tolist() for std in stds]
    states = reconstruct((load_network(path).state_dict() for path in used), weights)
    names = tuple(path.name for path in used)
    found = []
    for std, state in zip(stds, states, strict=True):
        net = load_network(next(iter(used)))
        net.load_state_dict(state)
        found.append(Reconstruction(net, std, images, names, profile_error(in_ofs, in_std, images, std)))
    return found


def _snapshots(folder: Path) -> dict[Path, tuple[int, float]]:
    """Images seen and std of each snapshot in a folder. Raises UserError where there are none, or one comes twice."""
    from training.model_io import read_metadata

    files: dict[Path, tuple[int, float]] = {}
    for path in sorted(folder.glob("network-snapshot-*.safetensors")):
        provenance = read_metadata(path)[1]
        if not {"images", "ema_std"} <= provenance.keys():
            raise UserError(f"{path} does not tell its images seen and std: move what is no snapshot elsewhere")
        key = provenance["images"], provenance["ema_std"]
        twin = next((other.name for other, known in files.items() if known == key), None)
        if twin is not None:
            raise UserError(f"{path} is the same snapshot as {twin}: move one of them elsewhere")
        files[path] = key
    if not files:
        raise UserError(f"{folder} holds no network-snapshot-*.safetensors: name the folder of a run")
    return files


class PowerFunctionEMA(Generic[_Net]):
    """Averages of a network under several power-function profiles, float32, on the network's device.

    Attributes:
        stds: relative standard deviations; averages: a copy of the network for each.
    """

    def __init__(self, net: _Net, stds: Sequence[float] = (0.05, 0.10)) -> None:
        self.stds = tuple(stds)
        self.averages = [copy.deepcopy(net).eval().requires_grad_(False) for _ in stds]

    def update(self, net: nn.Module, images: float, batch: float) -> None:
        """After a step of `batch` images that brought the count to `images`."""
        import torch

        parameters = [parameter.detach() for parameter in net.parameters()]
        for std, average in zip(self.stds, self.averages, strict=True):
            torch._foreach_lerp_(list(average.parameters()), parameters, 1 - ema_beta(std, images, batch))

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        return {str(std): average.state_dict() for std, average in zip(self.stds, self.averages, strict=True)}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        for std, average in zip(self.stds, self.averages, strict=True):
            average.load_state_dict(state[str(std)])


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@option(
    "--std",
    "stds",
    type=click.FloatRange(0, 0.28, min_open=True),
    required=True,
    multiple=True,
    help="Relative standard deviation; may be repeated.",
)
@option(
    "--out",
    metavar="FILE",
    type=OutputFile(),
    required=True,
    help="Network file to write; with {std} in its name for several.",
)
@option("--images", type=Count(), help="Images seen at its end.  [default: those of the last snapshot]")
def main(run: Path, stds: Sequence[float], out: Path, images: int | None) -> None:
    """Make the averages of any std from the snapshots in the folder RUN."""
    from training.model_io import save_network

    files = {Path(str(out).replace("{std}", f"{std:.3f}")): std for std in dict.fromkeys(stds)}
    if len(files) < len({*stds}):
        raise UserError(
            f"--out {out} is one file for several --std: put {{std}} in its name, three digits of which tell"
        )
    for path, average in zip(files, reconstruct_run(run, list(files.values()), images), strict=True):
        save_network(path, average.net, average.provenance())
        click.echo(
            f"{path}: std {average.std:g} from {len(average.snapshots)} snapshots, "
            f"profile error {average.profile_error:.2%}"
        )


if __name__ == "__main__":
    main()
