"""Losses and accuracies of each network of a stack.

Shapes: B images of a batch, N of a split, S networks of a stack, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from roarline.errors import ModelError
from roarline.models.layers import evaluating
from roarline.models.stacking import StackedNetworks
from roarline.training.batches import Split, in_order
from roarline.training.evaluate import Evaluation, autocast, evaluation_batch, gathered
from roarline.training.losses import Loss, correct_share


def losses_of(loss: Loss, logits_BSK: Tensor, labels: Tensor) -> Tensor:
    """Each network's mean loss of a batch, [S].

    Args:
        labels: int64 [B, S], or float32 [B, S, K] multi-hot.
    """
    found: Tensor = torch.vmap(loss, in_dims=1)(logits_BSK, labels)
    return found


def correct_by_network(logits_BSK: Tensor, labels: Tensor) -> Tensor:
    """How right each decision is, [B, S]; see ``correct_share``."""
    return correct_share(logits_BSK.flatten(0, 1), labels.flatten(0, 1)).view(logits_BSK.shape[:2])


def evaluate_stack(
    networks: StackedNetworks, splits: Sequence[Split], loss: Loss | None = None, precision: str = "float32"
) -> list[Evaluation | ModelError]:
    """What ``evaluate`` gives for each network on its own images; an error in place of NaN or infinite logits.

    Args:
        networks: Left in the mode it had.
        splits: One for each network, of equally many images.
    """
    size = max(1, evaluation_batch(splits[0]) // networks.count)
    found: list[tuple[Tensor, Tensor]] = []
    with evaluating(networks), torch.inference_mode(), autocast(splits[0].labels.device, precision):
        for batch in zip(*(in_order(split, size) for split in splits), strict=True):
            logits_BSK = networks(torch.cat([images for images, _ in batch], 1)).float()
            found.append((logits_BSK, torch.stack([labels for _, labels in batch], 1)))
        losses = None if loss is None else torch.stack([losses_of(loss, *batch) for batch in found]).cpu()
    logits_NSK, correct_NS = (
        torch.cat([batch[0] for batch in found]),
        torch.cat([correct_by_network(*b) for b in found]).cpu(),
    )
    sizes, several = [len(labels) for _, labels in found], splits[0].labels.ndim == 2
    predicted_NS, finite_NS = logits_NSK.argmax(2).cpu(), logits_NSK.isfinite().all(2).cpu()
    evaluations: list[Evaluation | ModelError] = []
    for place in range(networks.count):
        own = None if losses is None else losses[:, place]
        logits_NK = logits_NSK[:, place] if several else None
        try:
            evaluations.append(
                gathered(finite_NS[:, place], own, sizes, correct_NS[:, place], predicted_NS[:, place], logits_NK)
            )
        except ModelError as error:
            evaluations.append(error)
    return evaluations
