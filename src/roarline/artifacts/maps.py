"""The ``maps`` artifact: attribution maps in one HDF5 file that any reader can use, joined to images by sample id.

Layout of ``maps.h5`` (M rows, a row is an (image, target class) pair): ``/maps`` [M, H, W] or [M, C, H, W] float32
or float16, raw and signed, chunked by rows; ``/sample_ids`` [M] str; ``/targets`` [M] int64; ``/logits`` [M, K]
float32. Attributes: schema_version, method, parameters (JSON), split, classifier_digest, dataset_digest, input_size
[H, W], channels (reduction).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.artifacts.hdf5_filters import filter_options, register_filters
from roarline.artifacts.rows import read_rows
from roarline.errors import ArtifactError, MethodError

MAPS_FILE = "maps.h5"
SCHEMA_VERSION = 1
_CHUNK_BYTES = 2**20


@dataclass
class MapRows:
    """Some rows: sample_ids [B], targets [B] int64, maps [B, (C,) H, W] float, logits [B, K] float32."""

    sample_ids: list[str]
    targets: np.ndarray
    maps: np.ndarray
    logits: np.ndarray


def check_rows(rows: MapRows, what: str) -> None:
    """Refuse maps that no evaluation may see.

    Raises:
        MethodError: A value is NaN or infinite; the message names the first such row.
    """
    finite = np.isfinite(rows.maps).reshape(len(rows.maps), -1).all(axis=1)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise MethodError(
            f"{what}: the map of sample {rows.sample_ids[bad]!r}, target class {int(rows.targets[bad])}, "
            "has NaN or infinite values "
            f"({int((~finite).sum())} such rows in this batch); mend the method, maps are never repaired silently"
        )


def write_part(path: Path, rows: MapRows, compression: str = "none") -> None:
    """Write one closed, renamed part from which an interrupted extraction resumes.

    Args:
        compression: Of ``/maps``, in the chunks of the whole, so that joining need not compress them again.
    """
    import h5py

    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        file.create_dataset("sample_ids", data=rows.sample_ids, dtype=h5py.string_dtype())
        file.create_dataset("targets", data=rows.targets.astype(np.int64))
        filters = filter_options(compression) if len(rows.maps) else {}
        chunks = _chunk(len(rows.maps), rows.maps.shape[1:], rows.maps.dtype) if filters else None
        file.create_dataset("maps", data=rows.maps, chunks=chunks, **filters)
        file.create_dataset("logits", data=rows.logits.astype(np.float32))


def read_part(path: Path) -> MapRows:
    """Read a part; raises OSError where it is damaged."""
    import h5py

    with h5py.File(path, "r") as file:
        ids = [str(value) for value in file["sample_ids"].asstr()[:]]
        return MapRows(ids, file["targets"][:], file["maps"][:], file["logits"][:])


def join_parts(path: Path, parts: Sequence[Path], attributes: Mapping[str, Any], compression: str = "none") -> int:
    """Join parts, in the order given, to ``maps.h5``; memory stays that of one part.

    Args:
        attributes: method, parameters (a mapping), split, classifier_digest, dataset_digest, input_size, channels.
        compression: Of ``/maps``, whatever the parts have.

    Returns:
        M, the number of rows.
    """
    import h5py

    counts = []
    for part in parts:
        with h5py.File(part, "r") as source:
            counts.append(int(source["maps"].shape[0]))
    total, start = sum(counts), 0
    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        for part, count in zip(parts, counts, strict=True):
            with h5py.File(part, "r") as source:
                if start == 0:
                    _create(file, source, total, compression)
                for name in ("sample_ids", "targets", "logits"):
                    file[name][start : start + count] = source[name][:]
                _copy_maps(source["maps"], file["maps"], start, part)
            start += count
        file.attrs["schema_version"] = SCHEMA_VERSION
        for name, value in attributes.items():
            file.attrs[name] = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value
    return total


def _create(file: Any, like: Any, total: int, compression: str) -> None:
    import h5py

    row, dtype = like["maps"].shape[1:], like["maps"].dtype
    # Without rows HDF5 takes no chunks.
    chunks, filters = (_chunk(total, row, dtype), filter_options(compression)) if total else (None, {})
    file.create_dataset("sample_ids", (total,), dtype=h5py.string_dtype())
    file.create_dataset("targets", (total,), dtype=np.int64)
    file.create_dataset("maps", (total, *row), dtype=dtype, chunks=chunks, **filters)
    file.create_dataset("logits", (total, like["logits"].shape[1]), dtype=np.float32)


def _chunk(total: int, row: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """About a MiB of rows; a power of two, so that parts of as many rows hold whole chunks."""
    fitting = max(1, _CHUNK_BYTES // max(1, dtype.itemsize * int(np.prod(row))))
    return (min(total, 1 << (fitting.bit_length() - 1)), *row)


def _copy_maps(source: Any, target: Any, start: int, path: Path) -> None:
    """Copy a part's maps: compressed chunks as they are, where they are those of the whole."""
    count, rows = len(source), target.chunks[0] if target.chunks else 1
    whole_chunks = start % rows == 0 and (count % rows == 0 or start + count == len(target))
    if not (source.chunks == target.chunks and whole_chunks and _filters(source) == _filters(target) != []):
        register_filters(source, path)
        target[start : start + count] = source[:]
        return
    corner = (0,) * (source.ndim - 1)
    for row in range(0, count, rows):
        skipped_filters, chunk = source.id.read_direct_chunk((row, *corner))
        target.id.write_direct_chunk((start + row, *corner), chunk, skipped_filters)


def _filters(dataset: Any) -> list[Any]:
    settings = dataset.id.get_create_plist()
    return [settings.get_filter(index) for index in range(settings.get_nfilters())]


class MapsFile:
    """Read access to ``maps.h5``."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            self._file = h5py.File(path, "r")
            version = int(self._file.attrs["schema_version"])
            lengths = {name: int(self._file[name].shape[0]) for name in ("maps", "sample_ids", "targets", "logits")}
        except (OSError, KeyError) as error:
            raise ArtifactError(f"{path}: can't be read as maps ({error}); delete its folder and run again") from error
        self._check_shards()
        register_filters(self._file["maps"], path)
        if version != SCHEMA_VERSION:
            raise ArtifactError(f"{path}: maps schema {version}, this roarline reads {SCHEMA_VERSION}")
        if len(set(lengths.values())) != 1:
            raise ArtifactError(f"{path}: columns of different length: {lengths}")
        pairs = list(zip(self.sample_ids, self.targets.tolist(), strict=True))
        if len(set(pairs)) != len(pairs):
            twice = next(pair for index, pair in enumerate(pairs) if pair in pairs[:index])
            raise ArtifactError(f"{path}: row (sample {twice[0]!r}, target {twice[1]}) stands twice")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return int(self._file["maps"].shape[0])

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes; ``parameters`` as a mapping."""
        plain = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in self._file.attrs.items()
        }
        plain["parameters"] = json.loads(plain.get("parameters", "{}"))
        return plain

    def _check_shards(self) -> None:
        """HDF5 reads rows of a virtual dataset whose file is missing as zeros."""
        for name in ("maps", "logits"):
            for source in self._file[name].virtual_sources() if self._file[name].is_virtual else ():
                if not (self.path.parent / source.file_name).is_file():
                    self.close()
                    raise ArtifactError(
                        f"{self.path}: its shard {source.file_name} is missing: the file and the folder of its shards "
                        "go together; restore it, or delete the artifact's folder and run again"
                    )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``/maps``."""
        return tuple(self._file["maps"].shape)

    @cached_property
    def sample_ids(self) -> list[str]:
        """[M] ids."""
        return [str(value) for value in self._file["sample_ids"].asstr()[:]]

    @cached_property
    def targets(self) -> np.ndarray:
        """[M] int64."""
        return np.asarray(self._file["targets"][:])

    @cached_property
    def logits(self) -> np.ndarray:
        """[M, K] float32."""
        return np.asarray(self._file["logits"][:])

    def maps(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Maps of some rows, in the order asked for, float32.

        Raises:
            ArtifactError: A value is NaN or infinite; the message names the row.
        """
        order = np.asarray(rows, dtype=np.int64)
        values = np.asarray(read_rows(self._file["maps"], order), dtype=np.float32)
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            row = int(order[np.flatnonzero(~finite)[0]])
            raise ArtifactError(
                f"{self.path}: row {row} (sample {self.sample_ids[row]!r}, target {int(self.targets[row])}) "
                "has NaN or infinite values"
            )
        return values

    @cached_property
    def _rows_of_samples(self) -> dict[str, list[int]]:
        table: dict[str, list[int]] = {}
        for row, sample_id in enumerate(self.sample_ids):
            table.setdefault(sample_id, []).append(row)
        return table

    def rows_for(self, sample_ids: Sequence[str]) -> list[list[int]]:
        """Join by id: for each sample id the rows that hold its maps (several where it has several targets).

        Raises:
            ArtifactError: A sample has no row; the message names it.
        """
        table = self._rows_of_samples
        missing = [sample_id for sample_id in sample_ids if sample_id not in table]
        if missing:
            raise ArtifactError(
                f"{self.path}: no map for sample {missing[0]!r} ({len(missing)} missing of {len(sample_ids)}); "
                "maps and images are joined by sample id, and none may be missing"
            )
        return [table[sample_id] for sample_id in sample_ids]
