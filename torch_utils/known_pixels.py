"""What a photograph knows of a novel view is kept: a sample is drawn only where it does not."""

from __future__ import annotations

import torch

from torch_utils.cameras import Camera, View
from torch_utils.warping import same_place, turned_view

SEAM = 1 / 16  # of the picture's side: how far the change from the sample to the photograph reaches into the latter


def keep_known(image: torch.Tensor, photograph: View, camera: Camera) -> torch.Tensor:
    """A sample, with the photograph over it wherever that shows what `camera` sees.

    That is known where the camera has only turned or zoomed, and is of the whole photograph, not of the square that
    the networks see. Towards what is not known the photograph fades into the sample, over `SEAM`.

    Args:
        image: uint8 [3, H, W], of the camera's size.

    Returns: uint8 [3, H, W]; the sample itself where the camera has left its place.
    """
    if not same_place(photograph.camera, camera):
        return image
    known, inside = turned_view(photograph, camera)
    share = seam_weights(inside, SEAM * min(camera.width, camera.height))
    return torch.lerp(image.to(torch.float32), known.to(torch.float32), share).round().to(torch.uint8)


def seam_weights(inside: torch.Tensor, width: float) -> torch.Tensor:
    """Float32 [H, W]: 0 outside a region, bool [H, W], rising smoothly to 1 at `width` pixels from what is outside it.

    The border of the picture is no border of the region: with all inside, all is 1.
    """
    from scipy.ndimage import distance_transform_edt

    if bool(inside.all()):
        return torch.ones(inside.shape)
    distance = torch.from_numpy(distance_transform_edt(inside.cpu().numpy())).to(torch.float32)
    share = (distance / width).clamp(max=1)
    return share**2 * (3 - 2 * share)
