"""What a built-in method may know beside the model, the images and the targets.

A method asks by naming keyword-only arguments; whoever calls it passes those that its signature has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from roarline.errors import MethodError

EXTRAS = (
    "seeds", "shared_seed", "logits_BK", "image_index", "mean", "std", "references", "ground_truth", "explainer",
)  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """The same for all batches of one method on one data set.

    Attributes:
        shared_seed: For draws that all images and classes share.
        mean: Of the normalisation, 1 or C numbers; a pixel is value · std + mean, in [0, 1].
        std: Of the normalisation, 1 or C numbers.
        references: From a number n to [n, C, H, W] normalised training images, the same for the same n.
        ground_truth: From sample ids and targets [B] to [B, H, W], 1 at pixels of the target's objects, else 0.
        explainer: A trained one's: from the classifier and images [B, C, H, W] to masks [B, K, H, W] or [B, 1, H, W].
    """

    shared_seed: int = 0
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    references: Callable[[int], Tensor] | None = None
    ground_truth: Callable[[Sequence[str], Tensor], Tensor] | None = None
    explainer: Callable[[nn.Module, Tensor], Tensor] | None = None


def wanted_extras(function: Callable[..., Any]) -> frozenset[str]:
    """The extras that a built-in method's signature names."""
    parameters = inspect.signature(function).parameters
    return frozenset(name for name in EXTRAS if name in parameters)


def image_numbers(sample_ids: Sequence[str]) -> list[int]:
    """One number a row, equal where two rows are of the same image.

    Args:
        sample_ids: [B].

    Returns:
        [B], counted from 0 in order of first appearance.
    """
    known: dict[str, int] = {}
    return [known.setdefault(sample_id, len(known)) for sample_id in sample_ids]


def extras_for(
    name: str,
    wanted: frozenset[str],
    surroundings: Surroundings,
    *,
    seeds: Sequence[int],
    logits_BK: Tensor | None,
    targets_B: Tensor,
    sample_ids: Sequence[str],
    image_ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The keyword arguments of one call.

    Args:
        name: The method, for messages.
        wanted: What its signature names.
        seeds: One a row.
        logits_BK: Of the unchanged images; None where they are not known yet.
        targets_B: The rows' classes.
        sample_ids: One a row.
        image_ids: One a row, equal where two rows hold the same pixels; default: the sample ids.

    Raises:
        MethodError: The method needs training images, ground truth or an explainer, and there is none.
    """
    if "explainer" in wanted and surroundings.explainer is None:
        raise MethodError(
            f"{name}: draws the masks of a trained explainer, and there is none here; name one of train-explainer as "
            "the method's `explainer`"
        )

    def ground_truth() -> Tensor:
        if surroundings.ground_truth is None:
            raise MethodError(f"{name}: needs ground truth (boxes or segmentation), and there is none here")
        return surroundings.ground_truth(sample_ids, targets_B)

    def references(count: int) -> Tensor:
        if surroundings.references is None:
            raise MethodError(f"{name}: needs images of the training split as references, and there are none here")
        return surroundings.references(count)

    offered: dict[str, Any] = {
        "seeds": seeds,
        "shared_seed": surroundings.shared_seed,
        "logits_BK": logits_BK,
        "image_index": image_numbers(sample_ids if image_ids is None else image_ids),
        "mean": surroundings.mean,
        "std": surroundings.std,
        "references": references,
        "ground_truth": ground_truth,
        "explainer": surroundings.explainer,
    }
    return {key: value for key, value in offered.items() if key in wanted}
