"""Where the objects are: masks from segmentation or boxes.

Shapes: B rows, each an (image, target class) pair, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor

VOID = 255


def segmentation_masks(segmentation_BHW: Tensor, targets_B: Tensor, whole_BHW: Tensor | None = None) -> Tensor:
    """Pixels of each row's target class, from segmentation.

    Args:
        segmentation_BHW: uint8; 0 background, c + 1 class c, 255 void.
        targets_B: int64.
        whole_BHW: uint8; 1 where the target's class is, also where objects of other classes cover it.

    Returns:
        bool [B, H, W]; an image without an object of the target's class gets the objects of all its classes.
    """
    own = segmentation_BHW == (targets_B + 1).to(segmentation_BHW.dtype)[:, None, None]
    own &= segmentation_BHW != VOID
    if whole_BHW is not None:
        own |= whole_BHW == 1
    anything = (segmentation_BHW != 0) & (segmentation_BHW != VOID)
    return torch.where(own.any(dim=(1, 2), keepdim=True), own, anything)


def box_masks(boxes_N6: Tensor, images_B: Tensor, targets_B: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels inside the boxes of each row's target class.

    Args:
        boxes_N6: int64, (image, class, x0, y0, x1, y1 in px, inclusive).
        images_B: int64, the image of each row, as the boxes count them.
        targets_B: int64.
        size: (H, W) in px.

    Returns:
        bool [B, H, W]; an image without a box of the target's class gets the boxes of all its classes.
    """
    height, width = size
    rows, columns = torch.arange(height), torch.arange(width)
    masks = torch.zeros(len(images_B), height, width, dtype=torch.bool)
    for place, (image, target) in enumerate(zip(images_B.tolist(), targets_B.tolist(), strict=True)):
        of_image = boxes_N6[boxes_N6[:, 0] == image]
        of_target = of_image[of_image[:, 1] == target]
        for _, _, x0, y0, x1, y1 in (of_target if len(of_target) else of_image).tolist():
            inside_rows, inside_columns = (rows >= y0) & (rows <= y1), (columns >= x0) & (columns <= x1)
            masks[place] |= inside_rows[:, None] & inside_columns[None, :]
    return masks
