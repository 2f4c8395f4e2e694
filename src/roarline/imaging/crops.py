"""Parts of images, enlarged to the whole.

Shapes: B images, C channels, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def enlarged_crops(images_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Each image's box, resized to the image's own size.

    Args:
        images_BCHW: Floating.
        boxes_B4: int64, x0, y0, x1, y1 in px, half-open, inside the image; an empty one gives zeros.

    Returns:
        [B, C, H, W], bicubic (a = -0.75) without antialiasing, as OpenCV resizes.
    """
    crops = []
    for image, (x0, y0, x1, y1) in zip(images_BCHW, boxes_B4.tolist(), strict=True):
        if x1 <= x0 or y1 <= y0:
            crops.append(torch.zeros_like(image))
            continue
        part = image[None, :, y0:y1, x0:x1]
        crops.append(functional.interpolate(part, image.shape[1:], mode="bicubic", align_corners=False)[0])
    return torch.stack(crops)
