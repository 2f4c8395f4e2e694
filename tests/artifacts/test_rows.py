"""Rows of an HDF5 dataset are what numpy's own lists of rows give, read in few pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.artifacts.rows import read_rows

WIDE = 2**18  # bytes of a row between which nothing is worth reading


class Counted:
    """A dataset that notes how many rows each call reads."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset, self.read = dataset, list[int]()
        self.shape, self.dtype = dataset.shape, dataset.dtype

    def read_direct(self, out: np.ndarray, source: slice, place: slice) -> None:
        self.read.append(source.stop - source.start)
        self.dataset.read_direct(out, source, place)

    def __getitem__(self, rows: Any) -> np.ndarray:
        assert isinstance(rows, slice), "a list of rows is what h5py is slow at"
        self.read.append(rows.stop - rows.start)
        return np.asarray(self.dataset[rows])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> h5py.File:
    with h5py.File(tmp_path_factory.mktemp("rows") / "rows.h5", "w") as opened:
        values = np.random.default_rng(0).integers(0, 255, (40, 3, 5), dtype=np.uint8)
        opened["small"] = values
        opened.create_dataset("half", data=values.astype(np.float16), chunks=(1, 3, 5), compression="gzip")
        opened["wide"] = np.arange(12, dtype=np.uint8)[:, None] * np.ones(WIDE, dtype=np.uint8)
        opened["flat"] = np.arange(40)
        yield opened


@given(rows=st.lists(st.integers(0, 39), max_size=60))
def test_rows_in_any_order_and_twice(file: h5py.File, rows: list[int]) -> None:
    for name in ("small", "half", "flat"):
        found = read_rows(file[name], np.array(rows, dtype=np.int64))
        expected = file[name][:][np.array(rows, dtype=np.int64)]
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "rows", "read"),
    [
        ("small", [3, 4, 5], [3]),
        ("small", [0, 39, 7], [40]),  # what lies between is less than another call costs
        ("wide", [4, 5, 6], [3]),
        ("wide", [9, 0, 1, 0], [2, 1]),
        ("wide", [0, 2, 4], [5]),
        ("wide", [], []),
    ],
)
def test_neighbours_are_read_together_and_wide_gaps_are_not(
    file: h5py.File, name: str, rows: list[int], read: list[int]
) -> None:
    dataset = Counted(file[name])
    np.testing.assert_array_equal(read_rows(dataset, np.array(rows, dtype=np.int64)), file[name][:][rows or slice(0)])
    assert dataset.read == read


def test_rows_of_a_virtual_dataset(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(shape=(8, 2), dtype=np.int64)
    for part in range(2):
        with h5py.File(tmp_path / f"{part}.h5", "w") as one:
            one["rows"] = np.arange(8).reshape(4, 2) + 8 * part
        layout[4 * part : 4 * part + 4] = h5py.VirtualSource(f"{part}.h5", "rows", shape=(4, 2))
    with h5py.File(tmp_path / "all.h5", "w") as joined:
        joined.create_virtual_dataset("rows", layout)
    with h5py.File(tmp_path / "all.h5") as joined:
        np.testing.assert_array_equal(read_rows(joined["rows"], np.array([5, 3, 4])), [[10, 11], [6, 7], [8, 9]])
