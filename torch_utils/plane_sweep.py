"""A source view seen from the target camera as if it all lay at one depth, for several depths: a plane sweep."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_utils.cameras import pixel_centers


def sweep_planes(
    image: torch.Tensor,
    pose: torch.Tensor,
    k_source: torch.Tensor,
    k_target: torch.Tensor,
    inverse_depths: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The view moved to the target camera by way of planes parallel to the target's image (Collins 1996).

    A target pixel p at inverse depth w comes from the source pixel K_src (R K_tgt^-1 p + w t). At w = 0 that is the
    homography K_src R K_tgt^-1 of a camera that only turns; where the guess of w is true, so is the picture.

    Args:
        image: source views, floating point [B, C, R, R].
        pose: [B, 4, 4] target camera to source camera, of R and t; intrinsics [B, 3, 3] in pixels.
        inverse_depths: of the planes [P], in one over the unit of the pose.

    Returns:
        Views [B, P, C, R, R], bilinear, their border going on outwards; bool [B, P, 1, R, R], which pixels lie inside.
    """
    batch, _, height, width = image.shape
    pixels = pixel_centers(width, height).to(pose)
    rays = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=-1) @ torch.linalg.inv(k_target).mT
    rotated = rays @ pose[:, :3, :3].mT @ k_source.mT  # [B, R*R, 3]
    shift = (pose[:, :3, 3:].mT @ k_source.mT)[:, None]  # [B, 1, 1, 3]
    points = rotated[:, None] + inverse_depths.to(pose)[:, None, None] * shift
    ahead = points[..., 2:] > 0
    # grid_sample counts from -1, the left edge of the first pixel, to 1, the right edge of the last.
    grid = points[..., :2] / points[..., 2:].clamp(min=1e-6) * points.new_tensor([2 / width, 2 / height]) - 1
    inside = (ahead.squeeze(-1) & (grid.abs().amax(dim=-1) <= 1)).reshape(batch, -1, 1, height, width)
    grid = grid.clamp(-2, 2).reshape(batch, -1, width, 2)
    planes = F.grid_sample(image, grid.to(image), padding_mode="border", align_corners=False)
    planes = planes.unflatten(2, (len(inverse_depths), height)).transpose(1, 2)
    return planes, inside
