"""Connected components of a grey-level image above every one of many levels at once. numpy and scipy, on the CPU.

Instead of labelling the image once a level, it is labelled once. Every pixel climbs to the local maximum that it leads
to; above any level, what is left of such a basin hangs together, and two basins hang together where the highest pass
between them is above that level. Basins in the order of their single-linkage tree make each component, at every level,
a run of neighbours, so that one segmented reduction gives the boxes and sizes of all of them.

Shapes: H × W px, L levels, K basins, n components of all levels together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

Connectivity = Literal[4, 8]

_FORWARD = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, -1), (1, 0), (1, 1))}
_FEW_EDGES = 2000


@dataclass(frozen=True)
class LevelComponents:
    """Components by rising level; within a level in no particular order.

    Attributes:
        level: int64 [n], index into the levels.
        boxes: int64 [n, 4], x0, y0, x1, y1 in px, inclusive.
        pixels: int64 [n], number of pixels.
        sums: float64 [n, W], the sums over the component's pixels of each of ``weights``.
    """

    level: np.ndarray
    boxes: np.ndarray
    pixels: np.ndarray
    sums: np.ndarray


def components_above(
    values_HW: np.ndarray, levels_L: np.ndarray, connectivity: Connectivity, weights: Sequence[np.ndarray] = ()
) -> LevelComponents:
    """Components of {value > level}, for every level.

    Args:
        values_HW: Real, finite.
        levels_L: Rising, no two equal.
        connectivity: 4 or 8 neighbours.
        weights: W arrays [H, W] of numbers to be added up over each component's pixels, e.g. shares of an area.

    Raises:
        ValueError: Levels don't rise.

    Source: Najman and Couprie 2006, Building the Component Tree in Quasi-Linear Time, for the tree; basins as in
    Couprie and Bertrand's watersheds.
    """
    if len(levels_L) == 0 or bool((np.diff(levels_L) <= 0).any()):
        raise ValueError("levels must rise from one to the next, and there must be one")
    # A pixel lies above the first `slot` levels; nothing else of its value matters.
    slots = np.searchsorted(levels_L, values_HW, side="left").astype(np.int32)
    if not slots.any():
        empty = np.empty(0, dtype=np.int64)
        return LevelComponents(empty, np.empty((0, 4), dtype=np.int64), empty, np.empty((0, len(weights))))
    basin, count = _basins(slots, connectivity)
    order, link = _leaf_order(slots, basin, count, connectivity)
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    ys, xs = np.nonzero(slots)
    slot = slots[ys, xs].astype(np.int64)
    return _reduce(place[basin[ys, xs]], slot, xs, ys, link, len(levels_L), weights)


def _basins(slots_HW: np.ndarray, connectivity: Connectivity) -> tuple[np.ndarray, int]:
    """[H, W] number of the basin of each pixel above the lowest level, and K."""
    height, width = slots_HW.shape
    index = np.arange(height * width, dtype=np.int64).reshape(height, width)
    key = slots_HW.astype(np.int64) * (height * width) + index  # equal values are told apart by place
    padded = np.full((height + 2, width + 2), -1, dtype=np.int64)
    padded[1:-1, 1:-1] = key
    best = key.copy()
    for down, right in _FORWARD[connectivity]:
        for sign in (1, -1):
            neighbour = padded[1 + sign * down : 1 + sign * down + height, 1 + sign * right : 1 + sign * right + width]
            np.maximum(best, neighbour, out=best)
    parent = (best % (height * width)).ravel()
    while True:
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            break
        parent = grandparent
    above = slots_HW.ravel() > 0
    roots = np.flatnonzero((parent == index.ravel()) & above)
    number = np.full(height * width, -1, dtype=np.int64)
    number[roots] = np.arange(len(roots))
    return np.where(above, number[parent], -1).reshape(height, width), len(roots)


def _leaf_order(
    slots_HW: np.ndarray, basin_HW: np.ndarray, count: int, connectivity: Connectivity
) -> tuple[np.ndarray, np.ndarray]:
    """Basins in the order of their single-linkage tree, and [K] the pass between each and the one before (0: none)."""
    low, high, passes = _edges(slots_HW, basin_HW, count, connectivity)
    if len(low) > _FEW_EDGES:  # only those of a spanning tree matter; few are faster tried than sorted out
        top = int(passes.max()) + 1
        tree = minimum_spanning_tree(coo_matrix((top - passes, (low, high)), shape=(count, count))).tocoo()
        low, high, passes = tree.row, tree.col, top - tree.data.astype(np.int64)
    by_height = np.argsort(-passes, kind="stable")
    leader, head, tail, after = list(range(count)), list(range(count)), list(range(count)), [-1] * count
    link = [0] * count

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for edge_low, edge_high, edge_pass in zip(
        low[by_height].tolist(), high[by_height].tolist(), passes[by_height].tolist(), strict=True
    ):
        a, b = find(edge_low), find(edge_high)
        if a != b:
            after[tail[a]], link[head[b]] = head[b], edge_pass
            tail[a], leader[b] = tail[b], a
    order: list[int] = []
    for node in range(count):
        if leader[node] == node:
            leaf = head[node]
            while leaf != -1:
                order.append(leaf)
                leaf = after[leaf]
    leaves = np.array(order, dtype=np.int64)
    return leaves, np.array(link, dtype=np.int64)[leaves]


def _edges(
    slots_HW: np.ndarray, basin_HW: np.ndarray, count: int, connectivity: Connectivity
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of basins that touch, the smaller number first, and the highest pass between them."""
    height, width = slots_HW.shape
    pairs, passes = [], []
    for down, right in _FORWARD[connectivity]:
        here = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        there = np.s_[down:, max(0, right) : width + min(0, right)]
        a, b = basin_HW[here], basin_HW[there]
        apart = (a != b) & (a >= 0) & (b >= 0)
        first, second = a[apart], b[apart]
        pairs.append(np.minimum(first, second) * count + np.maximum(first, second))
        passes.append(np.minimum(slots_HW[here][apart], slots_HW[there][apart]))
    pair, height_of = np.concatenate(pairs), np.concatenate(passes).astype(np.int64)
    span = int(height_of.max(initial=0)) + 1
    ranked = np.sort(pair * span + height_of)  # the last of each pair is its highest pass
    last = np.flatnonzero(np.append(np.diff(ranked // span) != 0, True)) if len(ranked) else np.empty(0, dtype=np.int64)
    pair, height_of = ranked[last] // span, ranked[last] % span
    return pair // count, pair % count, height_of


def _reduce(
    leaf: np.ndarray, slot: np.ndarray, xs: np.ndarray, ys: np.ndarray, link_K: np.ndarray, levels: int,
    weights: Sequence[np.ndarray],
) -> LevelComponents:  # fmt: skip
    """Boxes and sizes: first of each basin above each level, then of each run of basins."""
    count = len(link_K)
    cell = (slot - 1) * count + leaf  # [level, leaf], the highest level that the pixel is above

    def lowest(values: np.ndarray) -> np.ndarray:
        table = np.full(levels * count, np.iinfo(np.int32).max, dtype=np.int32)
        np.minimum.at(table, cell, values.astype(np.int32))
        return np.minimum.accumulate(table.reshape(levels, count)[::-1], axis=0)[::-1].ravel()

    def total(weights: np.ndarray | None) -> np.ndarray:
        table = np.bincount(cell, weights, minlength=levels * count).reshape(levels, count)
        return np.cumsum(table[::-1], axis=0)[::-1].ravel()

    starts = np.flatnonzero((link_K[None, :] <= np.arange(levels)[:, None]).ravel())
    pixels = np.add.reduceat(total(None), starts)
    present = pixels > 0
    x0, y0, x1, y1 = (np.minimum.reduceat(lowest(values), starts)[present] for values in (xs, ys, -xs, -ys))
    sums = np.zeros((int(present.sum()), len(weights)))
    for place, weight_HW in enumerate(weights):
        sums[:, place] = np.add.reduceat(total(weight_HW[ys, xs]), starts)[present]
    boxes = np.stack([x0, y0, -x1, -y1], axis=1).astype(np.int64)
    return LevelComponents((starts // count)[present], boxes, pixels[present].astype(np.int64), sums)
