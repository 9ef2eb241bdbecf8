"""What docs/method.md, section 11, says of libraries that were tried and are not used."""

from __future__ import annotations

import kornia
import pytest
import torch

from tests.golden import relative_error
from tests.scripts import run_python
from torch_utils.cameras import Camera, intrinsics_matrix, relative_pose
from torch_utils.warping import sweep_planes
from training.sampling import edm_sampler
from training.sampling_config import SamplingConfig

DIGITS = 1e-9  # files give rotations so exactly


def kornia_camera(camera: Camera) -> kornia.geometry.camera.PinholeCamera:
    k, e = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1).unbind()
    k[:3, :3], e[:3] = camera.intrinsics, camera.extrinsics
    size = (torch.tensor([float(side)], dtype=torch.float64) for side in (camera.height, camera.width))
    return kornia.geometry.camera.PinholeCamera(k[None], e[None], *size)


def test_kornia_camera_has_no_crop_changes_in_place_and_inverts_by_the_transpose() -> None:
    camera = Camera.from_fov(60, 64, 36)
    rounded = camera.extrinsics.clone()
    rounded[0, 1] += DIGITS
    camera = Camera(camera.intrinsics, rounded, camera.width, camera.height)
    theirs = kornia_camera(camera)
    assert not [name for name in dir(theirs) if "crop" in name]

    other = Camera.from_fov(60, 64, 36)
    pose = kornia.geometry.linalg.relative_transformation(theirs.extrinsics, kornia_camera(other).extrinsics)[0]
    exact = torch.linalg.inv(relative_pose(camera, other))
    assert float((pose - exact).abs().max()) > DIGITS / 2

    before = theirs.intrinsics.clone()
    theirs.scale_(torch.tensor([0.5], dtype=torch.float64))
    assert not torch.equal(theirs.intrinsics, before)


def test_kornia_homogeneous_coordinates_are_ours_going_in_but_not_coming_out() -> None:
    """Equal bits, and last digits apart; what is near the plane of the camera is not divided at all."""
    from kornia.geometry import convert_points_from_homogeneous, convert_points_to_homogeneous

    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(convert_points_to_homogeneous(points), torch.cat([points, torch.ones(100, 1)], dim=1))
    ours, theirs = points[:, :2] / points[:, 2:], convert_points_from_homogeneous(points)
    assert not torch.equal(theirs, ours)
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=0)
    near = torch.tensor([[1.0, 2.0, 1e-9]])
    assert convert_points_from_homogeneous(near).tolist() == [[1, 2]]
    code = "import sys, torch_utils.cameras, training.conditioning; print('kornia' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"


def test_kornia_warps_show_what_is_behind_the_camera() -> None:
    """Turned by 180 degrees, a camera sees nothing of a picture. Where both see something, they agree."""
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    k = intrinsics_matrix(*torch.tensor([30.0, 30.0, 16.0, 16.0]))[None]
    to_index = torch.eye(3)
    to_index[:2, 2] = -0.5

    def both(pose: torch.Tensor, padding_mode: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        planes, inside = sweep_planes(image, pose[None], k, k, torch.zeros(1))
        homography = to_index @ k @ pose[:3, :3] @ torch.linalg.inv(to_index @ k)
        theirs = kornia.geometry.transform.homography_warp(
            image, homography, (32, 32), normalized_coordinates=False, padding_mode=padding_mode
        )
        return planes[:, :, 0], inside, theirs

    _, inside, theirs = both(torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])), "zeros")
    assert not inside.any()
    assert (theirs > 0).float().mean() > 0.9

    angle = torch.tensor(0.2)
    turn = torch.eye(4)
    turn[0, 0], turn[0, 2], turn[2, 0], turn[2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    ours, inside, theirs = both(turn, "border")
    assert inside.any()
    torch.testing.assert_close(ours * inside, theirs * inside, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "solver"), [("EDMEulerScheduler", "euler"), ("EDMDPMSolverMultistepScheduler", "dpmpp_2m")]
)
def test_schedulers_of_diffusers_stop_at_float32(name: str, solver: str) -> None:
    """The golden vectors ask for 1e-10."""
    diffusers = pytest.importorskip("diffusers")
    assert not [entry for entry in dir(diffusers) if "EDM" in entry and "Heun" in entry]

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (0.16 * x + sigma**2 * 0.3) / (0.16 + sigma**2)

    noise = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scheduler = getattr(diffusers, name)(sigma_data=0.5)
    scheduler.set_timesteps(12)
    x = noise * scheduler.sigmas[0].double()
    for sigma, time in zip(scheduler.sigmas.double(), scheduler.timesteps, strict=False):
        scheduler.scale_model_input(x, time)  # it warns if it is not called
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        x = scheduler.step((denoise(x, sigma) - c_skip * x) / c_out, time, x).prev_sample
    error = relative_error(x, edm_sampler(denoise, noise, SamplingConfig(num_steps=12, solver=solver)))
    assert x.dtype == torch.float64
    assert 1e-10 < error < 1e-6


def test_a_network_needs_no_diffusers() -> None:
    code = "import sys, training.model_io, training.generation; print('diffusers' in sys.modules)"
    result = run_python("-c", code)
    assert result.stdout.strip() == "False", result.stderr
