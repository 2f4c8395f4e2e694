"""Score-CAM: each channel of a layer weighted by the score of the image seen through it.

Shapes: B rows, U distinct images, C channels, T targets of an image at most, n masked images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roarline.attribution.distinct_images import DistinctImages
from roarline.attribution.passes import choose_targets
from roarline.imaging import cam
from roarline.models.passes import pass_size
from roarline.models.recording import recording

ScoreWeights = Literal["channel_softmax", "probability"]


def score_cam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    weights: ScoreWeights = "channel_softmax",
    max_channels: int | None = None,
    relu: bool = True,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
    image_index: Sequence[int],
) -> Tensor:
    """Channels resized to the image and stretched to [0, 1] mask it, one at a time; the scores weigh the channels.

    A masked pixel is 0, the mean colour. All targets of an image share its passes; passes hold masked images of
    several images.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted name, ``auto``, or a list.
        weights: ``channel_softmax``: the softmax over channels of the target's logits, as published;
            ``probability``: the target's probability, as the authors' code has it.
        max_channels: Only the channels with the largest spatial standard deviation; the rest weigh 0. None: all.
        relu: Clamp the map at 0.
        fuse: ``mean`` or ``max`` of several layers' maps, each scaled by its largest value.
        resize: ``bilinear``, ``align_corners`` or ``bicubic``, of masks and map.
        image_index: One a row, equal where two rows are of the same image.

    Returns:
        [B, H, W].

    Raises:
        ModelError: There is no such layer, or its output is no map.

    Source: Wang et al. 2020, arXiv 1910.01279, algorithm 1.
    Differs: a channel that is the same everywhere makes no mask and weighs 0. The score of an empty image, which the
    softmax over channels cancels, is not computed.
    """
    with recording(model, layer, images_BCHW, gradients=False) as recorded, torch.no_grad():
        targets = choose_targets(model(images_BCHW), targets_B)
    distinct = DistinctImages(image_index, targets)
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    maps = []
    for activations in recorded.activations:
        of_images = activations[distinct.first_rows]
        counted_UC = cam.most_varied_channels(of_images, max_channels)
        scores_UCT = _scores(model, images_BCHW[distinct.first_rows], of_images, counted_UC, distinct, weights, resize)
        weights_BC = distinct.of_rows(scores_UCT)
        if weights == "channel_softmax":
            weights_BC = weights_BC.softmax(dim=1)
        weights_BC = torch.where(counted_UC[distinct.image_of_row], weights_BC, 0)
        maps.append(cam.channel_cam(activations, weights_BC))
    return cam.to_image(maps, size, relu=relu, fuse=fuse, resize=resize)


def _scores(
    model: nn.Module,
    images_UCHW: Tensor,
    activations_UChw: Tensor,
    counted_UC: Tensor,
    distinct: DistinctImages,
    weights: ScoreWeights,
    resize: cam.Resize,
) -> Tensor:
    """Scores of the targets of each image seen through each of its channels that count; elsewhere -inf."""
    height, width = images_UCHW.shape[2:]
    scores_UCT = images_UCHW.new_full((*counted_UC.shape, distinct.targets_UT.shape[1]), -torch.inf)
    at_once = pass_size(height, width, images_UCHW.device)
    for pairs in torch.split(counted_UC.nonzero(), at_once):
        image_n, channel_n = pairs.unbind(dim=1)
        masks = cam.activation_masks(activations_UChw[image_n, channel_n], (height, width), resize)
        with torch.no_grad():
            logits = model(images_UCHW[image_n] * masks[:, None].to(images_UCHW))
        values = logits if weights == "channel_softmax" else logits.softmax(dim=1)
        scores_UCT[image_n, channel_n] = values.gather(1, distinct.targets_UT[image_n]).to(scores_UCT)
    return scores_UCT
