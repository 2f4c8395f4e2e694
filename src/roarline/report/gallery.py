"""The gallery: which test images, and every method's map of them as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from roarline.config.component import Sign
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.reduction import apply_sign
from roarline.imaging.removal import remove
from roarline.report.pictures import as_picture, heat_map, is_signed, overlay
from roarline.report.scores import Method


@dataclass(frozen=True)
class Choice:
    """One image of the gallery: its row in the data set, and the class it was drawn for."""

    row: int
    drawn_for: int


@dataclass(frozen=True)
class ClassScore:
    """A class and the classifier's probability for it, in [0, 1]."""

    name: str
    probability: float


@dataclass(frozen=True)
class Tile:
    """One method's map of one image, as pictures uint8 [H, W, 3].

    Attributes:
        signed: True where the colours are symmetric around 0.
        removed: The image without the most relevant pixels of this map.
    """

    method: str
    baseline: bool
    signed: bool
    map: np.ndarray
    overlay: np.ndarray
    removed: np.ndarray


@dataclass(frozen=True)
class Item:
    """One image with every method's map of it.

    Attributes:
        target: Name of the class that the maps explain.
        likeliest: Classes by falling probability; with one label an image, the first is the prediction.
        correct: Whether prediction and label agree; with several labels, for every class.
    """

    sample_id: str
    labels: tuple[str, ...]
    likeliest: tuple[ClassScore, ...]
    target: str
    correct: bool
    picture: np.ndarray
    tiles: tuple[Tile, ...]


def choose(rows: np.ndarray, labels: np.ndarray, count: int, seed: int) -> list[Choice]:
    """Draw images so that the classes take turns.

    Args:
        rows: int64 [N], rows of the data set to draw from.
        labels: int64 [N], or multi-hot uint8 [N, K], of these rows.
        count: How many; all, where there are fewer.
        seed: Seed of the draw.

    Returns:
        Choices in order of the class they were drawn for; none twice. Images without any class come last, if needed,
        and bear class -1.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(rows))
    positives = [np.flatnonzero(labels[i]) if labels.ndim == 2 else np.atleast_1d(labels[i]) for i in range(len(rows))]
    pools: dict[int, list[int]] = {}
    for index in order.tolist():
        for label in positives[index].tolist() or [-1]:
            pools.setdefault(int(label), []).append(index)
    turns = sorted(label for label in pools if label >= 0)
    turns = [turns[i] for i in generator.permutation(len(turns))] if count < len(turns) else turns
    if -1 in pools:
        turns.append(-1)
    taken: dict[int, int] = {}
    while len(taken) < min(count, len(rows)):
        for label in turns:
            free = next((index for index in pools[label] if index not in taken), None)
            if free is not None and len(taken) < count:
                taken[free] = label
    chosen = [Choice(int(rows[index]), label) for index, label in taken.items()]
    return sorted(chosen, key=lambda choice: (choice.drawn_for < 0, choice.drawn_for, choice.row))


def class_scores(
    logits: np.ndarray, class_names: Sequence[str], *, multi_label: bool, most: int = 2
) -> list[ClassScore]:
    """The classifier's likeliest classes: softmax, or for multi-label data the sigmoid of each class.

    Args:
        logits: float [K].
        most: At most so many classes.
    """
    values = logits.astype(np.float64)
    if multi_label:
        probabilities = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    else:
        exponentials = np.exp(values - values.max())
        probabilities = exponentials / exponentials.sum()
    best = np.argsort(-probabilities, kind="stable")[:most]
    return [ClassScore(class_names[index], float(probabilities[index])) for index in best]


def tiles(
    image_CHW: torch.Tensor,
    maps: Mapping[str, np.ndarray],
    methods: Sequence[Method],
    fill_CHW: torch.Tensor,
    removed_fraction: float,
    tie_seed: int,
) -> tuple[Tile, ...]:
    """Every method's map of one image as pictures.

    Args:
        image_CHW: float in [0, 1], [3, H, W].
        maps: Method to its raw map, [H, W] or [C, H, W].
        methods: In the order of the tiles.
        fill_CHW: What stands in removed pixels, broadcastable to the image, in [0, 1].
        removed_fraction: Share of the pixels that are removed, most relevant first.
        tie_seed: Seed of the order of equal pixels.
    """
    picture = as_picture(image_CHW.numpy())
    pixels = int(image_CHW.shape[-2] * image_CHW.shape[-1])
    made = []
    for method in methods:
        map_HW = plane(maps[method.name], method.sign)
        signed = is_signed(map_HW)
        ranks_BHW = rank_pixels(torch.from_numpy(map_HW)[None], [tie_seed])
        left = remove(image_CHW[None], ranks_BHW, removal_count(removed_fraction, pixels), fill_CHW[None])[0]
        made.append(
            Tile(
                method=method.name,
                baseline=method.baseline,
                signed=signed,
                map=heat_map(map_HW, signed=signed),
                overlay=overlay(picture, map_HW, signed=signed),
                removed=as_picture(left.numpy()),
            )
        )
    return tuple(made)


def plane(values: np.ndarray, sign: Sign) -> np.ndarray:
    """One map as it is ranked, float32 [H, W].

    Args:
        values: [H, W]; or [C, H, W] where channels were kept, then a pixel counts as its largest channel.
        sign: How values are read, applied first.
    """
    read = apply_sign(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), sign)
    return (read.amax(dim=0) if read.ndim == 3 else read).numpy()
