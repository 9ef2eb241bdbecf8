"""A network that was given more planes does at first what it did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.more_planes import main, with_more_planes
from tests.golden import relative_error, tiny_network
from tests.scripts import error_of
from torch_utils.cameras import Camera
from torch_utils.geometry_vector import geometry_vector
from training.model_io import load_network, save_network
from training.precond import NVPrecond


def answer(net: NVPrecond) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    view, low = torch.rand(2, 2, 3, 16, 16, generator=generator) - 0.5
    src = torch.rand(2, net.source_channels, 16, 16, generator=generator) - 0.5
    moved = torch.eye(4, dtype=torch.float64)[:3]
    moved[0, 3] = 0.1
    source, target = Camera.from_fov(60, 16, 16), Camera.from_fov(60, 16, 16, moved)
    geometry = geometry_vector(source, target, 16).expand(2, -1)
    conditioning = low if net.super_res else None
    with torch.no_grad():
        return net(src, view, torch.tensor(0.5), geometry, conditioning, randn_like=torch.zeros_like)


def test_a_matching_cost_alone_changes_nothing() -> None:
    net = tiny_network(super_res=True, plane_sweep=3)
    grown = with_more_planes(net, 0, matching=True).eval()
    assert grown.arguments.plane_matching
    torch.testing.assert_close(answer(grown), answer(net), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"super_res": True, "plane_matching": True}, {"depth_input": True, "epipolar_attention_bias": True}]
)
def test_old_planes_stay_and_count_as_they_did(options: dict) -> None:
    net = tiny_network(plane_sweep=3, **options)
    with torch.no_grad():
        net.get_parameter("blend_gain").zero_()  # all planes alike: of small movements all means are nearly one
    grown = with_more_planes(net, 2, matching=False).eval()
    assert grown.arguments.plane_sweep == 7
    assert relative_error(answer(grown), answer(net)) < 0.05


def test_planes_lie_between_planes() -> None:
    net = tiny_network(plane_sweep=4)
    (before,), (after,) = (n.encodings.parts for n in (net, with_more_planes(net, 1, matching=False)))
    with torch.no_grad():
        torch.testing.assert_close(after.inverse_depths()[::2], before.inverse_depths())


def test_the_command_line_writes_what_training_takes_up(tmp_path: Path) -> None:
    save_network(tmp_path / "net.safetensors", tiny_network(super_res=True, plane_sweep=2))
    arguments = [f"--net={tmp_path / 'net.safetensors'}", "--matching", f"--out={tmp_path / 'grown.safetensors'}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert load_network(tmp_path / "grown.safetensors").arguments.plane_sweep == 3
    save_network(tmp_path / "net.safetensors", tiny_network())
    assert "Error: the network has no plane sweep" in error_of(main, *arguments)
