"""Performance information curves: what the classifier says over how much information an image holds.

An image's information is the size of a losslessly compressed file. Shapes: B rows, N images, S revealed shares.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from roarline.errors import UserInputError
from roarline.evaluation.outcomes import (
    LOW_PROBABILITY,
    NO_INFORMATION,
    NOTHING_TO_GAIN,
    OUTPUT_NOT_FINITE,
    Judged,
    judged,
)

Compression = Literal["webp", "png"]
_OPTIONS = {"webp": {"lossless": True, "quality": 100}, "png": {"compress_level": 6}}


def compressed_sizes(images_NCHW: np.ndarray, compression: Compression, executor: Executor) -> Tensor:
    """Bytes that each image takes, compressed without loss.

    Args:
        images_NCHW: uint8, 1 or 3 channels.
        compression: ``webp``, as published, or ``png``.
        executor: Its threads compress side by side.

    Returns:
        float64 [N].

    Source: Kapishnikov et al. 2019, arXiv 1906.02825, section 5.1.
    """
    sizes = executor.map(lambda image: _compressed_size(image, compression), images_NCHW)
    return torch.tensor(list(sizes), dtype=torch.float64)


def area_under_information(
    sizes_BS: Tensor, scores_BS: Tensor, probabilities_B: Tensor, *, least_probability: float, monotone: bool = True
) -> Judged:
    """Area under the score over the information, both scaled from the blurred image, 0, to the whole one, 1.

    Args:
        sizes_BS: Bytes of the blurred image, of images with ever more sharp pixels, and of the whole one; S at least 2.
        scores_BS: What the classifier says of them: sic: the target's probability; aic: 1 where it calls the target,
            else 0.
        probabilities_B: The target's, of the whole image.
        least_probability: A row below it fails.
        monotone: No score lies below that of an image with fewer sharp pixels.

    Returns:
        Values in [0, 1]; rows whose ends can't be told apart fail.

    Source: Kapishnikov et al. 2019, arXiv 1906.02825, section 5.1, in the form of the authors' code: values beyond the
        ends are cut off, points are joined by straight lines in order of their information.
    Differs: files may be PNG; the blurred image is a Gaussian blur instead of an interpolation between one pixel in a
        hundred; the mean over rows is the area under the mean curve, where the paper draws the median curve for sic;
        the exact area under the lines instead of a sum over 1,001 points.
    """
    sizes, scores = sizes_BS.double(), scores_BS.double()
    information, performance = _scaled(sizes), _scaled(scores)
    inner = performance[:, 1:-1]
    if monotone and inner.shape[1]:
        inner = inner.cummax(dim=1).values
    ends = torch.zeros_like(information[:, :1])
    # The ends are fixed, and come after others of their information.
    x = torch.cat([information[:, 1:-1], ends, ends + 1], dim=1)
    y = torch.cat([inner, ends, ends + 1], dim=1)
    x, order = x.sort(dim=1, stable=True)
    areas = torch.trapezoid(y.gather(1, order), x, dim=1)
    return judged(
        areas,
        (OUTPUT_NOT_FINITE, ~torch.isfinite(scores).all(dim=1)),
        (LOW_PROBABILITY, probabilities_B.double() < least_probability),
        (NOTHING_TO_GAIN, scores[:, -1] <= scores[:, 0]),
        (NO_INFORMATION, sizes[:, -1] <= sizes[:, 0]),
    )


def as_pixels(images_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images as uint8, rounded and cut off.

    Args:
        mean, std: Of the normalisation, 1 or C numbers.
    """
    shift, scale = (
        torch.tensor(list(values), device=images_NCHW.device).reshape(1, -1, 1, 1) for values in (mean, std)
    )
    return ((images_NCHW * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


def _scaled(values_BS: Tensor) -> Tensor:
    """From the first column, 0, to the last, 1, cut off beyond; anything where they are the same."""
    span = values_BS[:, -1:] - values_BS[:, :1]
    return ((values_BS - values_BS[:, :1]) / span.where(span != 0, 1.0)).clamp(0, 1)


def _compressed_size(image_CHW: np.ndarray, compression: Compression) -> int:
    channels_last = np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    picture = Image.fromarray(channels_last[:, :, 0] if channels_last.shape[2] == 1 else channels_last)
    file = io.BytesIO()
    try:
        picture.save(file, format=compression, **_OPTIONS[compression])
    except (KeyError, OSError) as error:  # a build of pillow without this format
        raise UserInputError(
            f"pillow can't write {compression} ({error}); install a pillow with it, or set "
            "evaluate-perturbation.information_curve.compression to png"
        ) from error
    return file.tell()
