"""Power-function averages against golden vectors, integrals, and averages by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dnnlib.util import UserError
from tests.golden import TINY, vectors
from training import phema
from training.model_io import load_network, read_metadata, save_network
from training.phema import PowerFunctionEMA
from training.precond import NVPrecond

STDS = (0.05, 0.10)


def brute_force(history: dict[int, torch.Tensor], std: float) -> torch.Tensor:
    """Integral of the power profile over the values, each of which holds since the one before. float64."""
    power, end = phema.std_to_exponent(std) + 1, max(history)
    total, before = torch.zeros(()), 0
    for images, value in history.items():
        total = total + ((images / end) ** power - (before / end) ** power) * value.double()
        before = images
    return total


def walk(shape: tuple[int, ...] = (50,), steps: int = 64, batch: int = 4) -> dict[int, torch.Tensor]:
    """Random steps on the way from one place to another."""
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(steps, *shape, generator=generator) / steps**0.5 + torch.randn(shape, generator=generator) / 32
    return dict(zip(range(batch, batch * steps + 1, batch), moves.cumsum(0), strict=True))


def test_golden() -> None:
    golden = vectors()["phema"]
    for std, exponent in golden["std_to_exp"].items():
        assert phema.std_to_exponent(float(std)) == pytest.approx(exponent, rel=1e-12)
    for std, images, batch, beta in golden["beta"]:
        assert phema.ema_beta(std, images, batch) == pytest.approx(beta, rel=1e-12)
    posthoc = dict(golden["posthoc"])
    expected = posthoc.pop("coeff")
    np.testing.assert_allclose(phema.reconstruction_weights(**posthoc), expected, rtol=1e-7, atol=1e-10)


@given(std=st.floats(0.02, 0.28))
def test_exponent_gives_the_std_back(std: float) -> None:
    gamma = phema.std_to_exponent(std)
    assert ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5 == pytest.approx(std, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(ofs=st.tuples(st.floats(1, 9), st.floats(1, 9)), std=st.tuples(st.floats(0.04, 0.25), st.floats(0.04, 0.25)))
def test_inner_products_are_integrals(ofs: tuple[float, float], std: tuple[float, float]) -> None:
    t = (np.arange(200_000) + 0.5) / 200_000 * min(ofs)
    (g_a, g_b), (t_a, t_b) = map(phema.std_to_exponent, std), ofs
    profiles = (g_a + 1) * (t / t_a) ** g_a / t_a * (g_b + 1) * (t / t_b) ** g_b / t_b
    product = phema.profile_products([t_a], [std[0]], [t_b], [std[1]])[0, 0]
    assert product == pytest.approx(profiles.sum() * min(ofs) / len(t), rel=1e-5)


@pytest.mark.parametrize("std", STDS)
def test_tracked_average_is_the_integral(std: float) -> None:
    net, history = nn.Linear(50, 1, bias=False), walk((1, 50))
    ema = PowerFunctionEMA(net, [std])
    for images, value in history.items():
        net.weight.data.copy_(value)
        ema.update(net, images, 4)
    torch.testing.assert_close(ema.averages[0].weight.double(), brute_force(history, std), rtol=1e-5, atol=1e-6)


def snapshots(history: dict[int, torch.Tensor], every: int = 32) -> tuple[list, list, list]:
    """(averages, images seen, std) every so many images, by brute force."""
    keys = [(images, std) for images in history if images % every == 0 for std in STDS]
    states = [
        {"weight": brute_force({n: value for n, value in history.items() if n <= images}, std)} for images, std in keys
    ]
    return states, [images for images, _ in keys], [std for _, std in keys]


@pytest.mark.parametrize(("std", "tolerance"), [(0.05, 1e-6), (0.08, 0.02), (0.10, 1e-6), (0.15, 0.05)])
def test_reconstruction_comes_close_to_brute_force(std: float, tolerance: float) -> None:
    """Relative to how far apart the averages of short and long memory are."""
    history = walk()
    states, ofs, stds = snapshots(history)
    weights = phema.reconstruction_weights(ofs, stds, 256, std)
    (found,) = phema.reconstruct(states, [weights])
    error = found["weight"] - brute_force(history, std)
    scale = brute_force(history, 0.05) - brute_force(history, 0.20)
    assert error.norm() / scale.norm() < tolerance


def test_sums_are_float32_whatever_the_snapshots_are() -> None:
    """2048 + 1 is lost in float16."""
    states = [{"weight": torch.tensor([2048.0]).half()}, {"weight": torch.tensor([1.0]).half()}]
    (found,) = phema.reconstruct(states, [[1.0, 1.0]])
    total = found["weight"]
    assert total.dtype == torch.float32
    assert total.item() == 2049


def test_profile_error_is_that_of_the_integral() -> None:
    ofs, stds = [8, 8, 16, 16], [0.05, 0.10] * 2
    t = (np.arange(100_000) + 0.5) / 100_000 * 16

    def profile(end: float, std: float) -> np.ndarray:
        gamma = phema.std_to_exponent(std)
        return np.where(t <= end, (gamma + 1) * np.minimum(t / end, 1) ** gamma / end, 0)

    weights = phema.reconstruction_weights(ofs, stds, 16, 0.15)
    wanted, got = profile(16, 0.15), sum(w * profile(*key) for w, key in zip(weights, zip(ofs, stds)))  # noqa: B905
    expected = np.linalg.norm(wanted - got) / np.linalg.norm(wanted)
    assert phema.profile_error(ofs, stds, 16, 0.15) == pytest.approx(expected, rel=1e-3)


def std_of(gamma: int) -> float:
    return ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5


def test_profile_errors_in_closed_form() -> None:
    """On [0, 1], 2t, 3t^2 and 4t^3: 3t^2 for 2t is off by sqrt(1/10); 12/13 t + 28/13 t^3 for 3t^2 by sqrt(1/507)."""
    alone = [1], [std_of(2)]
    np.testing.assert_allclose(phema.reconstruction_weights(*alone, 1, std_of(1)), [1])
    assert phema.profile_error(*alone, 1, std_of(1)) == pytest.approx(0.1**0.5, rel=1e-9)
    both = [1, 1], [std_of(1), std_of(3)]
    np.testing.assert_allclose(phema.reconstruction_weights(*both, 1, std_of(2)), [6 / 13, 7 / 13], rtol=1e-9)
    assert phema.profile_error(*both, 1, std_of(2)) == pytest.approx(507**-0.5, rel=1e-9)


def test_several_sums_take_the_states_once() -> None:
    states = iter([{"weight": torch.tensor([1.0])}, {"weight": torch.tensor([10.0])}])
    first, second = phema.reconstruct(states, [[0.25, 0.75], [2.0, -1.0]])
    assert (first["weight"].item(), second["weight"].item()) == (7.75, -8)


def test_the_same_snapshot_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        phema.reconstruction_weights([8, 8], [0.05, 0.05], 8, 0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, torch.Tensor]]:
    """Snapshots of a network one of whose weights takes a walk, and the walk."""
    folder = tmp_path_factory.mktemp("run")
    net, history = NVPrecond(**TINY), walk((8, 4, 3, 3))
    ema = PowerFunctionEMA(net, STDS)
    for images, value in history.items():
        net.unet.enc["16x16_conv"].weight.data.copy_(value)
        ema.update(net, images, 4)
        if images % 32 == 0:
            for std, average in zip(STDS, ema.averages, strict=True):
                path = folder / f"network-snapshot-{images:011.3f}-{std:.3f}.safetensors"
                save_network(path, average, {"images": images, "ema_std": std}, torch.float16)
    return folder, history


@pytest.mark.parametrize("images", [256, 192])
def test_command_line(run: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str], images: int) -> None:
    folder, history = run
    out = tmp_path / "average.safetensors"
    with pytest.raises(SystemExit) as exit_status:
        phema.main([str(folder), "--std=0.08", f"--out={out}", f"--images={images}"])
    assert not exit_status.value.code
    assert f"from {2 * images // 32} snapshots" in capsys.readouterr().out
    weight = load_network(out).unet.enc["16x16_conv"].weight
    expected = brute_force({n: value for n, value in history.items() if n <= images}, 0.08)
    assert (weight - expected).norm() / expected.norm() < 0.01  # float16 snapshots among it


def test_several_stds_in_one_go(run: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each as by brute force, and each with the error of its profile."""
    folder, history = run
    stds = (0.05, 0.08, 0.15)
    with pytest.raises(SystemExit) as exit_status:
        phema.main([str(folder), *(f"--std={std}" for std in stds), f"--out={tmp_path}/average-{{std}}.safetensors"])
    assert not exit_status.value.code
    lines = capsys.readouterr().out.splitlines()
    ofs, tracked = zip(*((images, std) for images in range(32, 257, 32) for std in STDS), strict=True)
    for std, line in zip(stds, lines, strict=True):
        path = tmp_path / f"average-{std:.3f}.safetensors"
        error = phema.profile_error(ofs, tracked, 256, std)
        assert line == f"{path}: std {std} from 16 snapshots, profile error {error:.2%}"
        assert read_metadata(path)[1]["profile_error"] == pytest.approx(error)
        weight, expected = load_network(path).unet.enc["16x16_conv"].weight, brute_force(history, std)
        assert (weight - expected).norm() / expected.norm() < 0.02  # float16 snapshots among it


def test_several_stds_do_not_fit_one_file(
    run: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for second, out in (("0.1", "one.safetensors"), ("0.0801", "{std}.safetensors")):
        with pytest.raises(SystemExit) as exit_status:
            phema.main([str(run[0]), "--std=0.08", f"--std={second}", f"--out={tmp_path / out}"])
        assert exit_status.value.code == 2
        assert "one file for several --std" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("provenance", [{"images": 32, "ema_std": 0.05}, {"images": 32}, {}])
def test_what_is_no_snapshot_of_the_run_is_refused(run: tuple[Path, dict], tmp_path: Path, provenance: dict) -> None:
    """A copy of one, or another network under such a name."""
    for path in run[0].iterdir():
        (tmp_path / path.name).symlink_to(path)
    save_network(tmp_path / "network-snapshot-copy.safetensors", NVPrecond(**TINY), provenance)
    with pytest.raises(UserError, match="elsewhere"):
        phema.reconstruct_run(tmp_path, [0.08])


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--images=257"], "go up to 256"), (["--images=20"], "holds 0 snapshots")]
)
def test_what_cannot_be_reconstructed_is_said(
    run: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exit_status:
        phema.main([str(run[0]), "--std=0.08", f"--out={tmp_path / 'new'}", *arguments])
    assert exit_status.value.code == 2
    assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no network-snapshot"):
        phema.reconstruct_run(tmp_path, [0.08])
