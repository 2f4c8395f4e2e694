"""Shards of one method's maps, opened as one: ``maps.h5`` with virtual datasets over the shards' files. No torch.

The shards lie beside it in the artifact's own folder, named by a path relative to it, so that the folder can be moved,
verified and dropped as a whole. ``/maps`` and ``/logits`` are virtual; ``/sample_ids`` and ``/targets``, which every
reader takes whole, are copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roarline.artifacts.files import atomic_path
from roarline.artifacts.manifest import companions_folder
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.errors import ArtifactError

_VIRTUAL = ("maps", "logits")


def join_shards(out: Path, shards: Sequence[Path]) -> list[str]:
    """Write ``maps.h5`` over shards in the order given, which are linked into ``out`` (copied where that can't be).

    Args:
        out: The folder that becomes the artifact.
        shards: ``maps.h5`` of each, one or more; together they hold every row once. Those without rows are left out.

    Returns:
        Names of the shards' files, relative to ``out``: their content is that of ``maps.h5``.

    Raises:
        ArtifactError: They are of different methods, networks or image sizes, or two hold the same row.
    """
    import h5py

    shards = [shard for shard in shards if _row_count(shard)] or shards[:1]
    names = [f"{companions_folder(MAPS_FILE)}/{index:04d}.h5" for index in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _link(shard, out / name)
    with atomic_path(out / MAPS_FILE) as partial, contextlib.ExitStack() as files:
        opened = [files.enter_context(h5py.File(out / name, "r")) for name in names]
        _check_alike(opened, shards)
        with h5py.File(partial, "w", libver="v110") as file:
            _write_joined(file, names, opened)
    with MapsFile(out / MAPS_FILE):  # refuses rows that stand twice
        return names


def _write_joined(file: Any, names: Sequence[str], shards: Sequence[Any]) -> None:
    import h5py
    import numpy as np

    counts = [int(shard["maps"].shape[0]) for shard in shards]
    total = sum(counts)
    ids = np.concatenate([shard["sample_ids"][:] for shard in shards])
    file.create_dataset("sample_ids", (total,), dtype=h5py.string_dtype(), data=ids)
    file.create_dataset("targets", data=np.concatenate([shard["targets"][:] for shard in shards]))
    for name in _VIRTUAL:
        row, dtype = shards[0][name].shape[1:], shards[0][name].dtype
        if not total:  # nothing to refer to
            file.create_dataset(name, (0, *row), dtype=dtype)
            continue
        layout, start = h5py.VirtualLayout((total, *row), dtype), 0
        for shard, count in zip(names, counts, strict=True):
            layout[start : start + count] = h5py.VirtualSource(shard, name, (count, *row), dtype)
            start += count
        file.create_virtual_dataset(name, layout)
    for name, value in shards[0].attrs.items():
        file.attrs[name] = value


def _check_alike(opened: Sequence[Any], shards: Sequence[Path]) -> None:
    """Refuse shards that are not of one recipe: a virtual dataset would take what it gets."""
    first = _kind(opened[0])
    for file, path in zip(opened, shards, strict=True):
        other = _kind(file)
        different = sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name))
        if different:
            raise ArtifactError(
                f"{path}: is no shard of the same maps as {shards[0]}: other {', '.join(different)}; "
                "delete both folders and run again"
            )


def _kind(file: Any) -> dict[str, Any]:
    shapes = {f"/{name}": (file[name].shape[1:], file[name].dtype.str) for name in _VIRTUAL}
    return {**{name: str(value) for name, value in file.attrs.items()}, **shapes}


def _row_count(shard: Path) -> int:
    import h5py

    with h5py.File(shard, "r") as file:
        return int(file["maps"].shape[0])


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
