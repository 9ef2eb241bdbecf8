"""Power-function EMA and its reconstruction after the fact: EDM2 section 3 and appendix C (arXiv:2312.02696).

A power-function profile p(t) = (gamma+1) t^gamma / T^(gamma+1) on [0, T] is named by its relative standard deviation,
std = sqrt((gamma+1) / ((gamma+2)^2 (gamma+3))): 0.05 is a short memory, 0.10 a long one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


def std_to_exponent(std: float) -> float:
    """gamma of a relative standard deviation: the root of gamma^3 + 7 gamma^2 + (16 - s) gamma + 12 - s, s = std^-2."""
    inverse = float(std) ** -2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def ema_beta(std: float, images: float, batch: float) -> float:
    """beta = (1 - batch/images)^(gamma+1), with `images` seen after a step of `batch` images. Equation 127."""
    return (1 - batch / images) ** (std_to_exponent(std) + 1)


def profile_products(ofs_a: np.ndarray, std_a: np.ndarray, ofs_b: np.ndarray, std_b: np.ndarray) -> np.ndarray:
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


def reconstruct(
    snapshots: Sequence[dict[str, torch.Tensor]],
    in_ofs: Sequence[float],
    in_std: Sequence[float],
    out_ofs: float,
    out_std: float,
) -> dict[str, torch.Tensor]:
    """Weighted sum of state dicts, accumulated in float32, with `reconstruction_weights`."""
    total: dict[str, torch.Tensor] = {}
    for weight, state in zip(reconstruction_weights(in_ofs, in_std, out_ofs, out_std), snapshots, strict=True):
        for name, tensor in state.items():
            total[name] = total.get(name, 0) + tensor.to(torch.float32) * float(weight)
    return total


class PowerFunctionEMA:
    """Averages of a network under several power-function profiles, float32, on the network's device.

    Attributes:
        stds: relative standard deviations; averages: a copy of the network for each.
    """

    def __init__(self, net: nn.Module, stds: Sequence[float] = (0.05, 0.10)) -> None:
        self.stds = tuple(stds)
        self.averages = [copy.deepcopy(net).eval().requires_grad_(False) for _ in stds]

    @torch.no_grad()
    def update(self, net: nn.Module, images: float, batch: float) -> None:
        """After a step of `batch` images that brought the count to `images`."""
        parameters = [parameter.detach() for parameter in net.parameters()]
        for std, average in zip(self.stds, self.averages, strict=True):
            torch._foreach_lerp_(list(average.parameters()), parameters, 1 - ema_beta(std, images, batch))

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        return {str(std): average.state_dict() for std, average in zip(self.stds, self.averages, strict=True)}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        for std, average in zip(self.stds, self.averages, strict=True):
            average.load_state_dict(state[str(std)])
