"""Digests of what is inside a file: names, dtypes, shapes, values; not times, versions or layout. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from roarline.artifacts.hdf5_filters import register_filters
from roarline.artifacts.keys import canonical_json
from roarline.errors import ArtifactError

_ROWS_BYTES, _TEXT_BYTES = 2**22, 64
_TABLE_ROWS = 2**12


def content_digest(path: Path) -> str:
    """SHA-256 of a file's logical content, by its suffix; bytes where the suffix says nothing.

    Raises:
        ArtifactError: The file can't be read as what its suffix says.
    """
    readers = {".h5": _hdf5, ".parquet": _parquet, ".safetensors": _safetensors, ".json": _json}
    reader = readers.get(path.suffix, _bytes)
    digest = hashlib.sha256()
    try:
        for piece in reader(path):
            digest.update(piece)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path}: damaged, can't be read as {path.suffix[1:]} ({error}); delete its folder and run again"
        ) from error
    return digest.hexdigest()


def combined_digest(digests: dict[str, str]) -> str:
    """One digest for an artifact from the digests of its files."""
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()


def array_pieces(name: str, array: np.ndarray) -> Iterator[bytes]:
    """What of an array goes into a digest."""
    yield canonical_json([name, array.dtype.str if array.dtype.kind != "O" else "str", list(array.shape)]).encode()
    if array.dtype.kind in "OUT":
        yield canonical_json(
            [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
        ).encode()
    else:
        yield np.ascontiguousarray(array).tobytes()


def _hdf5(path: Path) -> Iterator[bytes]:
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visit(names.append)
        for name in ["/", *sorted(names)]:
            item = file[name]
            yield canonical_json([name, {key: _plain(value) for key, value in item.attrs.items()}]).encode()
            if not isinstance(item, h5py.Dataset):
                continue
            register_filters(item, path)
            yield canonical_json([item.dtype.str if item.dtype.kind != "O" else "str", list(item.shape)]).encode()
            value_bytes = _TEXT_BYTES if item.dtype.kind == "O" else item.dtype.itemsize
            row_bytes = max(1, value_bytes * int(np.prod(item.shape[1:], dtype=np.int64)))
            step = max(1, _ROWS_BYTES // row_bytes)
            if item.shape == ():
                yield from array_pieces("", np.asarray(item[()]))
                continue
            for start in range(0, item.shape[0], step):
                rows = item[start : start + step]
                if rows.dtype.kind == "O":
                    yield (
                        canonical_json(
                            [v.decode() if isinstance(v, bytes) else str(v) for v in rows.ravel().tolist()]
                        ).encode()[1:-1]
                        + b","
                    )
                else:
                    yield np.ascontiguousarray(rows).tobytes()


def _parquet(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, memory_map=False) as file:
        yield canonical_json([[field.name, str(field.type)] for field in file.schema_arrow]).encode()
        for name in file.schema_arrow.names:  # the bytes of one JSON list, some rows at a time
            before = b"["
            for batch in file.iter_batches(_TABLE_ROWS, columns=[name]):
                if len(batch):
                    values = batch.column(0).to_pylist()
                    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, default=str)
                    yield before + text[1:-1].encode()
                    before = b","
            yield b"[]" if before == b"[" else b"]"


def _safetensors(path: Path) -> Iterator[bytes]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            yield from array_pieces(name, file.get_tensor(name))


def _json(path: Path) -> Iterator[bytes]:
    yield canonical_json(json.loads(path.read_text(encoding="utf-8"))).encode()


def _bytes(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_ROWS_BYTES):
            yield piece


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [value.dtype.str, [_plain(item) for item in value.ravel().tolist()]]
    if isinstance(value, np.generic):
        return value.item()
    return value
