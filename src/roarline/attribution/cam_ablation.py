"""Ablation-CAM: each channel of a layer weighted by how much the target's logit falls without it.

Shapes: B rows, U distinct images, C channels, T targets of an image at most, n ablated outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roarline.attribution.distinct_images import DistinctImages
from roarline.attribution.passes import choose_targets
from roarline.imaging import cam
from roarline.models.grids import channel_dimension, grid_of_layer
from roarline.models.layers import layer_names
from roarline.models.layouts import channel_dimensions
from roarline.models.passes import pass_size
from roarline.models.replay import Replay

_FIRST_LAYERS = 8
"""Times the numbers of an image that a network's first layers hold: 5 in ResNets, 8 in MobileNetV2, 21 in VGGs."""


def ablation_cam(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    *,
    layer: str | Sequence[str] = "auto",
    max_channels: int | None = None,
    relu: bool = True,
    fuse: cam.Fuse = "mean",
    resize: cam.Resize = "bilinear",
    compat: Literal["corrected", "original"] = "corrected",
    image_index: Sequence[int],
) -> Tensor:
    """Each channel is set to 0, one at a time; what the logit loses weighs the channel.

    Only what follows the layer is run again (``models.replay``). All targets of an image share its passes. Of a
    transformer's tokens a channel is set to 0 in the class token too.

    Args:
        targets_B: int64; -1 means the predicted class.
        layer: Dotted name, ``auto``, or a list.
        max_channels: Only the channels with the largest spatial standard deviation; the rest weigh 0. None: all.
        relu: Clamp the map at 0.
        fuse: ``mean`` or ``max`` of several layers' maps, each scaled by its largest value.
        resize: ``bilinear``, ``align_corners`` or ``bicubic``.
        compat: ``original`` divides the loss by the logit, as published.
        image_index: One a row, equal where two rows are of the same image.

    Returns:
        [B, H, W].

    Raises:
        ModelError: There is no such layer, or its output is no map.

    Source: Desai and Ramaswamy 2020, Ablation-CAM, WACV, equations 4 and 5.
    Differs: the loss is not divided by the logit, unless ``compat`` is ``original``: for a logit below 0 that turns
    every weight's sign. pytorch-grad-cam sets channels to a huge negative number where a layer has negative values.
    """
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    maps = []
    targets = targets_B
    for name in layer_names(model, layer, images_BCHW.shape[1:]):
        replay = Replay(model, name, images_BCHW)
        dimension = channel_dimensions(model, images_BCHW.shape[1:]).get(name)
        dimension = dimension or channel_dimension(name, replay.output, size)
        activations = grid_of_layer(name, replay.output, size, dimension)
        targets = choose_targets(replay.logits_BK, targets)
        distinct = DistinctImages(image_index, targets)
        counted_UC = (activations[distinct.first_rows] != 0).any(dim=3).any(dim=2)
        if max_channels is not None:
            counted_UC &= cam.most_varied_channels(activations[distinct.first_rows], max_channels)
        losses_BC = distinct.of_rows(_losses(replay, counted_UC, distinct, size, dimension))
        if compat == "original":
            losses_BC = losses_BC / replay.logits_BK.gather(1, targets[:, None])
        maps.append(cam.channel_cam(activations, losses_BC.to(activations)))
    return cam.to_image(maps, size, relu=relu, fuse=fuse, resize=resize)


def _losses(
    replay: Replay, counted_UC: Tensor, distinct: DistinctImages, size: tuple[int, int], dimension: int
) -> Tensor:
    """What the targets' logits of each image lose without each of its channels that count, [U, C, T]; elsewhere 0."""
    logits_UT = replay.logits_BK[distinct.first_rows].gather(1, distinct.targets_UT)
    losses_UCT = logits_UT.new_zeros(*counted_UC.shape, logits_UT.shape[1])
    at_once = pass_size(*size, logits_UT.device)
    if replay.remembers:  # as many outputs of the layer as hold as many numbers as the first layers of a pass of images
        at_once *= max(1, _FIRST_LAYERS * replay.numbers_in_an_image // replay.output[0].numel())
    for image, row in enumerate(distinct.first_rows.tolist()):
        channels = counted_UC[image].nonzero()[:, 0]
        for channel_n, logits in _ablated_logits(replay, row, channels, at_once, dimension):
            kept = logits.gather(1, distinct.targets_UT[image].expand(len(logits), -1))
            losses_UCT[image, channel_n] = logits_UT[image] - kept
    return losses_UCT


def _ablated_logits(
    replay: Replay, row: int, channels: Tensor, at_once: int, dimension: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some channels [n], and the logits [n, K] of the image in that row without each of them."""
    if len(channels) == 0:
        return
    output = replay.output[row : row + 1]
    for channel_n in torch.split(channels, at_once):
        # Copied and zeroed: a broadcast copy takes a third of the time that choosing by a mask does.
        ablated = output.expand(len(channel_n), *output.shape[1:]).clone()
        places = torch.arange(len(channel_n), device=output.device)
        ablated.movedim(dimension, 1)[places, channel_n] = 0.0
        yield channel_n, replay.logits(row, ablated)
