"""The ``dataset`` artifact: one HDF5 file with ids, labels, splits, ground truth, and pixels or an index of files.

Layout of ``dataset.h5`` (N samples, K classes): ``/sample_ids`` [N] str, ``/split`` [N] uint8 (0 train, 1
validation, 2 test), ``/labels`` [N] int64 or [N, K] uint8 multi-hot; packed: ``/images`` [N, C, H, W] uint8;
indexed: ``/files`` [N] str, ``/file_offset`` [N] int64 (-1: a file of its own, else a place in a tar),
``/file_size`` [N] int64, ``/file_sha256`` [N] str. Optional ground truth, of the images as they are after resizing and
cropping, packed or indexed: ``/boxes`` [M, 6] int64 (row, class, x0, y0, x1, y1 in px, inclusive), rows rising, with
``/box_difficult`` [M] uint8 (absent: none is); ``/segmentation`` [N, H, W] uint8 (0 background, c + 1 class c, 255
void; void all over where an image has none). Where objects of several classes overlap, the smaller one lies on top
there, and the covered class's whole mask stands in ``/covered`` [L, 2] int64 (row, class), ``/covered_runs`` [R] int64
(run lengths, row by row of the image, zeros first) and ``/covered_ends`` [L] (where in the runs each ends). Attributes:
schema_version, name, class_names, multi_label, mean, std (of the training split in [0, 1], one number a channel;
absent without one), resize_px, crop_px (0: none), stretched (where both sides are resized to resize_px), image_size
[H, W] (packed). ``/shares`` [N, H, W] uint8 beside segmentation where that is soft: of 255, how much of a pixel is an
object's, of whatever class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from roarline.artifacts.files import atomic_path
from roarline.artifacts.rows import read_rows
from roarline.artifacts.runs import CoveredMasks, from_run_lengths
from roarline.errors import ArtifactError

DATASET_FILE = "dataset.h5"
SPLITS = ("train", "validation", "test")
VOID = 255
_SCHEMA_VERSION = 1
_MASK_CHUNK_BYTES = 64 * 2**10


@dataclass
class RowChunks:
    """A column too large for memory: ``chunks`` are consecutive rows, uint8, ``shape`` is that of all of them."""

    shape: tuple[int, ...]
    chunks: Iterable[np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]


@dataclass
class DatasetContent:
    """What goes into a ``dataset`` artifact; see the module's docstring for shapes."""

    name: str
    class_names: list[str]
    multi_label: bool
    sample_ids: list[str]
    split: np.ndarray
    labels: np.ndarray
    mean: np.ndarray | None
    std: np.ndarray | None
    resize_px: int | None = None
    crop_px: int | None = None
    stretched: bool = False
    image_size: tuple[int, int] | None = None
    images: np.ndarray | RowChunks | None = None
    files: list[str] | None = None
    file_offset: np.ndarray | None = None
    file_size: np.ndarray | None = None
    file_sha256: list[str] | None = None
    boxes: np.ndarray | None = None
    box_difficult: np.ndarray | None = None
    segmentation: np.ndarray | RowChunks | None = None
    covered: CoveredMasks | None = None
    shares: np.ndarray | RowChunks | None = None


def write_dataset(path: Path, content: DatasetContent) -> None:
    """Write ``dataset.h5`` atomically.

    Raises:
        ArtifactError: Ids are not unique, or lengths differ.
    """
    import h5py

    count = len(content.sample_ids)
    if len(set(content.sample_ids)) != count:
        twice = next(i for i in content.sample_ids if content.sample_ids.count(i) > 1)
        raise ArtifactError(f"data set {content.name!r}: sample id {twice!r} stands twice")
    columns: dict[str, Any] = {
        "split": content.split.astype(np.uint8), "labels": content.labels, "images": content.images,
        "file_offset": content.file_offset, "file_size": content.file_size, "segmentation": content.segmentation,
        "shares": content.shares,
    }  # fmt: skip
    texts = {"sample_ids": content.sample_ids, "files": content.files, "file_sha256": content.file_sha256}
    for name, column in {**columns, **texts}.items():
        if column is not None and len(column) != count:
            raise ArtifactError(f"data set {content.name!r}: {name} has {len(column)} rows, expected {count}")
    with atomic_path(path) as partial, h5py.File(partial, "w", libver="v110", track_order=False) as file:
        for name, column in columns.items():
            packing = _mask_packing(column.shape) if name in ("segmentation", "shares") and column is not None else {}
            if isinstance(column, RowChunks):
                _write_chunks(file, name, column, packing)
            elif column is not None:
                file.create_dataset(name, data=column, **packing)
        for name, text in texts.items():
            if text is not None:
                file.create_dataset(name, data=text, dtype=h5py.string_dtype())
        if content.boxes is not None:
            file.create_dataset("boxes", data=content.boxes.astype(np.int64).reshape(-1, 6))
            if content.box_difficult is not None and content.box_difficult.any():
                file.create_dataset("box_difficult", data=content.box_difficult.astype(np.uint8))
        for name, column in (content.covered.columns() if content.covered else {}).items():
            file.create_dataset(name, data=column)
        file.attrs["schema_version"] = _SCHEMA_VERSION
        file.attrs["name"] = content.name
        file.attrs["multi_label"] = content.multi_label
        file.attrs["class_names"] = content.class_names
        if content.mean is not None and content.std is not None:
            file.attrs["mean"] = np.asarray(content.mean, dtype=np.float64)
            file.attrs["std"] = np.asarray(content.std, dtype=np.float64)
        file.attrs["resize_px"] = content.resize_px or 0
        file.attrs["crop_px"] = content.crop_px or 0
        if content.stretched:
            file.attrs["stretched"] = True
        size = content.images.shape[2:] if content.images is not None else content.image_size
        if size is not None:
            file.attrs["image_size"] = [int(side) for side in size]


def _mask_packing(shape: tuple[int, ...]) -> dict[str, Any]:
    """Masks are mostly flat, so that they compress well and fast."""
    rows = max(1, min(shape[0], _MASK_CHUNK_BYTES // max(1, shape[1] * shape[2])))
    return {"chunks": (rows, *shape[1:]), "compression": "gzip", "compression_opts": 1} if all(shape) else {}


def _write_chunks(file: Any, name: str, column: RowChunks, packing: dict[str, Any]) -> None:
    target, start = file.create_dataset(name, column.shape, dtype=np.uint8, **packing), 0
    for chunk in column.chunks:
        target[start : start + len(chunk)] = chunk
        start += len(chunk)
    if start != len(column):
        raise ArtifactError(f"{name}: got {start} rows, expected {len(column)}")


class DatasetFile:
    """Read access to ``dataset.h5``; small columns are read when asked for, pixels by row."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            self._file = h5py.File(path, "r")
            version = int(self._file.attrs["schema_version"])
        except (OSError, KeyError) as error:
            raise ArtifactError(
                f"{path}: can't be read as a data set ({error}); delete its folder and run again"
            ) from error
        if version != _SCHEMA_VERSION:
            raise ArtifactError(f"{path}: data set schema {version}, this roarline reads {_SCHEMA_VERSION}")

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
        return int(self._file["sample_ids"].shape[0])

    @property
    def name(self) -> str:
        """Name of the data set."""
        return str(self._file.attrs["name"])

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the K classes."""
        return [str(name) for name in self._file.attrs["class_names"]]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """True where labels are multi-hot."""
        return bool(self._file.attrs["multi_label"])

    @cached_property
    def mean(self) -> np.ndarray | None:
        """[C] float64, of the training split, in [0, 1]; None where there is no training split."""
        return np.asarray(self._file.attrs["mean"]) if "mean" in self._file.attrs else None

    @cached_property
    def std(self) -> np.ndarray | None:
        """[C] float64, of the training split, in [0, 1]; None where there is no training split."""
        return np.asarray(self._file.attrs["std"]) if "std" in self._file.attrs else None

    @property
    def resize_px(self) -> int | None:
        """Shorter side to which indexed images are resized when they are read (packed ones are already)."""
        return int(self._file.attrs["resize_px"]) or None

    @property
    def crop_px(self) -> int | None:
        """Side of the centre square that is then cut from indexed images."""
        return int(self._file.attrs["crop_px"]) or None

    @property
    def stretched(self) -> bool:
        """True where ``resize_px`` is of both sides of indexed images."""
        return bool(self._file.attrs.get("stretched", False))

    @property
    def packed(self) -> bool:
        """True where the file holds the pixels."""
        return "images" in self._file

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(H, W) of every image, after resizing and cropping; None where sizes may differ."""
        if "image_size" not in self._file.attrs:
            return None
        height, width = self._file.attrs["image_size"]
        return int(height), int(width)

    @cached_property
    def sample_ids(self) -> list[str]:
        """[N] ids."""
        return [str(value) for value in self._file["sample_ids"].asstr()[:]]

    @cached_property
    def labels(self) -> np.ndarray:
        """[N] int64, or [N, K] uint8 multi-hot."""
        return np.asarray(self._file["labels"][:])

    @cached_property
    def split(self) -> np.ndarray:
        """[N] uint8: index into SPLITS."""
        return np.asarray(self._file["split"][:])

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split, rising, int64."""
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    def pixels(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Packed pixels of some rows, in the order asked for: uint8 [B, C, H, W]."""
        if not self.packed:
            raise ArtifactError(f"{self.path}: its pixels are not packed; read the files it lists")
        return read_rows(self._file["images"], rows)

    def file_entries(self, rows: Sequence[int] | np.ndarray) -> list[tuple[str, int, int, str]]:
        """(path relative to the raw data's root, offset or -1, size in bytes, SHA-256 or "") of indexed images."""
        files, offsets, sizes, hashes = self._index
        return [(files[row], int(offsets[row]), int(sizes[row]), hashes[row]) for row in np.asarray(rows)]

    @cached_property
    def _index(self) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
        return (
            list(self._file["files"].asstr()[:]), self._file["file_offset"][:], self._file["file_size"][:],
            list(self._file["file_sha256"].asstr()[:]),
        )  # fmt: skip

    @cached_property
    def boxes(self) -> np.ndarray | None:
        """[M, 6] int64 (row, class, x0, y0, x1, y1 in px, inclusive), or None."""
        return np.asarray(self._file["boxes"][:]) if "boxes" in self._file else None

    @cached_property
    def box_difficult(self) -> np.ndarray | None:
        """bool [M]: boxes that the annotators flagged as hard to recognise (COCO: crowds); None without boxes."""
        if self.boxes is None:
            return None
        if "box_difficult" not in self._file:
            return np.zeros(len(self.boxes), dtype=bool)
        return np.asarray(self._file["box_difficult"][:], dtype=bool)

    @property
    def segmented(self) -> bool:
        """True where ``segmentation`` gives masks."""
        return "segmentation" in self._file

    def segmentation(self, rows: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """uint8 [B, H, W] of some rows (0 background, c + 1 class c, 255 void), or None.

        An image whose segmentation is not known is void all over. Where classes overlap, ``class_masks`` knows more.
        """
        return read_rows(self._file["segmentation"], rows) if self.segmented else None

    def shares(self, rows: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Soft masks: uint8 [B, H, W], of 255 how much of a pixel is an object's, or None where masks are not soft."""
        return read_rows(self._file["shares"], rows) if "shares" in self._file else None

    def class_masks(self, rows: Sequence[int] | np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """The whole mask of one class on each of some rows, also where other classes' objects cover it.

        Args:
            rows: [B].
            classes: [B].

        Returns:
            uint8 [B, H, W] (0 not the class, 1 the class, 255 void), or None where there is no segmentation.
        """
        labels = self.segmentation(rows)
        if labels is None:
            return None
        numbers = np.asarray(classes, dtype=np.int64)
        masks: np.ndarray = (labels == (numbers + 1)[:, None, None]).astype(np.uint8)
        masks[labels == VOID] = VOID
        for place, key in enumerate(zip(np.asarray(rows).tolist(), numbers.tolist(), strict=True)):
            if key in self._covered:
                start, stop = self._covered[key]
                runs = self._file["covered_runs"][start:stop]
                masks[place][from_run_lengths(runs, (masks.shape[1], masks.shape[2]))] = 1
        return masks

    @cached_property
    def _covered(self) -> dict[tuple[int, int], tuple[int, int]]:
        if "covered" not in self._file:
            return {}
        ends = self._file["covered_ends"][:].tolist()
        places = self._file["covered"][:].tolist()
        return {
            (row, label): span
            for (row, label), span in zip(places, zip([0, *ends[:-1]], ends, strict=True), strict=True)
        }
