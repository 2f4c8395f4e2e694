"""Compression of ``/maps``: what is written with, and what a file that is read needs. Imports no torch.

``gzip`` belongs to HDF5, so that every reader has it. ``lz4`` (bitshuffle, then LZ4) is some ten times faster and needs
the filter plugin, for Python the package hdf5plugin, in whatever reads the file. Content and digests are the same.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from roarline.errors import ArtifactError, UserInputError

_INSTALL = "install it with `pip install roarline[compression]`"


def filter_options(compression: str) -> dict[str, Any]:
    """Keywords of h5py's ``create_dataset``.

    Args:
        compression: none, gzip or lz4.

    Raises:
        UserInputError: lz4 is asked for and hdf5plugin isn't installed.
    """
    if compression == "none":
        return {}
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    try:
        return dict(importlib.import_module("hdf5plugin").Bitshuffle(cname="lz4"))
    except ImportError as error:
        raise UserInputError(
            f"runtime.map_compression is {compression!r}, which needs the package hdf5plugin: {_INSTALL}, or set it to "
            "gzip or none"
        ) from error


def register_filters(dataset: Any, path: Path) -> None:
    """See that a dataset, or those that a virtual one refers to, can be read.

    Args:
        dataset: Of h5py.
        path: Of its file.

    Raises:
        ArtifactError: It is compressed with a filter that neither HDF5 nor hdf5plugin has.
    """
    import h5py

    if dataset.is_virtual:
        for (
            source
        ) in dataset.virtual_sources():  # made by several runs or hosts, perhaps each with a setting of its own
            with h5py.File(path.parent / source.file_name, "r") as file:
                register_filters(file[source.dset_name], path)
        return
    settings = dataset.id.get_create_plist()
    for index in range(settings.get_nfilters()):
        code, _, _, name = settings.get_filter(index)
        if not h5py.h5z.filter_avail(code) and not _plugin_has(code):
            raise ArtifactError(
                f"{path}: {dataset.name} is compressed with HDF5 filter {code} ({name.decode(errors='replace')}), "
                f"which needs the package hdf5plugin: {_INSTALL}"
            )


def _plugin_has(code: int) -> bool:
    import h5py

    try:
        importlib.import_module("hdf5plugin")
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(code))
