"""Stratified draws that depend on the seed and the sample ids only, never on the order of files. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from roarline.errors import DataError


def strata(labels: np.ndarray) -> np.ndarray:
    """The group of each sample in which shares are kept.

    Args:
        labels: [N] class numbers, or multi-hot [N, K].

    Returns:
        [N] int64: the class; for several labels the sample's rarest class (the fewest samples, then the lowest
        number), K without any label.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    positive = labels.astype(bool)
    rarity = np.where(positive, positive.sum(axis=0), np.iinfo(np.int64).max)
    return np.asarray(np.where(positive.any(axis=1), rarity.argmin(axis=1), labels.shape[1]), dtype=np.int64)


def draw_share(
    sample_ids: Sequence[str],
    groups: np.ndarray,
    fraction: float,
    seed: int,
    *,
    group_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw round(fraction · N) samples, of each group its share.

    A group's share is its exact one rounded up or down (largest remainders up), but leaves at least one sample on
    either side.

    Args:
        sample_ids: [N] ids.
        groups: [N] int, of ``strata``.
        fraction: In (0, 1).
        seed: Equal seeds give equal draws for equal ids, in whatever order these come.
        group_names: Names for the message; given, a group of one sample is an error; else it is never drawn.

    Returns:
        bool [N]: True where drawn.

    Raises:
        DataError: A group has too few samples to be on both sides.
    """
    values, sizes = np.unique(groups, return_counts=True)
    if group_names is not None and sizes.min() < 2:
        lonely = [group_names[int(value)] for value in values[sizes < 2]]
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise DataError(
            f"class {', '.join(map(repr, lonely[:5]))}{more}: 1 image where 2 are needed for a stratified split; "
            "add images, remove the class, or set data.validation_fraction to 0"
        )
    total = int(np.floor(fraction * len(groups) + 0.5))
    order = _order(sample_ids, seed)
    counts = np.clip(_apportion(sizes, total, order, groups), np.minimum(1, sizes - 1), sizes - 1)
    return _first_of_groups(order, groups, dict(zip(values.tolist(), counts.tolist(), strict=True)))


def draw_count(sample_ids: Sequence[str], groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw ``count`` samples (all where there are fewer), of each group its share, rounded up or down.

    Args, Returns: as ``draw_share``.
    """
    if count >= len(groups):
        return np.ones(len(groups), dtype=bool)
    values, sizes = np.unique(groups, return_counts=True)
    order = _order(sample_ids, seed)
    counts = _apportion(sizes, count, order, groups)
    return _first_of_groups(order, groups, dict(zip(values.tolist(), counts.tolist(), strict=True)))


def draw_per_group(sample_ids: Sequence[str], groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw ``count`` samples of each group, all of a group that has fewer.

    Args, Returns: as ``draw_share``. A larger count draws the same samples and more.
    """
    wanted = dict.fromkeys(np.unique(groups).tolist(), count)
    return _first_of_groups(_order(sample_ids, seed), groups, wanted)


def _order(sample_ids: Sequence[str], seed: int) -> np.ndarray:
    """Rows in the order in which they are drawn: by a hash of seed and id, so that no other sample matters."""
    salt = str(seed).encode()
    keys = [
        hashlib.blake2b(name.encode("utf-8", "surrogateescape"), key=salt, digest_size=16).digest()
        for name in sample_ids
    ]
    return np.asarray(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def _apportion(sizes: np.ndarray, total: int, order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Largest remainders in exact integers; equal remainders go to the group that is drawn first."""
    whole, remainders = np.divmod(sizes.astype(np.int64) * total, int(sizes.sum()))
    values, first_drawn = np.unique(groups[order], return_index=True)
    by_remainder = sorted(range(len(values)), key=lambda group: (-remainders[group], first_drawn[group]))
    counts = whole.astype(np.int64)
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return counts


def _first_of_groups(order: np.ndarray, groups: np.ndarray, counts: dict[int, int]) -> np.ndarray:
    drawn = np.zeros(len(groups), dtype=bool)
    left = dict(counts)
    for row, group in zip(order.tolist(), groups[order].tolist(), strict=True):
        if left[group] > 0:
            left[group] -= 1
            drawn[row] = True
    return drawn
