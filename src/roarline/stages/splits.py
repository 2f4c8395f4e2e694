"""Splits of a ``dataset`` artifact as the training loop takes them, as network inputs: resident where they fit.

Shapes: N images of a split, B of a batch, C stored channels (1 or 3), H × W px.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.dataset import DatasetFile
from roarline.data.loading import ImageReader, normalise
from roarline.errors import DataError
from roarline.seeds import derive_seed
from roarline.training.batches import ResidentSplit, Split, StreamedSplit

# Fixed numbers, not what this machine has free at the moment: which way is taken must not change from run to run.
_RESIDENT_BYTES_CPU = 2 * 2**30
# A fifth, since beside a training split's images lie those with pixels removed, their ranks, and the other splits'.
_RESIDENT_SHARE_GPU = 0.2
_CHUNK_BYTES = 64 * 2**20

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

Alter = Callable[[Tensor, Tensor], Tensor]
"""(normalised images [B, 3, H, W], their places in the split int64 [B]) to network inputs [B, 3, H, W]."""


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of [0, 1] pixel values, three numbers each."""

    mean: list[float]
    std: list[float]


def normalization_of(setting: Any, dataset: DatasetFile) -> Normalization:
    """What ``data.normalization`` means for a data set; one number stands for all three channels.

    Args:
        setting: ``dataset``, ``imagenet``, or a mapping with ``mean`` and ``std``.

    Raises:
        DataError: The data set has no training split to take statistics from, or a channel is constant.
    """
    if setting == "imagenet":
        mean, std = _IMAGENET
    elif setting == "dataset":
        if dataset.mean is None or dataset.std is None:
            raise DataError(
                f"data set {dataset.name!r} has no training split to take mean and standard deviation from; set "
                "data.normalization to imagenet or to numbers"
            )
        mean, std = dataset.mean.tolist(), dataset.std.tolist()
    else:
        mean, std = list(setting["mean"]), list(setting["std"])
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or min(std) <= 0:
        raise DataError(
            f"normalisation of data set {dataset.name!r}: mean {mean}, std {std}; expected 1 or 3 numbers each and "
            "std above 0"
        )
    return Normalization((mean * 3)[:3], (std * 3)[:3])


@dataclass(frozen=True)
class SplitImages:
    """Images of one split, before anything is removed from them.

    Attributes:
        rows: Row numbers in the data set, int64 [N].
        sample_ids: [N].
        labels: int64 [N], or float32 [N, K] multi-hot, on the device.
        image_size: (H, W) in px.
        normalization: Of the network inputs.
        inputs: float32 [N, 3, H, W] on the device, or None where they don't fit.
        stored: uint8 [N, C, H, W] on the device, or None where they don't fit, or ``inputs`` do.
        read: Places in the split int64 [B] to uint8 [B, C, H, W], where neither fits.
    """

    rows: np.ndarray
    sample_ids: list[str]
    labels: Tensor
    image_size: tuple[int, int]
    normalization: Normalization
    inputs: Tensor | None = None
    stored: Tensor | None = None
    read: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory of the pixels; more than any limit where they are read from an open file."""
        if self.read is not None:
            return sys.maxsize
        return sum(pixels.nbytes for pixels in (self.inputs, self.stored) if pixels is not None)

    def with_shuffled_labels(self, seed: int) -> SplitImages:
        """The same images with their labels in another order: all that is left to learn is which image is which.

        Args:
            seed: The experiment's.

        Source: data randomisation, Adebayo et al. 2018, arXiv 1810.03292, section 4.
        """
        return replace(self, labels=self.labels[shuffled_order(len(self), seed).to(self.labels.device)])

    def altered(self, alter: Alter | None = None) -> Split:
        """The split for the training loop, each image altered once where all fit, else batch by batch."""
        if self.inputs is not None:
            if alter is None:
                return ResidentSplit(self.inputs, self.labels)
            altered = torch.empty_like(self.inputs)
            for start, stop in _chunks(len(self), self.inputs[0].nbytes):
                places = torch.arange(start, stop, device=altered.device)
                altered[start:stop] = alter(self.inputs[start:stop], places)
            return ResidentSplit(altered, self.labels)

        def prepare(stored: Tensor, places: Tensor) -> Tensor:
            # decoded files may come in another memory format, for which convolutions round differently
            inputs = normalise(stored.contiguous(), self.normalization.mean, self.normalization.std)
            return alter(inputs, places) if alter else inputs

        if self.stored is not None:
            return ResidentSplit(self.stored, self.labels, prepare)
        assert self.read is not None
        return StreamedSplit(self.read, self.labels, prepare, self.image_size)


def shuffled_order(count: int, seed: int) -> Tensor:
    """In which order a training split's labels stand where they are shuffled, int64 [count]; the same for all stages.

    Args:
        seed: The experiment's.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "train-cls", "shuffled labels"))
    return torch.randperm(count, generator=generator)


def split_images(
    dataset: DatasetFile,
    reader: ImageReader,
    split: str,
    normalization: Normalization,
    device: str,
    rows: np.ndarray | None = None,
) -> SplitImages:
    """Take one split's images to the device if they fit.

    Args:
        reader: Stays open as long as the result is used, where they don't fit.
        split: One that has images.
        rows: Only these rows of the data set, int64, all of the split; None: the whole split.

    Raises:
        DataError: Images differ in size, or a file is unreadable.
    """
    rows = dataset.rows(split) if rows is None else rows
    size = dataset.image_size
    if size is None:
        raise DataError(
            f"data set {dataset.name!r}: images may differ in size, a batch needs one size; set data.resize_px and "
            "data.crop_px"
        )
    labels = torch.from_numpy(dataset.labels[rows])
    labels = (labels.float() if dataset.multi_label else labels.long()).to(device)
    images = SplitImages(rows, [dataset.sample_ids[row] for row in rows], labels, size, normalization)
    pixels = size[0] * size[1] * len(rows)
    limit = resident_bytes(device)
    if 3 * 4 * pixels <= limit:
        inputs = torch.empty((len(rows), 3, *size), device=device)
        for start, stop in _chunks(len(rows), inputs[0].nbytes):
            pixels_of = reader.read(rows[start:stop]).to(device)
            inputs[start:stop] = normalise(pixels_of, normalization.mean, normalization.std)
        return replace(images, inputs=inputs)
    if 3 * pixels <= limit:
        stored = torch.empty((len(rows), 0, *size), dtype=torch.uint8, device=device)
        for start, stop in _chunks(len(rows), 3 * size[0] * size[1]):
            chunk = reader.read(rows[start:stop])
            if start == 0:
                stored = torch.empty((len(rows), *chunk.shape[1:]), dtype=torch.uint8, device=device)
            stored[start:stop] = chunk.to(device)
        return replace(images, stored=stored)
    return replace(images, read=lambda places: reader.read(rows[places.numpy()]))


def resident_bytes(device: str) -> int:
    """How much one thing may take of the device's memory; beyond that it is read batch by batch."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory * _RESIDENT_SHARE_GPU)
    return _RESIDENT_BYTES_CPU


def _chunks(count: int, row_bytes: int) -> list[tuple[int, int]]:
    step = max(1, _CHUNK_BYTES // max(1, row_bytes))
    return [(start, min(start + step, count)) for start in range(0, count, step)]
