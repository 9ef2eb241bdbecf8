"""`VividPipeline` opened, saved and run by diffusers, against the sampler and the command line."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generate_images
from datasets.realestate10k import RealEstate10K
from dnnlib.text_files import read_json
from dnnlib.util import UserError
from tests.golden import tiny_network
from tests.hub_server import serve
from tests.scripts import ROOT, run_python, succeed
from torch_utils.batches import Pair
from torch_utils.cameras import Camera, View, pixels_to_uint8
from torch_utils.random import SeededGenerators
from training.generation import NovelViewSampler, open_sampler
from training.sampling_config import NetworkFiles, SamplingConfig

pytest.importorskip("diffusers")

import diffusers

from training import diffusers_model
from training.diffusers_pipeline import DiffusersNVPrecond, VividPipeline, VividScheduler

VIEWS = ROOT / "assets" / "vivid-tiny" / "views"
SEEDS = (0, 5)
OPTIONS = {"net": {}, "gnet": {"uncond": True}, "sr_model": {"super_res": True, "img_resolution": 32}}
SOLVER = {"sigma_min": 1.0, "S_churn": 5.0, "sr_num_steps": 1, "sr_solver": "euler", "sr_sigma_min": 2.0}
FEW = {"num_inference_steps": 4, "dtype": "float32"}


def seeded() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def as_diffusers_has_it(pair: Pair) -> tuple[Image.Image, Camera, Camera]:
    return Image.fromarray(pair.source.image.permute(1, 2, 0).numpy()), pair.source.camera, pair.target.camera


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    dataset = RealEstate10K(VIEWS, "test", "12-33", resolution=None)
    return [dataset[seed] for seed in SEEDS]


@pytest.fixture(scope="module")
def tiny() -> VividPipeline:
    """Three tiny networks, guidance, and two steps of Heun."""
    networks = {role: DiffusersNVPrecond.from_network(tiny_network(**some)) for role, some in OPTIONS.items()}
    pipe = VividPipeline(
        **networks,
        scheduler=VividScheduler(**SOLVER),
        num_inference_steps=2,
        guidance=1.5,
        guidance_interval=[0.1, 90.0],
        dtype="float32",
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def reference(pairs: list[Pair]) -> torch.Tensor:
    """What our sampler makes of the same networks."""
    networks = {role: tiny_network(**some).freeze(torch.float32) for role, some in OPTIONS.items()}
    config = SamplingConfig(guidance=1.5, guidance_interval=(0.1, 90.0), num_steps=2, **SOLVER)
    return sample(NovelViewSampler(**networks, config=config), pairs)


def sample(sampler: NovelViewSampler, pairs: list[Pair]) -> torch.Tensor:
    sources, targets = [pair.source for pair in pairs], [pair.target.camera for pair in pairs]
    return sampler.sample(sources, targets, SeededGenerators(SEEDS))


def run(pipe: VividPipeline, pairs: list[Pair], **how: object) -> torch.Tensor:
    images, sources, targets = zip(*map(as_diffusers_has_it, pairs), strict=True)
    return pipe(images, sources, targets, generator=seeded(), **{"output_type": "pt", **how}).images


def test_images_are_the_samplers(tiny: VividPipeline, pairs: list[Pair], reference: torch.Tensor) -> None:
    images = run(tiny, pairs)
    assert (2 * images - 1 - reference.clip(-1, 1)).abs().max() < 1e-4
    assert (torch.from_numpy(run(tiny, pairs, output_type="np")).permute(0, 3, 1, 2) == images).all()
    pictures = [np.asarray(picture) for picture in run(tiny, pairs, output_type="pil")]
    assert np.abs(np.stack(pictures) - pixels_to_uint8(reference).permute(0, 2, 3, 1).numpy().astype(int)).max() <= 1


def test_networks_stay_as_they_were_trained(tiny: VividPipeline, pairs: list[Pair]) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.net.state_dict().items()}
    run(tiny, pairs)
    assert not tiny.net.frozen
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.net.state_dict().items())


def test_save_pretrained_round_trips(
    tiny: VividPipeline, pairs: list[Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.save_pretrained(tmp_path / "one")
    with caplog.at_level(logging.WARNING):
        again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "one")
    assert not caplog.records
    assert type(again) is VividPipeline
    again.set_progress_bar_config(disable=True)
    assert torch.equal(run(again, pairs), run(tiny, pairs))
    again.save_pretrained(tmp_path / "two")
    for file in [path for path in (tmp_path / "one").rglob("*") if path.is_file()]:
        other = tmp_path / "two" / file.relative_to(tmp_path / "one")
        if file.suffix == ".json":
            assert {**read_json(other), "_name_or_path": ""} == {**read_json(file), "_name_or_path": ""}
        else:
            assert file.read_bytes() == other.read_bytes()
    with_less = VividPipeline.from_pretrained(tmp_path / "one", sr_model=None)
    assert with_less.sr_model is None


def test_nothing_but_the_import_is_needed(tiny: VividPipeline, tmp_path: Path) -> None:
    """Without it, diffusers knows no such class, and says so; no code is run that the folder brings."""
    tiny.save_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "pipeline.py").write_text("raise SystemExit('code of the folder was run')")
    code = "import diffusers{}; print(type(diffusers.DiffusionPipeline.from_pretrained({!r})).__name__)"
    with_it = run_python("-c", code.format(", training.diffusers_pipeline", str(tmp_path / "folder")))
    assert with_it.stdout == "VividPipeline\n", with_it.stderr
    without = run_python("-c", code.format("", str(tmp_path / "folder")))
    assert "has no attribute VividPipeline" in without.stderr


@pytest.mark.parametrize(
    ("name", "solver"), [("EDMEulerScheduler", "euler"), ("EDMDPMSolverMultistepScheduler", "dpmpp_2m")]
)
@pytest.mark.parametrize("sigma_data", [0.5, 0.1])
def test_schedulers_of_diffusers_can_be_put_in(
    name: str,
    solver: str,
    sigma_data: float,
    tiny: VividPipeline,
    pairs: list[Pair],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Noise levels of theirs are float32: 1e-4 is asked for."""
    scheduler = VividScheduler(solver=solver, sigma_min=0.5, sigma_max=40.0, sigma_data=sigma_data)
    VividPipeline(**{**tiny.components, "scheduler": scheduler}, guidance=1.5, **FEW).save_pretrained(tmp_path)
    ours, theirs = VividPipeline.from_pretrained(tmp_path), VividPipeline.from_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        theirs.scheduler = getattr(diffusers, name).from_config(theirs.scheduler.config)
    assert not caplog.records
    for pipe in (ours, theirs):
        pipe.set_progress_bar_config(disable=True)
    assert theirs.scheduler.config.sigma_data == sigma_data
    assert theirs.scheduler.config.sigma_max == 40.0
    difference = (run(theirs, pairs) - run(ours, pairs)).abs().max()
    assert 0 < difference < 1e-4


def test_number_of_steps_and_guidance_are_asked_for(tiny: VividPipeline, pairs: list[Pair]) -> None:
    few = run(tiny, pairs, num_inference_steps=1, guidance_scale=1.0)
    config = SamplingConfig(num_steps=1, **SOLVER)
    made = sample(NovelViewSampler(tiny.net, None, tiny.sr_model, config), pairs)
    assert (2 * few - 1 - made.clip(-1, 1)).abs().max() < 1e-4


def test_one_photograph_serves_several_targets(tiny: VividPipeline, pairs: list[Pair]) -> None:
    image, source, target = as_diffusers_has_it(pairs[0])
    (several,) = tiny(image, source, [source, target], generator=seeded(), output_type="pt", return_dict=False)
    alone = tiny(image, source, target, generator=seeded()[1], output_type="pt").images
    assert (several[1:] - alone).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore:.*torch_dtype:FutureWarning")  # what the oldest diffusers knows `dtype` as
def test_half_precision_is_what_it_computes_in(
    tiny: VividPipeline, pairs: list[Pair], reference: torch.Tensor, tmp_path: Path
) -> None:
    """Frequencies stay float32, or their rounding would be all that one sees."""
    tiny.save_pretrained(tmp_path)
    half = VividPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    assert half.net.dtype == torch.bfloat16
    assert torch.equal(half.net.logvar_fourier.freqs, tiny.net.logvar_fourier.freqs)
    assert half._sampler(half._sampling(None, None)).net.compute_dtype == torch.bfloat16
    images = run(half, pairs)
    assert (2 * images - 1 - reference.clip(-1, 1)).abs().mean() < 0.05


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_the_demo_model_makes_the_images_of_the_command_line(dtype: str, tmp_path: Path, pairs: list[Pair]) -> None:
    how = (f"--dtype={dtype}", "--steps=2")
    succeed(diffusers_model.main, "--preset=vivid-tiny", *how, tmp_path / "views")
    shape = [f"--seeds={','.join(map(str, SEEDS))}", f"--outdir={tmp_path / 'out'}", "--device=cpu"]
    succeed(generate_images.main, "--preset=vivid-tiny", *how, *shape)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "views")
    pipe.set_progress_bar_config(disable=True)
    for seed, picture in zip(SEEDS, run(pipe, pairs, output_type="pil"), strict=True):
        with Image.open(tmp_path / "out" / f"sample_{seed:06d}.png") as theirs:
            assert np.array_equal(np.asarray(picture), np.asarray(theirs))
    files = NetworkFiles(net=str(tmp_path / "views"), sr_model=str(tmp_path / "views"))
    levels = {"sigma_min": 3.0, "sigma_max": 40.0, "sr_num_steps": 3, "sr_sigma_min": 3.0}
    config = SamplingConfig(solver="euler", num_steps=2, **levels, dtype=dtype)
    sampler, _ = open_sampler(files, config, "cpu")
    made = sample(sampler, pairs)
    assert (2 * run(pipe, pairs) - 1 - made.clip(-1, 1)).abs().max() < 1e-4


def test_pipelines_come_from_the_hub(tiny: VividPipeline, tmp_path: Path) -> None:
    """Nothing is fetched that is not of the pipeline."""
    tiny.save_pretrained(tmp_path / "hub" / "anna" / "views")
    (tmp_path / "hub" / "anna" / "views" / "setup.py").write_text("raise SystemExit")
    code = (
        "import diffusers, training.diffusers_pipeline\n"
        "pipe = diffusers.DiffusionPipeline.from_pretrained('anna/views')\n"
        "print(type(pipe).__name__, float(pipe.net.logvar_linear.weight.sum()))"
    )
    with serve(tmp_path / "hub") as hub:
        done = run_python("-c", code, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"))
    assert done.stdout.split() == ["VividPipeline", str(float(tiny.net.logvar_linear.weight.sum()))], done.stderr
    assert {path for path in hub.fetched if not path.endswith((".json", ".safetensors"))} == set()


def test_what_cannot_be_is_one_line(tiny: VividPipeline, pairs: list[Pair]) -> None:
    image, source, target = as_diffusers_has_it(pairs[0])
    with pytest.raises(UserError, match="`target`: there are 2 for 3 views"):
        tiny([image] * 3, source, [target] * 2)
    with pytest.raises(UserError, match="`output_type` is one of pil, np, pt"):
        tiny(image, source, target, output_type="latent")
    with pytest.raises(UserError, match="`num_steps` must be in"):
        tiny(image, source, target, num_inference_steps=0)
    with pytest.raises(UserError, match="needs a guidance network"):
        VividPipeline(tiny.net, tiny.scheduler, guidance=2.0)
    with pytest.raises(UserError, match="`net` is a super-resolution network"):
        VividPipeline(tiny.sr_model, tiny.scheduler)
    with pytest.raises(UserError, match="`solver` is one of"):
        VividScheduler(solver="ddim")
    other = VividPipeline(**{**tiny.components, "scheduler": diffusers.DDIMScheduler()}, guidance=1.5)
    with pytest.raises(UserError, match="DDIMScheduler knows no preconditioning"):
        other(image, source, target)


def test_depth_goes_along(pairs: list[Pair]) -> None:
    net = tiny_network(depth_input=True)
    pipe = VividPipeline(DiffusersNVPrecond.from_network(net), VividScheduler(), num_inference_steps=1, dtype="float32")
    pipe.set_progress_bar_config(disable=True)
    image, source, target = as_diffusers_has_it(pairs[0])
    depth = torch.rand(source.height, source.width) + 1
    made = pipe(image, source, target, depth=[depth], generator=seeded()[0], output_type="pt").images
    sampler = NovelViewSampler(net, config=SamplingConfig(num_steps=1))
    view = View(pairs[0].source.image, source, depth)
    ours = sampler.sample([view], [target], SeededGenerators(SEEDS[:1]))
    assert (2 * made - 1 - ours.clip(-1, 1)).abs().max() < 1e-4
