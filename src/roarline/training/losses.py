"""Losses of logits, and what counts as a right decision.

Shapes: B rows, K classes. Labels are int64 [B] (one class each) or float32 [B, K] multi-hot.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from roarline.errors import UserInputError

LossName = Literal["cross_entropy", "binary_cross_entropy"]
Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(
    name: LossName,
    *,
    label_smoothing: float = 0.0,
    multi_label: bool = False,
    class_reduction: Literal["mean", "sum"] = "mean",
) -> Loss:
    """The mean loss of a batch, 0-dim, in nats, as a function of (logits [B, K], labels).

    Args:
        name: ``cross_entropy``: softmax, for one class each; ``binary_cross_entropy``: a sigmoid for each class, the
            mean over images and classes; labels of one class each count as one-hot.
        label_smoothing: In [0, 1); ``cross_entropy`` only: the target is (1 - s) · one-hot + s / K.
        multi_label: True where labels are multi-hot.
        class_reduction: ``binary_cross_entropy`` only; ``sum``: over classes, K times their mean.

    Raises:
        UserInputError: The loss doesn't go with the labels, or smoothing with the loss.
    """
    if name == "cross_entropy":
        if multi_label:
            raise UserInputError(
                "loss is cross_entropy, but the data set is multi-label; set loss: binary_cross_entropy"
            )
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    if name != "binary_cross_entropy":
        raise UserInputError(f"loss is {name!r}, expected cross_entropy or binary_cross_entropy")
    if label_smoothing:
        raise UserInputError(f"label_smoothing is {label_smoothing}, but only loss: cross_entropy has it; set it to 0")
    loss: Loss = F.binary_cross_entropy_with_logits if multi_label else _one_hot_binary_cross_entropy
    return loss if class_reduction == "mean" else lambda logits, labels: logits.shape[1] * loss(logits, labels)


def _one_hot_binary_cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits_BK, F.one_hot(labels_B, logits_BK.shape[1]).to(logits_BK.dtype))


def correct_share(logits_BK: Tensor, labels: Tensor) -> Tensor:
    """How right each row is.

    Args:
        logits_BK: [B, K].
        labels: int64 [B], or multi-hot [B, K].

    Returns:
        float32 [B]: 1 where the highest logit is the label's, else 0 (of equal logits the first counts); for multi-hot
        labels the share of the K decisions "logit > 0" that are right.
    """
    if labels.ndim == 1:
        return (logits_BK.argmax(1) == labels).float()
    return ((logits_BK > 0) == (labels > 0.5)).float().mean(1)
