"""Pixel ranks of a split's images from a ``maps`` artifact, in as few bytes as they need.

Shapes: N images of a split, B of a chunk, M rows of the maps file, T targets of an image, H × W px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from roarline.artifacts.maps import MapsFile
from roarline.errors import MethodError
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.reduction import apply_sign, merge_targets
from roarline.seeds import derive_seed

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Ranking:
    """How maps become ranks.

    Attributes:
        sign, ties, merge_normalization: As ``imaging`` takes them.
        compat: ``original``: maps are stretched to 256 grey levels first, as the original ROAR code stored them.
        seed: The experiment's, for ties.
    """

    sign: Any
    ties: Any
    merge_normalization: Any
    compat: str
    seed: int


def rank_samples(
    maps: MapsFile, sample_ids: Sequence[str], image_size: tuple[int, int], how: Ranking, device: str = "cpu"
) -> Tensor:
    """Ranks of some images, joined by sample id; several targets of an image merge to one ranking.

    Args:
        maps: [M, H, W], or [M, C, H, W]: then a pixel counts as its largest channel after the sign was applied.
        sample_ids: [N].
        image_size: (H, W) in px.

    Returns:
        [N, H, W] on the device, 0 the most relevant pixel; uint8, int16 or int32, the smallest that also holds H · W.

    Raises:
        ArtifactError: An image has no map, or a map has NaN or infinite values.
        MethodError: The maps have another size than the images.
    """
    if tuple(maps.shape[-2:]) != image_size:
        raise MethodError(
            f"{maps.path}: maps of {maps.shape[-2]}×{maps.shape[-1]} px, images of {image_size[0]}×{image_size[1]} px; "
            "a method must return one value a pixel of its input"
        )
    rows = maps.rows_for(sample_ids)
    dtype = _smallest_dtype(image_size[0] * image_size[1])
    ranks = torch.empty((len(rows), *image_size), dtype=dtype, device=device)
    step = max(1, _CHUNK_BYTES // (8 * image_size[0] * image_size[1]))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        merged_BHW = _merged(maps, chunk, how, device)
        seeds = [derive_seed(how.seed, "ties", sample_id) for sample_id in sample_ids[start : start + step]]
        ranks[start : start + step] = rank_pixels(merged_BHW, seeds, how.ties)
    return ranks


def _merged(maps: MapsFile, rows: Sequence[Sequence[int]], how: Ranking, device: str) -> Tensor:
    stored = torch.from_numpy(maps.maps([row for group in rows for row in group]))
    values = apply_sign(stored.to(device), how.sign)
    if how.compat == "original":
        values = _stretched(values)
    if values.ndim == 4:
        values = values.amax(dim=1)
    if all(len(group) == 1 for group in rows):
        return values
    groups = torch.split(values, [len(group) for group in rows])
    return torch.stack([g[0] if len(g) == 1 else merge_targets(g, how.merge_normalization) for g in groups])


def _stretched(maps: Tensor) -> Tensor:
    """Each map from its least to its largest value to whole numbers 0 … 255, cut off; a constant map becomes 0."""
    flat = maps.flatten(1)
    low = flat.amin(1, keepdim=True)
    span = flat.amax(1, keepdim=True) - low
    levels = ((flat - low) / span.where(span > 0, 1.0) * 255).floor()
    return levels.reshape(maps.shape)


def _smallest_dtype(pixels: int) -> torch.dtype:
    if pixels <= torch.iinfo(torch.uint8).max:
        return torch.uint8
    return torch.int16 if pixels <= torch.iinfo(torch.int16).max else torch.int32
