"""The diffusers folder, written and read by diffusers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dnnlib.util import UserError
from tests.golden import DATA, TINY
from tests.hub_server import serve
from training.model_io import load_network, network_sha256, resolve_network, save_network
from training.precond import NVPrecond


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the command line from one of our files."""
    pytest.importorskip("diffusers")
    from training.diffusers_model import main

    root = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    net = NVPrecond(**TINY, no_time_enc=True)
    net.typical_depth = 6.5
    save_network(root / "net.safetensors", net)
    with pytest.raises(SystemExit) as exit_status:
        main([str(root / "net.safetensors"), str(root / "folder")])
    assert not exit_status.value.code
    return root / "folder"


def assert_same_network(net: torch.nn.Module, other: torch.nn.Module) -> None:
    assert net.init_kwargs == other.init_kwargs
    assert net.typical_depth == other.typical_depth == 6.5
    state, reference = net.state_dict(), other.state_dict()
    assert state.keys() == reference.keys()
    assert all(torch.equal(state[name], reference[name]) for name in reference)


def test_layout(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert json.loads((folder / "config.json").read_text())["_class_name"] == "DiffusersNVPrecond"
    ours = load_file(folder.parent / "net.safetensors")
    assert load_file(folder / "diffusion_pytorch_model.safetensors").keys() == ours.keys()


def test_round_trips(folder: Path, tmp_path: Path) -> None:
    """From our file to a folder, through diffusers to another folder, and back: bit by bit."""
    from training.diffusers_model import DiffusersNVPrecond

    reference = load_network(folder.parent / "net.safetensors")
    model = DiffusersNVPrecond.from_pretrained(folder)
    assert_same_network(model, reference)
    model.save_pretrained(tmp_path / "again")
    assert_same_network(load_network(tmp_path / "again"), reference)


def test_it_computes_the_same(folder: Path) -> None:
    from training.diffusers_model import DiffusersNVPrecond

    src, dst = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    arguments = (src, dst, torch.ones(1), torch.zeros(1, 20))
    with torch.no_grad():
        ours = load_network(folder)(*arguments)
        theirs = DiffusersNVPrecond.from_pretrained(folder)(*arguments)
    assert torch.equal(ours, theirs)


def test_networks_come_from_the_hub_and_only_as_safetensors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "anna" / "views"
    shutil.copytree(folder, repository / "sr_model")
    shutil.copytree(folder, repository, dirs_exist_ok=True)
    (repository / "diffusion_pytorch_model.safetensors").write_bytes((DATA / "released-layout-base.pkl").read_bytes())
    with serve(tmp_path / "hub") as hub:
        hub.use(monkeypatch, tmp_path / "cache")
        path = resolve_network("anna/views", "sr_model")
        with pytest.raises(UserError, match="damaged, or the folder of another model"):
            load_network("anna/views")
    assert_same_network(load_network(path), load_network(folder))
    assert network_sha256(path) == network_sha256(resolve_network(folder))
    weights = "diffusion_pytorch_model.safetensors"  # of the two equal config.json one is enough
    assert hub.fetched == ["sr_model/config.json", f"sr_model/{weights}", weights]


def test_a_folder_is_told_by_both_of_its_files(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "typical_depth": 7}))
    assert network_sha256(resolve_network(copy)) != network_sha256(resolve_network(folder))
    (copy / "config.json").write_text(json.dumps(config, indent=1))
    assert_same_network(load_network(copy / "diffusion_pytorch_model.safetensors"), load_network(folder))


def test_damaged_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"a folder without config.json and diffusion_pytorch_model"):
        load_network(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged, or the folder of another model"):
        load_network(tmp_path)
