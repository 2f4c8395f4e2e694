"""Parts: which are missing, whole or damaged, and errors of the writing thread."""

import threading

import numpy as np
import pytest

from roarline.artifacts.map_parts import MapParts
from roarline.artifacts.maps import MapRows, read_part, write_part
from roarline.errors import ArtifactError


def rows(start, count):
    ids = [f"s{index}" for index in range(start, start + count)]
    values = np.arange(start, start + count, dtype=np.float32)
    return MapRows(ids, values.astype(np.int64), np.tile(values[:, None, None], (1, 2, 3)), values[:, None])


def test_spans_cover_all_rows_and_batches_are_joined_in_order(tmp_path):
    with MapParts(tmp_path, 7, 3) as parts:
        assert parts.spans == [(0, 3), (3, 6), (6, 7)]
        assert parts.missing == [0, 1, 2]
        assert parts.rows_present == 0
        parts.write(0, [rows(0, 2), rows(2, 1)])
        parts.write(2, [rows(6, 1)])
    again = MapParts(tmp_path, 7, 3)
    assert again.missing == [1]
    assert again.rows_present == 4
    part = read_part(parts.paths[0])
    assert part.sample_ids == ["s0", "s1", "s2"]
    np.testing.assert_array_equal(part.maps, rows(0, 3).maps)


@pytest.mark.parametrize("at", [0, 0.5, 0.999])
def test_a_flipped_byte_anywhere_makes_a_part_missing(tmp_path, at):
    with MapParts(tmp_path, 3, 3) as parts:
        parts.write(0, [rows(0, 3)])
    content = bytearray(parts.paths[0].read_bytes())
    content[int(at * len(content))] ^= 1
    parts.paths[0].write_bytes(content)
    assert MapParts(tmp_path, 3, 3).missing == [0]


def test_a_part_of_another_length_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="2 rows, expected 3"), MapParts(tmp_path, 3, 3) as parts:
        parts.write(0, [rows(0, 2)])


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_the_thread_shows_at_the_next_part_or_at_the_end(tmp_path, monkeypatch, count):
    def full(path, written, compression):
        raise ArtifactError(f"{path}: the disk is full")

    monkeypatch.setattr("roarline.artifacts.map_parts.write_part", full)
    with (
        pytest.raises(ArtifactError, match=r"00000000-00000003\.h5: the disk is full"),
        MapParts(tmp_path, 6, 3) as parts,
    ):
        for index in range(count):
            parts.write(index, [rows(3 * index, 3)])


def test_a_part_of_as_many_other_rows_is_not_taken(tmp_path):
    """Left by a roarline that cut otherwise: rows 4 and 5 are the second part of 4, and the third of 2."""
    with MapParts(tmp_path, 6, 4) as before:
        before.write(1, [rows(4, 2)])
    assert MapParts(tmp_path, 6, 2).missing == [0, 1]


def test_a_part_is_written_while_the_next_one_is_computed(tmp_path, monkeypatch):
    computed, written = threading.Event(), []

    def waits(path, rows, compression):
        written.append((path.name, computed.wait(20)))
        write_part(path, rows, compression)

    monkeypatch.setattr("roarline.artifacts.map_parts.write_part", waits)
    with MapParts(tmp_path, 3, 3) as parts:
        parts.write(0, [rows(0, 3)])  # returns at once, or else the writer would wait in vain
        computed.set()
    assert written == [("00000000-00000003.h5", True)]
    assert MapParts(tmp_path, 3, 3).missing == []


def test_an_error_inside_is_not_hidden_by_one_of_the_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("roarline.artifacts.map_parts.write_part", lambda *_: 1 / 0)
    with pytest.raises(KeyError), MapParts(tmp_path, 3, 3) as parts:
        parts.write(0, [rows(0, 3)])
        raise KeyError


def test_no_rows_no_parts(tmp_path):
    with MapParts(tmp_path, 0, 3) as parts:
        assert parts.paths == []
