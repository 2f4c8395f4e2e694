"""Keys, digests, and round trips of every file format."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from roarline.artifacts import digest, tables
from roarline.artifacts.dataset import DatasetContent, DatasetFile, write_dataset
from roarline.artifacts.digest import content_digest
from roarline.artifacts.keys import artifact_key, canonical_json
from roarline.artifacts.maps import MapRows, MapsFile, check_rows, join_parts, read_part, write_part
from roarline.artifacts.tables import read_csv, read_parquet, write_csv, write_parquet
from roarline.errors import ArtifactError, MethodError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms())
def test_key_is_independent_of_dict_order(parameters: dict[str, Any], random: Any) -> None:
    items = list(parameters.items())
    random.shuffle(items)
    assert artifact_key("s", 1, parameters, {}) == artifact_key("s", 1, dict(items), {})


def test_key_depends_on_every_part_of_the_recipe() -> None:
    keys = {
        artifact_key("s", 1, {"a": 1}, {}),
        artifact_key("t", 1, {"a": 1}, {}),
        artifact_key("s", 2, {"a": 1}, {}),
        artifact_key("s", 1, {"a": 2}, {}),
        artifact_key("s", 1, {"a": "1"}, {}),
        artifact_key("s", 1, {"a": 1}, {"dataset": "k"}),
    }
    assert len(keys) == 6


def test_nan_is_in_no_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})


def _h5(path: Path, *, order: tuple[str, ...] = ("a", "b"), chunks: bool = False, value: float = 1.0) -> str:
    with h5py.File(path, "w") as file:
        for name in order:
            data = np.full((7, 3), value, dtype=np.float32)
            file.create_dataset(name, data=data, chunks=(2, 3) if chunks else None)
        file.attrs["x"] = 1
    return content_digest(path)


def test_hdf5_digest_ignores_layout_and_sees_values_names_attributes_dtypes(tmp_path: Path) -> None:
    base = _h5(tmp_path / "1.h5")
    assert _h5(tmp_path / "2.h5", order=("b", "a"), chunks=True) == base
    assert _h5(tmp_path / "3.h5", value=2.0) != base
    assert _h5(tmp_path / "4.h5", order=("a", "c")) != base
    with h5py.File(tmp_path / "1.h5", "r+") as file:
        file.attrs["x"] = 2
    assert content_digest(tmp_path / "1.h5") != base


def test_hdf5_string_digest_sees_where_one_string_ends(tmp_path: Path) -> None:
    digests = set()
    for index, texts in enumerate((["ab", "c"], ["a", "bc"], ['a","b', "c"])):
        with h5py.File(tmp_path / f"{index}.h5", "w") as file:
            file.create_dataset("s", data=texts, dtype=h5py.string_dtype())
        digests.add(content_digest(tmp_path / f"{index}.h5"))
    assert len(digests) == 3


def test_safetensors_parquet_and_json_digests_see_values(tmp_path: Path) -> None:
    for value in (0, 1):
        save_file({"w": np.full(3, value, dtype=np.float32)}, tmp_path / f"{value}.safetensors")
        write_parquet(tmp_path / f"{value}.parquet", {"a": [value, None]})
        (tmp_path / f"{value}.json").write_text(f'{{"a": {value}}}')
    for suffix in ("safetensors", "parquet", "json"):
        assert content_digest(tmp_path / f"0.{suffix}") != content_digest(tmp_path / f"1.{suffix}")
    (tmp_path / "2.json").write_text('{ "a":\n0}')
    assert content_digest(tmp_path / "2.json") == content_digest(tmp_path / "0.json")


def rows(ids: list[str], rng: np.random.Generator, size: int = 4) -> MapRows:
    count = len(ids)
    return MapRows(
        ids,
        np.arange(count) % 3,
        rng.standard_normal((count, size, size), dtype=np.float32),
        rng.standard_normal((count, 3)),
    )


ATTRIBUTES = {"method": "m", "parameters": {"k": 1}, "split": "test", "input_size": [4, 4], "channels": "sum"}


def maps_file(tmp_path: Path, parts: list[MapRows]) -> Path:
    for index, part in enumerate(parts):
        write_part(tmp_path / f"part-{index}.h5", part)
    join_parts(tmp_path / "maps.h5", [tmp_path / f"part-{i}.h5" for i in range(len(parts))], ATTRIBUTES)
    return tmp_path / "maps.h5"


def test_maps_round_trip_through_parts(tmp_path: Path, rng: np.random.Generator) -> None:
    first, second = rows(["a", "b"], rng), rows(["c", "d", "ü/1"], rng)
    with MapsFile(maps_file(tmp_path, [first, second])) as maps:
        assert len(maps) == 5
        assert maps.sample_ids == ["a", "b", "c", "d", "ü/1"]
        np.testing.assert_array_equal(maps.maps(range(5)), np.concatenate([first.maps, second.maps]))
        np.testing.assert_array_equal(maps.maps([4, 0, 4]), np.stack([second.maps[2], first.maps[0], second.maps[2]]))
        assert maps.attributes["parameters"] == {"k": 1}
    assert read_part(tmp_path / "part-0.h5").sample_ids == ["a", "b"]


def test_maps_join_by_sample_id_never_by_position(tmp_path: Path, rng: np.random.Generator) -> None:
    """The original ROAR matches maps to images by sorted file order; a missing file misaligns everything silently."""
    with MapsFile(maps_file(tmp_path, [rows(["b", "a", "c"], rng)])) as maps:
        assert maps.rows_for(["a", "b"]) == [[1], [0]]
        with pytest.raises(ArtifactError, match=r"no map for sample 'd' \(1 missing of 2\)"):
            maps.rows_for(["a", "d"])


def test_maps_are_looked_up_at_a_cost_that_does_not_grow_with_their_number(tmp_path: Path, rng: Any) -> None:
    """Ranks that don't fit are made batch by batch: going through all ids for each would be quadratic."""

    class Counted(list[str]):
        times = 0

        def __iter__(self) -> Iterator[str]:
            Counted.times += 1
            return super().__iter__()

    with MapsFile(maps_file(tmp_path, [rows(["a", "a", "b"], rng)])) as maps:
        maps.__dict__["sample_ids"] = Counted(maps.sample_ids)
        assert [maps.rows_for([name]) for name in "aba"] == [[[0, 1]], [[2]], [[0, 1]]]
    assert Counted.times == 1


def test_several_targets_of_a_sample_are_several_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    with MapsFile(maps_file(tmp_path, [rows(["a", "a", "b"], rng)])) as maps:
        assert maps.rows_for(["b", "a"]) == [[2], [0, 1]]


def test_duplicate_row_is_an_error_that_names_it(tmp_path: Path, rng: np.random.Generator) -> None:
    part = rows(["a", "b", "c", "a"], rng)
    with pytest.raises(ArtifactError, match=r"sample 'a', target 0\) stands twice"):
        MapsFile(maps_file(tmp_path, [part]))


def test_nan_map_is_an_error_that_names_the_row_never_zeros(tmp_path: Path, rng: np.random.Generator) -> None:
    """NN-Explainer's evaluation turns a NaN map into zeros."""
    part = rows(["a", "b", "c"], rng)
    part.maps[1, 0, 0] = np.nan
    with pytest.raises(MethodError, match="sample 'b', target class 1"):
        check_rows(part, "method 'm'")
    with MapsFile(maps_file(tmp_path, [part])) as maps, pytest.raises(ArtifactError, match=r"row 1 \(sample 'b'"):
        maps.maps([0, 1])


def test_truncated_maps_file_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = maps_file(tmp_path, [rows(["a"] * 1 + ["b"] * 1, rng, size=64)])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"maps\.h5: can't be read"):
        MapsFile(path)


def content(rng: np.random.Generator, **changes: Any) -> DatasetContent:
    values: dict[str, Any] = {
        "name": "toy",
        "class_names": ["zero", "one"],
        "multi_label": False,
        "sample_ids": [f"s{i}" for i in range(6)],
        "split": np.array([0, 0, 0, 1, 2, 2]),
        "labels": np.array([0, 1, 0, 1, 0, 1]),
        "mean": np.array([0.5]),
        "std": np.array([0.25]),
        "images": rng.integers(0, 256, (6, 1, 4, 5), dtype=np.uint8),
        "boxes": np.array([[0, 1, 0, 0, 2, 3]]),
        "segmentation": rng.integers(0, 3, (6, 4, 5), dtype=np.uint8),
    }
    return DatasetContent(**{**values, **changes})


def test_dataset_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    given_ = content(rng)
    write_dataset(tmp_path / "dataset.h5", given_)
    with DatasetFile(tmp_path / "dataset.h5") as dataset:
        assert len(dataset) == 6
        assert dataset.class_names == ["zero", "one"]
        assert dataset.image_size == (4, 5)
        assert dataset.rows("train").tolist() == [0, 1, 2]
        assert dataset.rows("test").tolist() == [4, 5]
        assert given_.images is not None
        for order in ([0, 1, 2], [5, 0, 5], [3], []):
            np.testing.assert_array_equal(dataset.pixels(order), given_.images[order])
        np.testing.assert_array_equal(dataset.segmentation([1, 0]), given_.segmentation[[1, 0]])  # type: ignore[index]
        assert dataset.boxes is not None
        assert dataset.boxes.tolist() == [[0, 1, 0, 0, 2, 3]]


def test_duplicate_sample_ids_and_wrong_lengths_are_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ArtifactError, match="'s0' stands twice"):
        write_dataset(tmp_path / "d.h5", content(rng, sample_ids=["s0", "s0", "s2", "s3", "s4", "s5"]))
    with pytest.raises(ArtifactError, match="labels has 5 rows, expected 6"):
        write_dataset(tmp_path / "d.h5", content(rng, labels=np.zeros(5, dtype=np.int64)))


cells = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\r")))


@given(
    st.lists(
        st.tuples(cells, st.one_of(st.none(), st.floats(allow_nan=False)), st.integers(-(2**62), 2**62)), min_size=1
    )
)
def test_tables_round_trip(tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[Any, ...]]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    columns = {name: [line[i] for line in lines] for i, name in enumerate(("text", "number", "count"))}
    write_parquet(folder / "t.parquet", columns)
    assert read_parquet(folder / "t.parquet") == columns
    write_csv(folder / "t.csv", columns)
    back = read_csv(folder / "t.csv")
    assert back["text"] == [v or "" for v in columns["text"]]
    assert [float(v) if v else None for v in back["number"]] == columns["number"]


@pytest.mark.parametrize("rows_at_once", [1, 3, 1000])
def test_parquet_digest_is_the_same_however_many_rows_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """It is that of whole columns as JSON lists."""
    table = {"name": ["a", "ü", None, 'q"', "b", "c", "d"], "number": [0.1, None, 3.0, 4.0, 5.0, 1e300, -0.0]}
    for name, columns in (("some", table), ("none", {"name": [], "number": []})):
        write_parquet(tmp_path / f"{name}.parquet", columns)
        types = [["name", "string" if name == "some" else "null"], ["number", "double" if name == "some" else "null"]]
        text = canonical_json(types) + "".join(
            json.dumps(values, separators=(",", ":"), ensure_ascii=False) for values in columns.values()
        )
        monkeypatch.setattr(digest, "_TABLE_ROWS", rows_at_once)
        assert content_digest(tmp_path / f"{name}.parquet") == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("ground_truth", [False, True])
def test_a_score_table_is_the_same_however_many_rows_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ground_truth: bool
) -> None:
    columns = [
        ("morf", "removed_fraction=0.1", np.array([0.25, np.nan, 3.0]), ["ok", "no mask", "ok"]),
        ("lerf", "", np.array([1.0, 2.0, 3.0]), ["ok"] * 3),
    ]
    kind = {"morf": "boxes"}
    digests = set()
    for rows_at_once in (1, 2, 100):
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", rows_at_once)
        path = tmp_path / f"{rows_at_once}.parquet"
        asked = (lambda metric: kind.get(metric, "")) if ground_truth else None
        tables.write_score_table(path, ["a", "b", "c"], np.array([1, 0, 2]), columns, asked)
        digests.add(content_digest(path))
    assert len(digests) == 1
    expected = {
        "sample_id": ["a", "b", "c"] * 2, "target": [1, 0, 2] * 2, "metric": ["morf"] * 3 + ["lerf"] * 3,
        "setting": ["removed_fraction=0.1"] * 3 + [""] * 3, "value": [0.25, None, 3.0, 1.0, 2.0, 3.0],
        "status": ["ok", "no mask", "ok", "ok", "ok", "ok"],
        **({"ground_truth": ["boxes"] * 3 + [""] * 3} if ground_truth else {}),
    }  # fmt: skip
    assert read_parquet(path) == expected
    write_parquet(tmp_path / "whole.parquet", expected)  # as it was written before tables were long
    assert content_digest(tmp_path / "whole.parquet") in digests


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ArtifactError, match=r"t\.parquet: damaged"):
        read_parquet(tmp_path / "t.parquet")
