"""Scores of images of which a mask keeps a part: what occlusion, RISE, surrogates, Sobol and HSIC have in common.

A mask of 1 keeps a pixel, 0 puts the fill there, and what lies between mixes the two. Every pass is filled: where one
image has too few masks for it, several images share it; rows of the same image go through the network once.

Shapes: B rows, U different images, C channels, H × W px, N masks an image, K classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from roarline.errors import MethodError
from roarline.imaging.fills import BLUR_SIGMA_FRACTION
from roarline.imaging.smoothing import gaussian_blur
from roarline.models.passes import pass_size

Score = Literal["logit", "softmax", "sigmoid", "log_odds"]
Masks = Callable[[slice, slice], Tensor]
"""From (images, masks) to [images or 1, masks, H, W] floating point in [0, 1]."""


def baseline_image(baseline: float | str, images_BCHW: Tensor) -> Tensor:
    """What stands where a mask is 0.

    Args:
        baseline: A value in normalised space, the same everywhere (0 is the normalisation's mean colour);
            ``image_mean``: each image's own mean colour; ``blur``: the image under a Gaussian of a tenth of its shorter
            side.

    Returns:
        [1, 1, 1, 1], [B, C, 1, 1] or [B, C, H, W].

    Raises:
        MethodError: There is no such baseline.
    """
    if isinstance(baseline, int | float):
        return images_BCHW.new_full((1, 1, 1, 1), baseline)
    if baseline == "image_mean":
        return images_BCHW.mean(dim=(2, 3), keepdim=True)
    if baseline == "blur":
        return gaussian_blur(images_BCHW, BLUR_SIGMA_FRACTION * min(images_BCHW.shape[2:]))
    raise MethodError(f"baseline is {baseline!r}, expected a number, image_mean or blur")


def score_classes(logits: Tensor, score: Score) -> Tensor:
    """Logits [..., K] as scores of every class, [..., K].

    Args:
        score: ``logit``; ``softmax`` or ``sigmoid`` probability; ``log_odds``: log p / (1 - p) of the softmax
            probability p, which ranks as p does and keeps apart what rounds to 1 or 0.

    Raises:
        MethodError: There is no such score.
    """
    if score == "logit":
        return logits
    if score == "softmax":
        return logits.softmax(dim=-1)
    if score == "sigmoid":
        return logits.sigmoid()
    if score == "log_odds":
        top, place = logits.max(dim=-1, keepdim=True)
        exponentials = (logits - top).exp()
        others = top + (exponentials.sum(dim=-1, keepdim=True) - exponentials).log()
        # Nothing cancels in that but for the largest, which may be all of the sum: its others are added up without it.
        others_of_top = logits.scatter(-1, place, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return logits - others.scatter(-1, place, others_of_top)
    raise MethodError(f"score is {score!r}, expected logit, softmax, sigmoid or log_odds")


def masked_target_scores(
    model: nn.Module,
    images_BCHW: Tensor,
    targets_B: Tensor,
    count: int,
    masks: Masks,
    fill: Tensor,
    score: Score = "logit",
    *,
    image_index: Sequence[int] | None = None,
    shared: bool = False,
) -> Tensor:
    """Score of every row's target under every mask.

    Args:
        targets_B: int64 in [0, K).
        count: N.
        masks: Of some images (of the rows, in the order of their first appearance) and some of their N masks.
        fill: As ``baseline_image`` gives it, for the rows.
        image_index: One a row; rows with the same number are the same image. None: each row is an image of its own.
        shared: The masks are the same for all images: they are made once, and ``masks`` is asked for one image only.

    Returns:
        [B, N] of the logits' dtype.
    """
    device = images_BCHW.device
    rows_U, image_B, slot_B = distinct_images(image_index, len(images_BCHW))
    targets_UR = targets_B.new_zeros((len(rows_U), max(slot_B, default=0) + 1))
    images_at, slots_at = torch.tensor(image_B, device=device), torch.tensor(slot_B, device=device)
    targets_UR[images_at, slots_at] = targets_B
    kept: list[Tensor] = []

    def collect(images: slice, copies: slice, logits_unK: Tensor) -> None:
        if not kept:
            kept.append(_empty(logits_unK, *targets_UR.shape, count))
        scores = score_classes(logits_unK, score).transpose(1, 2)
        wanted = targets_UR[images, :, None].expand(-1, -1, scores.shape[2])
        kept[0][images, :, copies] = scores.gather(1, wanted)

    images, fills = _of_distinct(images_BCHW, rows_U), _of_distinct(fill, rows_U)
    run_masked(model, images, count, masks, fills, collect, shared=shared)
    return kept[0][images_at, slots_at]


def masked_class_scores(
    model: nn.Module, images_BCHW: Tensor, count: int, masks: Masks, fill: Tensor, score: Score, *, shared: bool = False
) -> Tensor:
    """Score of every class under every mask; arguments as ``masked_target_scores``.

    Returns:
        [B, N, K].
    """
    kept: list[Tensor] = []

    def collect(images: slice, copies: slice, logits_unK: Tensor) -> None:
        if not kept:
            kept.append(_empty(logits_unK, len(images_BCHW), count, logits_unK.shape[2]))
        kept[0][images, copies] = score_classes(logits_unK, score)

    run_masked(model, images_BCHW, count, masks, fill, collect, shared=shared)
    return kept[0]


def run_masked(
    model: nn.Module,
    images_UCHW: Tensor,
    count: int,
    masks: Masks,
    fill: Tensor,
    collect: Callable[[slice, slice, Tensor], None],
    *,
    shared: bool = False,
) -> None:
    """Send every image under every mask through the network, without recording for a backward pass.

    Args:
        collect: Is given (images, masks, logits [images, masks, K]) after each pass.
    """
    size = pass_size(images_UCHW.shape[2], images_UCHW.shape[3], images_UCHW.device)
    buffer = torch.empty_like(images_UCHW[:1].expand(size, -1, -1, -1), memory_format=memory_format_of(images_UCHW))
    with torch.inference_mode():
        for copies, groups in _tiles(len(images_UCHW), count, size):
            for position, images in enumerate(groups):
                if position == 0 or not shared:
                    masks_unHW = masks(slice(0, 1) if shared else images, copies)
                inputs = _blend(images_UCHW[images], masks_unHW, fill[images] if len(fill) > 1 else fill, buffer)
                logits = model(inputs).to(images_UCHW.dtype)
                collect(images, copies, logits.reshape(images.stop - images.start, -1, logits.shape[-1]))


def distinct_images(image_index: Sequence[int] | None, rows: int) -> tuple[list[int], list[int], list[int]]:
    """Which rows hold which image.

    Returns:
        The first row of each different image [U]; each row's image [B] in [0, U); each row's number among the rows of
        its image [B], counted from 0.
    """
    first: dict[int, int] = {}
    seen: list[int] = []
    images, slots = [], []
    for number in range(rows) if image_index is None else image_index:
        image = first.setdefault(number, len(first))
        if image == len(seen):
            seen.append(0)
        images.append(image)
        slots.append(seen[image])
        seen[image] += 1
    starts = {image: row for row, image in reversed(list(enumerate(images)))}
    return [starts[image] for image in range(len(first))], images, slots


def memory_format_of(images_BCHW: Tensor) -> torch.memory_format:
    """``channels_last`` where the images lie so and only so, else ``contiguous_format``."""
    channels_last = images_BCHW.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last and not images_BCHW.is_contiguous() else torch.contiguous_format


def _of_distinct(values: Tensor, rows_U: Sequence[int]) -> Tensor:
    """The rows of different images, in the memory format of the whole."""
    if len(values) in (1, len(rows_U)):
        return values
    chosen = values[torch.tensor(rows_U, device=values.device)]
    return chosen.contiguous(memory_format=memory_format_of(values))


def _empty(like: Tensor, *shape: int) -> Tensor:
    """A tensor that may leave inference mode."""
    with torch.inference_mode(mode=False):
        return torch.empty(shape, dtype=like.dtype, device=like.device)


def _tiles(images: int, count: int, size: int) -> Iterator[tuple[slice, list[slice]]]:
    """Cut images × masks into passes of at most ``size``, all masks' shares nearly equal: (masks, [images, …])."""
    chunks = max(1, math.ceil(count / size))
    edges = [count * chunk // chunks for chunk in range(chunks + 1)]
    for start, stop in itertools.pairwise(edges):
        together = max(1, size // (stop - start))
        yield (
            slice(start, stop),
            [slice(first, min(images, first + together)) for first in range(0, images, together)],
        )


def _blend(images_uCHW: Tensor, masks_unHW: Tensor, fill: Tensor, buffer: Tensor) -> Tensor:
    """Images under masks, written into the buffer: fill + mask · (image - fill), exact at 0 and 1; [u · n, C, H, W]."""
    shape = (len(images_uCHW), masks_unHW.shape[1], *images_uCHW.shape[1:])
    out = buffer[: shape[0] * shape[1]]
    view = out.view(shape)
    images, weights = images_uCHW[:, None], masks_unHW.to(images_uCHW.dtype)[:, :, None].expand(shape)
    fills = fill[:, None].expand(shape)
    # Channel by channel: with channels last, one call would step through the mask a pixel at a time.
    for channel in range(shape[2]):
        one = slice(channel, channel + 1)
        torch.lerp(fills[:, :, one], images.expand(shape)[:, :, one], weights[:, :, one], out=view[:, :, one])
    return out
