"""The folder for diffusers, written by the command line, and its networks read by diffusers and by ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from dnnlib.util import UserError
from tests.golden import DATA, tiny_network
from tests.hub_server import serve
from tests.scripts import ROOT, error_of, run_python, succeed
from training.model_io import load_network, network_sha256, read_provenance, resolve_network, save_network

pytest.importorskip("diffusers")

from training.diffusers_model import main
from training.diffusers_pipeline import DiffusersNVPrecond

WEIGHTS = "diffusion_pytorch_model.safetensors"
HOW = ("--guidance=1.5", "--guidance-interval", "0.1", "50", "--steps=2", "--published-intrinsics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny networks."""
    root = tmp_path_factory.mktemp("export")
    net = tiny_network(no_time_enc=True)
    net.typical_depth = 6.5
    provenance = {"images": 4096, "training_options": {"data": "/home/anna/views", "lr": 0.01}}
    save_network(root / "net.safetensors", net, provenance)
    save_network(root / "gnet.safetensors", tiny_network(uncond=True))
    save_network(root / "sr_model.safetensors", tiny_network(super_res=True, img_resolution=32))
    files = [f"--{role.replace('_', '-')}={root / role}.safetensors" for role in ("net", "gnet", "sr_model")]
    succeed(main, *files, *HOW, "--licence=cc-by-4.0", root / "folder")
    return root / "folder"


def assert_same_network(net: torch.nn.Module, other: torch.nn.Module) -> None:
    assert net.init_kwargs == other.init_kwargs
    assert net.typical_depth == other.typical_depth == 6.5
    state, reference = net.state_dict(), other.state_dict()
    assert state.keys() == reference.keys()
    assert all(torch.equal(state[name], reference[name]) for name in reference)


def test_layout(folder: Path) -> None:
    network = ("config.json", WEIGHTS)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    roles = {f"{role}/{name}" for role in ("net", "gnet", "sr_model") for name in network}
    assert files == {"README.md", "model_index.json", "scheduler/scheduler_config.json", *roles}
    assert len({path.stat().st_mode for path in folder.rglob("*") if path.is_file()}) == 1
    assert json.loads((folder / "net" / "config.json").read_text())["_class_name"] == "DiffusersNVPrecond"
    ours = load_file(folder.parent / "net.safetensors")
    assert load_file(folder / "net" / WEIGHTS).keys() == ours.keys()
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["solver"], scheduler["S_max"], scheduler["sigma_data"]) == ("heun", None, 0.5)


def test_each_network_round_trips(folder: Path, tmp_path: Path) -> None:
    """From our file to a folder, through diffusers to another folder, and back: bit by bit."""
    reference = load_network(folder.parent / "net.safetensors")
    model = DiffusersNVPrecond.from_pretrained(folder, subfolder="net")
    assert_same_network(model, reference)
    model.save_pretrained(tmp_path / "again")
    assert_same_network(load_network(tmp_path / "again"), reference)


def test_it_computes_the_same(folder: Path) -> None:
    src, dst = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    arguments = (src, dst, torch.ones(1), torch.zeros(1, 20))
    with torch.no_grad():
        ours = load_network(folder)(*arguments)
        theirs = DiffusersNVPrecond.from_pretrained(folder, subfolder="net")(*arguments)
    assert torch.equal(ours, theirs)


def test_command_lines_take_the_network_of_their_role(folder: Path) -> None:
    assert load_network(folder).img_resolution == 16
    assert load_network(resolve_network(folder, "gnet")).arguments.uncond
    assert load_network(resolve_network(folder, "sr_model")).super_res


def test_what_is_told_of_the_training_goes_along_without_where_data_lay(folder: Path) -> None:
    found = read_provenance(resolve_network(folder))
    assert (found["images"], found["training_options"]) == (4096, {"data": "views", "lr": 0.01})


def test_the_card_is_as_the_hub_reads_it(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "diffusers")
    assert "novel-view-synthesis" in card.data.tags
    assert "| `net` | base | 16×16 |" in card.text
    assert "| 4,096 |" in card.text
    assert "--steps=2 " in card.text
    assert " --guidance-interval 0.1 50.0 --published-intrinsics " in card.text


def test_the_card_of_known_networks_names_their_licence(tmp_path: Path) -> None:
    succeed(main, "--preset=vivid-tiny", tmp_path / "views")
    card = ModelCard.load(tmp_path / "views" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "gpl-2.0-or-later")


def test_the_card_has_usage_that_runs(folder: Path, tmp_path: Path) -> None:
    shutil.copy(next((ROOT / "assets" / "vivid-tiny" / "views" / "test").rglob("*.jpg")), tmp_path / "photo.jpg")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace('"folder"', repr(str(folder)))
    done = run_python("-c", f"import os\nos.chdir({str(tmp_path)!r})\n{code}", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "view.png").exists()


def test_networks_come_from_the_hub_and_only_as_safetensors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "anna" / "views"
    shutil.copytree(folder / "net", repository / "sr_model")
    shutil.copytree(folder / "net", repository, dirs_exist_ok=True)
    (repository / WEIGHTS).write_bytes((DATA / "released-layout-base.pkl").read_bytes())
    with serve(tmp_path / "hub") as hub:
        hub.use(monkeypatch, tmp_path / "cache")
        path = resolve_network("anna/views", "sr_model")
        with pytest.raises(UserError, match="damaged, or the folder of another model"):
            load_network("anna/views")
    assert_same_network(load_network(path), load_network(folder))
    assert network_sha256(path) == network_sha256(resolve_network(folder))
    # Of the two equal config.json one is enough.
    assert hub.fetched == ["sr_model/config.json", f"sr_model/{WEIGHTS}", WEIGHTS]


def test_a_folder_is_told_by_both_of_its_files(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "net", tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "typical_depth": 7}))
    assert network_sha256(resolve_network(copy)) != network_sha256(resolve_network(folder))
    (copy / "config.json").write_text(json.dumps(config, indent=1))
    assert_same_network(load_network(copy / WEIGHTS), load_network(folder))


def test_damaged_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"a folder without config.json and diffusion_pytorch_model"):
        load_network(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no")
    with pytest.raises(UserError, match="damaged, or the folder of another model"):
        load_network(tmp_path)


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    net, sr_model = (folder.parent / f"{role}.safetensors" for role in ("net", "sr_model"))
    assert "is there already, and not an empty folder" in error_of(main, f"--net={net}", folder)
    assert "is a super-resolution network" in error_of(main, f"--net={sr_model}", tmp_path / "out")
    assert "needs a guidance network" in error_of(main, f"--net={net}", "--guidance=2", tmp_path / "out")
    assert "there is no base network" in error_of(main, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
