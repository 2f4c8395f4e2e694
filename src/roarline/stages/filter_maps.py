"""A filtered version of a method's maps, made from its ``maps`` artifact: the network is not asked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.artifacts.map_parts import MapParts
from roarline.artifacts.maps import MAPS_FILE, MapRows, MapsFile, join_parts, write_part
from roarline.artifacts.store import Artifact, Writer
from roarline.config.component import MapFilter
from roarline.imaging.map_filters import blur_maps, max_filter_maps

_PART_PX = 2**22


def filter_artifact(
    source: Artifact,
    how: MapFilter,
    dtype: str,
    writer: Writer,
    attributes: Mapping[str, Any],
    compression: str = "none",
) -> None:
    """Write ``maps.h5`` with every map of another artifact filtered; ids, targets and logits are taken over.

    Args:
        source: A ``maps`` artifact.
        dtype: float32 or float16 of the result.
        attributes: Of the new file; ``input_size`` is taken over.
        compression: Of the maps in the new file.
    """
    with MapsFile(source.file(MAPS_FILE)) as maps:
        pixels = int(np.prod(maps.shape[1:]))
        with MapParts(writer.parts, len(maps), max(1, _PART_PX // pixels), compression) as parts:
            for index in parts.missing:
                parts.write(index, [_filtered(maps, range(*parts.spans[index]), how, dtype)])
        paths = parts.paths
        if not paths:
            paths = [writer.parts / "none.h5"]
            write_part(paths[0], _filtered(maps, range(0), how, dtype))
        size = np.array(maps.shape[-2:])
    join_parts(writer.out / MAPS_FILE, paths, {**attributes, "input_size": size}, compression)


def apply_filter(maps: Tensor, how: MapFilter) -> Tensor:
    """Filter maps [..., H, W] as the configuration says."""
    if how.kind == "blur":
        return blur_maps(maps, how.sigma_px or 0.0)
    return max_filter_maps(maps, how.window_px or 1)


def _filtered(maps: MapsFile, rows: range, how: MapFilter, dtype: str) -> MapRows:
    chosen = np.arange(rows.start, rows.stop)
    values = apply_filter(torch.from_numpy(maps.maps(chosen)), how) if len(chosen) else None
    filtered = np.empty((0, *maps.shape[1:]), dtype=dtype) if values is None else values.numpy().astype(dtype)
    ids = [maps.sample_ids[row] for row in rows]
    return MapRows(ids, maps.targets[chosen], filtered, maps.logits[chosen])
