"""What the methods share that optimise a mask: scores of altered images and their gradients.

Shapes: N inputs, C channels, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Score = Callable[[Tensor, Tensor], Tensor]


def score_gradients(model: nn.Module, inputs_NCHW: Tensor, targets_N: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    """One forward and one backward pass: each input's score and the score's gradient.

    Args:
        inputs_NCHW: Altered images.
        targets_N: int64 in [0, K).
        score: From logits [N, K] and targets [N] to scores [N].

    Returns:
        Scores [N] and gradients [N, C, H, W].
    """
    with torch.enable_grad():
        leaf = inputs_NCHW.detach().requires_grad_()
        scores = score(model(leaf), targets_N)
        (gradients,) = torch.autograd.grad(scores.sum(), leaf)
    return scores.detach(), gradients


def probability(logits_NK: Tensor, targets_N: Tensor) -> Tensor:
    """[N]: softmax probability of the target."""
    return logits_NK.softmax(dim=1).gather(1, targets_N[:, None])[:, 0]


def logit(logits_NK: Tensor, targets_N: Tensor) -> Tensor:
    """[N]: the target's logit."""
    return logits_NK.gather(1, targets_N[:, None])[:, 0]


def contrast(logits_NK: Tensor, targets_N: Tensor) -> Tensor:
    """[N]: the target's logit minus the largest other one."""
    others = logits_NK.scatter(1, targets_N[:, None], -torch.inf)
    return logit(logits_NK, targets_N) - others.amax(dim=1)


def distinct_images(image_index: Sequence[int]) -> tuple[list[int], list[int]]:
    """Rows to compute once.

    Args:
        image_index: One number a row, equal where two rows are of the same image.

    Returns:
        The first row of each different image, and for each row which of those it is.
    """
    places: dict[int, int] = {}
    firsts = []
    for row, number in enumerate(image_index):
        if number not in places:
            places[number] = len(firsts)
            firsts.append(row)
    return firsts, [places[number] for number in image_index]
