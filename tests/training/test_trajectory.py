"""Rendering a path: what each frame is conditioned on, its noise, and the folder that is written."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from datasets.path_config import ViewPath
from datasets.synthetic import SyntheticClip
from datasets.trajectories import Move, follow, named_path
from datasets.trajectory_files import read_trajectory
from datasets.user_image import Photograph
from dnnlib import UserError, locks
from tests.golden import tiny_network
from torch_utils.cameras import Camera, View
from torch_utils.known_pixels import keep_known
from training.generation import NovelViewSampler
from training.guidance import view_denoiser
from training.path_config import RenderConfig
from training.precond import NVPrecond
from training.sampling_config import SamplingConfig
from training.trajectory import (
    PathFolder,
    PathRenderer,
    evaluations,
    photograph_with_crop,
    spread_map,
    watch_evaluations,
)  # fmt: skip

RESOLUTION = 16


@pytest.fixture(scope="module")
def build() -> Callable[..., NVPrecond]:
    def build(**options: object) -> NVPrecond:
        return tiny_network(**options)

    return build


@pytest.fixture(scope="module")
def sampler(build: Callable[..., NVPrecond]) -> NovelViewSampler:
    return NovelViewSampler(build(), config=SamplingConfig(num_steps=2))


@pytest.fixture(scope="module")
def photograph() -> Photograph:
    view = SyntheticClip("test-0", range(2), 40, 30).view(0)
    camera = Camera.from_fov(58, 40, 30)
    return Photograph("photo.png", View(view.image, camera), 58.0, "default")


def renderer_of(
    sampler: NovelViewSampler,
    photograph: Photograph,
    cameras: Sequence[Camera],
    seeds: Sequence[int] = (0,),
    batch_size: int = 4,
    **config: object,
) -> PathRenderer:
    path = ViewPath(photograph, cameras, details={"trajectory": "by hand"})
    return PathRenderer(sampler, path, RenderConfig(**{"known_pixels": False, **config}), seeds, batch_size)


def images(renderer: PathRenderer) -> torch.Tensor:
    return torch.stack(list(renderer))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for rounding: batches of another size add up in another order."""
    return int((a.int() - b.int()).abs().max()) <= 1


def test_frames_from_the_photograph_are_the_samplers_own(sampler: NovelViewSampler, photograph: Photograph) -> None:
    path = named_path("spiral", photograph.view.camera, 3)
    renderer = renderer_of(sampler, photograph, path, seeds=[5, 6], batch_size=4)
    result = images(renderer)
    assert result.shape == (3, 2, 3, RESOLUTION, RESOLUTION)
    for sample, seed in enumerate([5, 6]):  # the same noise for all frames
        expected = sampler([photograph.view] * 3, path, [seed] * 3)
        assert close(result[:, sample], expected)
    assert not close(result[:, 0], result[:, 1])


@pytest.mark.parametrize("condition", ["first", "chain", "stochastic"])
def test_batch_size_changes_nothing(condition: str, sampler: NovelViewSampler, photograph: Photograph) -> None:
    path = named_path("truck", photograph.view.camera, 6)
    settings = {"seeds": [1, 2], "condition": condition, "key_every": 2}
    one, many = (images(renderer_of(sampler, photograph, path, batch_size=size, **settings)) for size in (1, 5))
    assert close(one, many)


def test_a_chain_follows_its_key_frames(sampler: NovelViewSampler, photograph: Photograph) -> None:
    path = named_path("dolly", photograph.view.camera, 6)
    result = images(renderer_of(sampler, photograph, path, condition="chain", key_every=2))[:, 0]
    source = photograph.view
    for frame, camera in enumerate(path):
        assert close(result[frame], sampler([source], [camera], [0])[0])
        if frame in (2, 4):
            source = View(result[frame], camera.crop_center().resize(RESOLUTION))


def test_noise_is_shared_unless_it_is_asked_for(sampler: NovelViewSampler, photograph: Photograph) -> None:
    path = [photograph.view.camera] * 2
    assert close(*images(renderer_of(sampler, photograph, path)))
    assert not close(*images(renderer_of(sampler, photograph, path, fresh_noise=True)))


def test_stochastic_conditioning_draws_all_views_evenly_from_each_images_own_noise(
    build: Callable[..., NVPrecond], photograph: Photograph
) -> None:
    """Watson et al. 2022: one of the views so far, at every evaluation."""
    net = build()
    views = [
        photograph.view,
        replace(photograph.view, image=255 - photograph.view.image),
        photograph.view.crop_center(20, 20),
    ]
    target = Move(pan_deg=5).camera(photograph.view.camera)
    x, sigma = torch.randn(2, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(0)), torch.tensor(1.0)
    alone = torch.stack([view_denoiser(net, [[view]] * 2, [target] * 2)(x, sigma) for view in views])
    generator = torch.Generator().manual_seed(1)

    def randn_like(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    denoise = view_denoiser(net, [views] * 2, [target] * 2, randn_like=randn_like)
    counts = torch.zeros(2, 3)
    for _ in range(60):
        result = denoise(x, sigma)
        distances = (alone - result).abs().amax(dim=(2, 3, 4))  # [view, image]
        assert bool((distances.min(dim=0).values < 1e-5).all())
        counts[torch.arange(2), distances.argmin(dim=0)] += 1
    assert counts.min() >= 10  # expected 20, standard deviation 3.7


def test_stochastic_conditioning_starts_from_the_photograph(sampler: NovelViewSampler, photograph: Photograph) -> None:
    path = named_path("truck", photograph.view.camera, 4)
    settings = {"key_every": 1, "batch_size": 1}
    first, chain, stochastic = (
        images(renderer_of(sampler, photograph, path, condition=condition, **settings))
        for condition in ("first", "chain", "stochastic")
    )
    assert close(first[:2], stochastic[:2])
    assert not close(first[2:], stochastic[2:])
    assert not close(chain[2:], stochastic[2:])


def test_the_cascade_is_conditioned_alike(build: Callable[..., NVPrecond], photograph: Photograph) -> None:
    sr_model = build(img_resolution=32, super_res=True, noisy_sr=0.25)
    sampler = NovelViewSampler(build(), build(uncond=True), sr_model, SamplingConfig(guidance=1.5, num_steps=1))
    renderer = renderer_of(
        sampler, photograph, named_path("pan", photograph.view.camera, 3), condition="stochastic", key_every=1
    )
    assert images(renderer).shape == (3, 1, 3, 32, 32)
    calls: list[None] = []
    with watch_evaluations(sampler, lambda: calls.append(None)):
        images(replace(renderer, batch_size=1))
    assert len(calls) == evaluations(renderer) == 9


def write(folder: Path, renderer: PathRenderer) -> list[Path]:
    return list(PathFolder(folder, overwrite=True).write(renderer))


def test_two_do_not_render_into_one_folder_at_once(
    sampler: NovelViewSampler, photograph: Photograph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_WAIT_S", 0.1)
    renderer = renderer_of(sampler, photograph, [photograph.view.camera] * 2)
    first = PathFolder(tmp_path, identity={"a": 1}).write(renderer)
    next(first)
    before = sorted(path.name for path in tmp_path.iterdir())
    for overwrite in (False, True):
        with pytest.raises(UserError, match="another rendering is at work"):
            next(PathFolder(tmp_path, overwrite, {"a": 1}).write(renderer))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    list(first)
    list(PathFolder(tmp_path, identity={"a": 1, "set_later": None}).write(renderer))  # what the first did not know of


def test_the_folder(sampler: NovelViewSampler, photograph: Photograph, tmp_path: Path) -> None:
    path = [Move(pan_deg=angle).camera(photograph.view.camera) for angle in (0, 6)]
    path.append(Move(right=0.5).camera(photograph.view.camera))
    config = {"baseline": "homography", "export": ("colmap", "realestate10k")}
    renderer = renderer_of(sampler, photograph, path, seeds=[3, 4], **config)
    files = write(tmp_path, renderer)
    expected = images(renderer)
    assert [file.name for file in files] == [f"frame_{k:06d}.png" for k in range(3)]
    for k in range(3):
        for sample, suffix in enumerate(("", "_seed4")):
            saved = np.asarray(Image.open(tmp_path / f"frame_{k:06d}{suffix}.png"))
            assert np.array_equal(saved, expected[k, sample].permute(1, 2, 0).numpy())
        saved = np.asarray(Image.open(tmp_path / f"spread_{k:06d}.png"))
        assert np.array_equal(saved, spread_map(expected[k]))
    with Image.open(tmp_path / "video.gif") as video:
        assert video.n_frames == 3
    assert (tmp_path / "sheet.png").exists()
    assert sorted(file.name for file in tmp_path.glob("homography_*")) == [
        "homography_000000.png",
        "homography_000001.png",
    ]

    document = json.loads((tmp_path / "trajectory.json").read_text())
    assert document["photograph"] == photograph.record()
    assert (document["seeds"], document["condition"], document["trajectory"]) == ([3, 4], "first", "by hand")
    assert [frame["file_path"] for frame in document["frames"]] == [file.name for file in files]
    for name in ("trajectory.json", "colmap", "realestate10k.txt"):
        again = follow(read_trajectory(tmp_path / name, photograph.view.camera), photograph.view.camera)
        for camera, other in zip(again, path, strict=True):
            torch.testing.assert_close(camera.extrinsics, other.extrinsics, rtol=0, atol=1e-8)
            torch.testing.assert_close(camera.intrinsics, other.intrinsics, rtol=0, atol=1e-6)


def test_the_homography_shows_the_photograph_where_it_is_seen(
    sampler: NovelViewSampler, photograph: Photograph, tmp_path: Path
) -> None:
    path = [Move(pan_deg=angle).camera(photograph.view.camera) for angle in (0, 30)]
    write(tmp_path, renderer_of(sampler, photograph, path, baseline="homography"))
    straight, turned = (np.asarray(Image.open(tmp_path / f"homography_{k:06d}.png")).astype(int) for k in (0, 1))
    source = photograph.view.square(RESOLUTION).image.permute(1, 2, 0).numpy().astype(int)
    assert (straight[..., 3] == 255).all()
    assert np.abs(straight[..., :3] - source).mean() < 3  # resized in another order
    assert set(np.unique(turned[..., 3])) == {0, 255}
    assert 0.3 < (turned[..., 3] == 255).mean() < 0.8
    assert not turned[turned[..., 3] == 0].any()
    assert (turned[:, -4:, 3] == 0).all()  # to the right of the photograph


def test_a_photograph_like_a_thread_has_a_place_in_the_sheet() -> None:
    camera = Camera.from_fov(58, 20000, 8)
    view = View(torch.zeros(3, 8, 20000, dtype=torch.uint8), camera)
    assert photograph_with_crop(Photograph("", view, 58, "given"), 256, 128).shape == (1, 256, 3)


def test_the_spread_is_the_standard_deviation() -> None:
    samples = torch.full((4, 3, 2, 2), 100, dtype=torch.uint8)
    samples[:2, :, 0, 0] += 20  # standard deviation 10
    samples[:2, :, 1, 1] += 155  # 77.5: more than white
    assert spread_map(samples).tolist() == [[79, 0], [0, 255]]  # 10 * 255 / 32


def test_a_folder_with_frames_is_refused_unless_asked_for(
    sampler: NovelViewSampler, photograph: Photograph, tmp_path: Path
) -> None:
    write(tmp_path, renderer_of(sampler, photograph, [photograph.view.camera] * 3))
    with pytest.raises(UserError, match="holds the frames of another path: give `overwrite`"):
        PathFolder(tmp_path)
    write(tmp_path, renderer_of(sampler, photograph, [photograph.view.camera]))
    assert [file.name for file in tmp_path.glob("frame_*")] == ["frame_000000.png"]


def test_frames_come_as_they_are_made(sampler: NovelViewSampler, photograph: Photograph, tmp_path: Path) -> None:
    renderer = renderer_of(sampler, photograph, [photograph.view.camera] * 3, batch_size=1)
    frames = PathFolder(tmp_path).write(renderer)
    assert next(frames).exists()
    assert len(list(tmp_path.glob("frame_*"))) == 1
    frames.close()
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["frame_000000.png"]  # no half video


def test_memory_does_not_grow_with_the_path(photograph: Photograph, tmp_path: Path) -> None:
    """A frame of a video is 196 kB here; 100 of them would be 20 MB."""

    class Noise:
        resolution, config = 128, SamplingConfig()

        def __call__(self, pools: Sequence, cameras: Sequence[Camera], seeds: Sequence) -> torch.Tensor:
            return torch.randint(256, (len(cameras), 3, 128, 128), dtype=torch.uint8)

    renderer = renderer_of(Noise(), photograph, named_path("pan", photograph.view.camera, 140), baseline="homography")
    process = psutil.Process()
    held = [process.memory_info().rss for _ in PathFolder(tmp_path).write(renderer)]
    assert max(held[40:]) - held[40] < 8e6


def test_without_pyav_the_rest_comes_with_a_hint(
    sampler: NovelViewSampler,
    photograph: Photograph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with caplog.at_level(logging.WARNING):
        write(tmp_path, renderer_of(sampler, photograph, [photograph.view.camera]))
    assert "pip install av" in caplog.text
    assert (tmp_path / "video.gif").exists()
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize("options", [{"cameras": []}, {"condition": "last"}])
def test_nonsense_is_refused(options: dict, sampler: NovelViewSampler, photograph: Photograph) -> None:
    arguments: dict[str, Sequence] = {"cameras": [photograph.view.camera], **options}
    with pytest.raises(UserError):
        renderer_of(sampler, photograph, **arguments)


@pytest.mark.parametrize("condition", ["first", "chain"])
def test_known_pixels_are_kept_in_frames_and_key_frames(
    sampler: NovelViewSampler, photograph: Photograph, condition: str
) -> None:
    """The camera turns, then leaves its place: what follows is drawn from the view that was kept."""
    view = photograph.view
    turned, moved = Move(pan_deg=9).camera(view.camera), Move(pan_deg=9, forward=0.3).camera(view.camera)
    how = {"condition": condition, "key_every": 1}
    plain, known = (
        renderer_of(sampler, photograph, [view.camera, turned, moved], known_pixels=known, **how)
        for known in (False, True)
    )
    kept = images(known)[:, 0]
    square = turned.crop_center().resize(RESOLUTION)
    assert torch.equal(kept[1], keep_known(images(plain)[1, 0], view, square))
    source = view if condition == "first" else View(kept[1], square)
    assert close(kept[2], sampler([source], [moved], [0])[0])
