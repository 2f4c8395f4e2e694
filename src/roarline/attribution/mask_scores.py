"""What the methods share that optimise a mask: scores of altered images and their gradients.

Shapes: N inputs, C channels, H × W px, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Score = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, int], Tensor]


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


def cells_along_a_side(images_BCHW: Tensor, published: int = 28) -> int:
    """How many mask cells an image has along a side: as published for 224 px, but none narrower than two pixels.

    Cells as fine as pixels would make a mask that deletes with adversarial noise in place of a region.

    Returns:
        The smaller of ``published`` and half of the shorter side, rounded down; 2 at least.
    """
    return max(2, min(published, min(images_BCHW.shape[2:]) // 2))


def distinct_images(image_index: Sequence[int]) -> tuple[list[int], list[int]]:
    """Rows to compute once.

    Args:
        image_index: One number a row, equal where two rows are of the same image.

    Returns:
        The first row of each different image, and for each row which of those it is.
    """
    places: dict[int, int] = {}
    firsts: list[int] = []
    for row, number in enumerate(image_index):
        if number not in places:
            places[number] = len(firsts)
            firsts.append(row)
    return firsts, [places[number] for number in image_index]


def memory_format(images_BCHW: Tensor) -> torch.memory_format:
    """How altered copies of the images should lie in memory: as they do."""
    channels_last = images_BCHW.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last and not images_BCHW.is_contiguous() else torch.contiguous_format


def normal_noise(like_BCHW: Tensor, deviation: float, seeds: Sequence[int]) -> Draw:
    """Each row's own normal draws, made on the rows' device: a map may take hundreds of images of noise.

    Args:
        like_BCHW: Gives shape, dtype and device.
        deviation: Standard deviation; 0 draws nothing.
        seeds: One a row.

    Returns:
        From (row, count) to that row's next [count, C, H, W].
    """
    generators = [torch.Generator(like_BCHW.device).manual_seed(seed) for seed in seeds]

    def draw(row: int, count: int) -> Tensor:
        noise = like_BCHW.new_zeros(count, *like_BCHW.shape[1:])
        for image in noise if deviation else ():
            image.normal_(0, deviation, generator=generators[row])
        return noise

    return draw
