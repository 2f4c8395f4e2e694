"""Loss and accuracy of a classifier on a split, in eval mode.

Shapes: N images of a split, K classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from roarline.errors import ModelError
from roarline.models.layers import evaluating
from roarline.training.batches import Split, in_order
from roarline.training.losses import Loss, correct_share

_MOST_IMAGES, _MOST_PIXELS = 512, 2**22


@dataclass(frozen=True)
class Evaluation:
    """What a classifier made of a split.

    Attributes:
        loss: Mean over the images; None where no loss was asked for.
        accuracy: Mean of ``correct_N``, in [0, 1].
        correct_N: float32 on the CPU, see ``correct_share``.
        predicted_N: int64 on the CPU, the class of the highest logit.
        logits_NK: float32 on the CPU where images have several labels, else None.
    """

    loss: float | None
    accuracy: float
    correct_N: Tensor
    predicted_N: Tensor
    logits_NK: Tensor | None = None


def evaluate(model: nn.Module, split: Split, loss: Loss | None = None, precision: str = "float32") -> Evaluation:
    """Run all of a split through the model.

    Args:
        model: Left in the mode it had.
        split: At least one image.
        precision: As ``autocast`` takes it.

    Raises:
        ModelError: The network gives NaN or infinite logits.
    """
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    predicted: list[Tensor] = []
    finite: list[Tensor] = []
    kept: list[Tensor] = []
    sizes: list[int] = []
    with evaluating(model), torch.inference_mode(), autocast(split.labels.device, precision):
        for images, labels in in_order(split, evaluation_batch(split)):
            logits = model(images).float()
            if loss is not None:
                losses.append(loss(logits, labels))
            finite.append(logits.isfinite().all())
            correct.append(correct_share(logits, labels))
            predicted.append(logits.argmax(1))
            if labels.ndim == 2:
                kept.append(logits)
            sizes.append(labels.shape[0])
    return gathered(
        torch.stack(finite), torch.stack(losses) if losses else None, sizes, torch.cat(correct), torch.cat(predicted),
        torch.cat(kept) if kept else None,
    )  # fmt: skip


def gathered(
    finite: Tensor, losses: Tensor | None, sizes: Sequence[int], correct_N: Tensor, predicted_N: Tensor,
    logits_NK: Tensor | None,
) -> Evaluation:  # fmt: skip
    """What the batches of a split gave, as one.

    Args:
        finite: bool, any shape: True where logits are finite.
        losses: Mean of each batch, or None.
        sizes: Images of each batch.
        correct_N, predicted_N, logits_NK: See ``Evaluation``, on any device.

    Raises:
        ModelError: Logits are NaN or infinite.
    """
    if not bool(finite.all()):
        raise ModelError(
            "the network gives NaN or infinite logits: its training diverged (lower optimizer.lr), or the weights that "
            "were loaded are broken"
        )
    correct_N = correct_N.cpu().clone()
    mean_loss: float | None = None
    if losses is not None:
        weighed = losses.double().cpu() * torch.tensor(sizes, dtype=torch.float64)
        mean_loss = float(weighed.sum() / sum(sizes))
    return Evaluation(
        loss=mean_loss,
        accuracy=float(correct_N.double().mean()),
        correct_N=correct_N,
        predicted_N=predicted_N.cpu().clone(),
        logits_NK=None if logits_NK is None else logits_NK.cpu().clone(),
    )


def evaluation_batch(split: Split) -> int:
    """Images of an evaluation batch: set by their size alone, so that no result depends on the training batch."""
    height, width = split.image_size
    return max(1, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision for ``bfloat16`` and ``float16``; on a CPU only bfloat16 is mixed, the rest is float32."""
    if precision == "float32" or (precision == "float16" and device.type == "cpu"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype={"bfloat16": torch.bfloat16, "float16": torch.float16}[precision])
