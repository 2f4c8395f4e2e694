"""Compression changes the bytes of a maps file, and neither what is read from it nor its digest."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.artifacts import maps as maps_module
from roarline.artifacts.digest import content_digest
from roarline.artifacts.hdf5_filters import filter_options
from roarline.artifacts.map_parts import MapParts
from roarline.artifacts.map_shards import join_shards
from roarline.artifacts.maps import MAPS_FILE, MapRows, MapsFile, join_parts
from roarline.errors import ArtifactError, UserInputError

SIDE = 8
KINDS = ("none", "gzip", "lz4")


def maps_file(
    folder: Path, values: np.ndarray, *, part_rows: int, parts: str = "none", whole: str = "none", first: int = 0
) -> Path:
    """A file joined from parts."""
    folder.mkdir(parents=True)
    with MapParts(folder / "parts", len(values), part_rows, parts) as written:
        for index, (start, stop) in enumerate(written.spans):
            ids = [f"s{first + row}" for row in range(start, stop)]
            logits = np.zeros((stop - start, 2), np.float32)
            written.write(index, [MapRows(ids, np.arange(start, stop), values[start:stop], logits)])
    join_parts(folder / MAPS_FILE, written.paths, {"method": "m", "parameters": {}}, whole)
    return folder / MAPS_FILE


def smooth(count: int, dtype: str = "float32") -> np.ndarray:
    """Maps that compress well."""
    row = np.linspace(0, 1, SIDE, dtype=np.float32)
    return (np.arange(1, count + 1, dtype=np.float32)[:, None, None] * np.outer(row, row)).astype(dtype)


@settings(max_examples=25)
@given(
    count=st.integers(1, 20),
    part_rows=st.integers(1, 9),
    chunk_rows=st.sampled_from([1, 2, 4]),
    parts=st.sampled_from(KINDS),
    whole=st.sampled_from(KINDS),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_content_and_digest_are_those_of_the_plain_file(
    tmp_path_factory: pytest.TempPathFactory,
    count: int, part_rows: int, chunk_rows: int, parts: str, whole: str, dtype: str,
) -> None:  # fmt: skip
    """Whatever the parts have: chunks of the whole are copied as they are, others are written anew."""
    folder, values = tmp_path_factory.mktemp("filters"), smooth(count, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps_module, "_CHUNK_BYTES", chunk_rows * values[0].nbytes)
        plain = maps_file(folder / "plain", values, part_rows=part_rows)
        other = maps_file(folder / "other", values, part_rows=part_rows, parts=parts, whole=whole)
    assert content_digest(other) == content_digest(plain)
    with MapsFile(other) as maps:
        np.testing.assert_array_equal(maps.maps(range(count)), values.astype(np.float32))
    with h5py.File(other) as file:
        assert file["maps"].id.get_create_plist().get_nfilters() == {"none": 0, "gzip": 2, "lz4": 1}[whole]


@pytest.mark.parametrize("kind", ["gzip", "lz4"])
def test_smooth_maps_shrink_and_joining_copies_chunks_as_they_are(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps_module, "_CHUNK_BYTES", 64 * SIDE * SIDE * 4)
    values = smooth(256)
    plain = maps_file(tmp_path / "plain", values, part_rows=128)
    other = maps_file(tmp_path / "other", values, part_rows=128, parts=kind, whole=kind)
    assert other.stat().st_size < 0.7 * plain.stat().st_size
    with h5py.File(other) as file, h5py.File(tmp_path / "other" / "parts" / "00000128-00000256.h5") as part:
        assert file["maps"].id.read_direct_chunk((128, 0, 0)) == part["maps"].id.read_direct_chunk((0, 0, 0))


def test_shards_may_be_compressed(tmp_path: Path) -> None:
    values = smooth(12)
    plain = maps_file(tmp_path / "plain", values, part_rows=12)
    shards = []
    for index, rows in enumerate((values[:5], values[5:])):
        shards.append(maps_file(tmp_path / str(index), rows, part_rows=9, parts="lz4", whole="lz4", first=5 * index))
    (tmp_path / "out").mkdir()
    join_shards(tmp_path / "out", shards)
    with MapsFile(tmp_path / "out" / MAPS_FILE) as joined, MapsFile(plain) as maps:
        np.testing.assert_array_equal(joined.maps(range(12)), maps.maps(range(12)))
        assert joined.sample_ids == maps.sample_ids


def test_without_the_plugin_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = maps_file(tmp_path / "a", smooth(3), part_rows=3, whole="lz4")
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)  # as if it were not there
    with pytest.raises(UserInputError, match=r"runtime\.map_compression is 'lz4'.*roarline\[compression\]"):
        filter_options("lz4")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    with pytest.raises(ArtifactError, match=r"/maps is compressed with HDF5 filter 32008.*roarline\[compression\]"):
        MapsFile(path)
    assert filter_options("gzip")["compression"] == "gzip"


def test_a_shard_whose_filter_is_missing_is_told_as_soon_as_the_maps_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [
        maps_file(tmp_path / whole, smooth(3), part_rows=3, whole=whole, first=3 * index)
        for index, whole in enumerate(("none", "gzip", "lz4"))
    ]
    (tmp_path / "out").mkdir()
    join_shards(tmp_path / "out", shards)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    available = h5py.h5z.filter_avail
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != 32008 and available(code))
    with pytest.raises(ArtifactError, match=r"/maps is compressed with HDF5 filter 32008.*roarline\[compression\]"):
        MapsFile(tmp_path / "out" / MAPS_FILE)
