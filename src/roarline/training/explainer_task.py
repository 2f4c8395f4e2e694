"""What the objective of an explainer is told about its training, and how its terms are averaged over a split.

Shapes: B images of a batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roarline.config.training import Training
from roarline.models.layers import evaluating
from roarline.training.batches import Split, in_order
from roarline.training.evaluate import autocast, evaluation_batch
from roarline.training.meter import TOTAL


@dataclass(frozen=True)
class ExplainerTask:
    """The data and the settings of one training.

    Attributes:
        num_classes: K.
        multi_label: True where labels are multi-hot [B, K], else int64 [B].
        most_labels: The most labels that any image of the data set has, at least 1.
        input_size: (H, W) of the images, px.
        settings: Of the training.
        seed: For draws that no batch's generator serves.
    """

    num_classes: int
    multi_label: bool
    most_labels: int
    input_size: tuple[int, int]
    settings: Training
    seed: int


Terms = Callable[[Tensor, Tensor], tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]
"""(images, labels) to named loss terms and named scores, 0-dim means over the images."""


def means_over(split: Split, network: nn.Module, terms: Terms, precision: str) -> dict[str, float]:
    """Terms, their sum ``loss``, and scores, averaged over the images of a split, the network in eval mode.

    Args:
        split: At least one image.
        network: Left in the mode it had.
        terms: Called batch by batch, first image first.
        precision: As ``autocast`` takes it.
    """
    found: list[tuple[int, dict[str, Tensor], list[str]]] = []
    with evaluating(network), torch.no_grad(), autocast(split.labels.device, precision):
        for images, labels in in_order(split, evaluation_batch(split)):
            losses, scores = terms(images, labels)
            found.append((len(images), {**losses, **scores}, list(losses)))
    names, of_loss = list(found[0][1]), found[0][2]
    values = torch.stack([torch.stack([row[name].float() for name in names]) for _, row, _ in found]).double().cpu()
    sizes = torch.tensor([size for size, _, _ in found], dtype=torch.float64)
    means = dict(zip(names, ((values * sizes[:, None]).sum(dim=0) / sizes.sum()).tolist(), strict=True))
    return {TOTAL: math.fsum(means[name] for name in of_loss)} | means
