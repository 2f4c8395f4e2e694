"""Local contrast: how much each patch changes the target's logit when it is replaced by its own mean colour.

Unlike occlusion, which paints a patch in one colour for all images, this keeps the patch's colour and takes only its
detail away. It is here to show what a method of one's own looks like, not because it is a good one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def local_contrast(
    model: nn.Module, images_BCHW: Tensor, targets_B: Tensor, *, patch_px: int = 4, batch: int = 64
) -> Tensor:
    """Drop of the target's logit when the detail of a patch is gone.

    roarline calls this with the network in evaluation mode and without gradients of its weights, and reduces,
    checks and stores what comes back.

    Args:
        images_BCHW: Normalised network inputs.
        targets_B: int64, the class that each map is to speak of.
        patch_px: Side of the square patches; images are cut from their top left corner.
        batch: Altered images that go through the network at once.

    Returns:
        [B, H, W], equal within a patch.
    """
    height, width = images_BCHW.shape[2:]
    pooled = functional.avg_pool2d(images_BCHW, patch_px, ceil_mode=True, count_include_pad=False)
    flat = functional.interpolate(pooled, scale_factor=patch_px)[:, :, :height, :width]
    rows, columns = pooled.shape[2:]
    drops = images_BCHW.new_zeros(len(images_BCHW), rows, columns)
    with torch.no_grad():
        for index, (image, target) in enumerate(zip(images_BCHW, targets_B, strict=True)):
            before = model(image[None])[0, target]
            for start in range(0, rows * columns, batch):
                places = range(start, min(start + batch, rows * columns))
                altered = image.repeat(len(places), 1, 1, 1)
                for copy, place in enumerate(places):
                    top, left = place // columns * patch_px, place % columns * patch_px
                    patch = (slice(None), slice(top, top + patch_px), slice(left, left + patch_px))
                    altered[copy][patch] = flat[index][patch]
                drops[index].view(-1)[start : start + len(places)] = before - model(altered)[:, target]
    return functional.interpolate(drops[:, None], scale_factor=patch_px)[:, 0, :height, :width]
