"""Shards open as one file with the content of the whole; what is missing or foreign is refused."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.artifacts.digest import content_digest
from roarline.artifacts.map_shards import join_shards
from roarline.artifacts.maps import MAPS_FILE, MapRows, MapsFile, join_parts, write_part
from roarline.errors import ArtifactError

ATTRIBUTES = {"method": "gradient", "parameters": {"steps": 3}, "input_size": np.array([4, 5]), "limit": 9}


def rows(start: int, stop: int, dtype: str = "float32") -> MapRows:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(20, 4, 5)).astype(dtype)
    logits = generator.normal(size=(20, 3)).astype(np.float32)
    ids = [f"säule/{index}" for index in range(start, stop)]
    return MapRows(ids, np.arange(start, stop), values[start:stop], logits[start:stop])


def maps_file(folder: Path, start: int, stop: int, dtype: str = "float32", **attributes: object) -> Path:
    folder.mkdir(parents=True)
    write_part(folder / "part.h5", rows(start, stop, dtype))
    join_parts(folder / MAPS_FILE, [folder / "part.h5"], ATTRIBUTES | attributes)
    return folder / MAPS_FILE


def joined(folder: Path, cuts: list[int], dtype: str = "float32") -> Path:
    """The folder of maps 0 to 12, cut at these rows."""
    edges = [0, *sorted(cuts), 12]
    shards = [
        maps_file(folder / f"shard {index}", start, stop, dtype)
        for index, (start, stop) in enumerate(itertools.pairwise(edges))
    ]
    (folder / "out").mkdir()
    join_shards(folder / "out", shards)
    return folder / "out"


@settings(max_examples=15)
@given(
    cuts=st.lists(st.integers(0, 12), max_size=4),
    wanted=st.lists(st.integers(0, 11), max_size=8),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_reads_and_digests_as_the_whole_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], wanted: list[int], dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    plain, out = maps_file(folder / "plain", 0, 12, dtype), joined(folder, cuts, dtype)
    assert content_digest(out / MAPS_FILE) == content_digest(plain)
    with MapsFile(plain) as one, MapsFile(out / MAPS_FILE) as other:
        assert other.sample_ids == one.sample_ids
        assert other.attributes.keys() == one.attributes.keys()
        assert other.attributes["parameters"] == {"steps": 3}
        np.testing.assert_array_equal(other.maps(wanted), one.maps(wanted))
        np.testing.assert_array_equal(other.logits, one.logits)
        np.testing.assert_array_equal(other.targets, one.targets)
    shutil.rmtree(folder)


def test_the_folder_may_move_and_the_shards_it_was_made_of_may_go(tmp_path: Path) -> None:
    out = joined(tmp_path / "here", [5])
    moved = tmp_path / "elsewhere" / "artifact"
    shutil.copytree(out, moved)
    shutil.rmtree(tmp_path / "here")
    with MapsFile(moved / MAPS_FILE) as maps:
        np.testing.assert_array_equal(maps.maps(range(12)), rows(0, 12).maps)
    with h5py.File(moved / MAPS_FILE) as file:
        assert [source.file_name for source in file["maps"].virtual_sources()] == [
            "maps.shards/0000.h5",
            "maps.shards/0001.h5",
        ]


def test_shards_are_copied_where_they_can_not_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    out = joined(tmp_path, [5])
    assert (out / "maps.shards" / "0000.h5").stat().st_ino != (tmp_path / "shard 0" / MAPS_FILE).stat().st_ino
    with MapsFile(out / MAPS_FILE) as maps:
        np.testing.assert_array_equal(maps.maps([0, 11]), rows(0, 12).maps[[0, 11]])


def test_linked_shards_take_no_space_of_their_own(tmp_path: Path) -> None:
    out = joined(tmp_path, [5])
    assert (out / "maps.shards" / "0000.h5").samefile(tmp_path / "shard 0" / MAPS_FILE)


def test_a_missing_shard_is_an_error_never_zeros(tmp_path: Path) -> None:
    out = joined(tmp_path, [5])
    (out / "maps.shards" / "0001.h5").unlink()
    with pytest.raises(ArtifactError, match=r"shard maps\.shards/0001\.h5 is missing"):
        MapsFile(out / MAPS_FILE)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"method": "sobel"}, "method"),
        ({"classifier_digest": "0"}, "classifier_digest"),
        ({"dtype": "float16"}, "/maps"),
    ],
)
def test_shards_of_another_recipe_are_refused(tmp_path: Path, other: dict[str, str], what: str) -> None:
    shards = [maps_file(tmp_path / "a", 0, 5), maps_file(tmp_path / "b", 5, 9, **other)]
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=f"no shard of the same maps.*{what}"):
        join_shards(tmp_path / "out", shards)


def test_a_row_in_two_shards_is_refused(tmp_path: Path) -> None:
    shards = [maps_file(tmp_path / "a", 0, 5), maps_file(tmp_path / "b", 4, 9)]
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=r"'säule/4', target 4\) stands twice"):
        join_shards(tmp_path / "out", shards)
