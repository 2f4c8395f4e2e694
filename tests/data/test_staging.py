"""Staging: exact statistics, resumption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.data import staging as module
from roarline.data.pixels import PixelBatch
from roarline.data.staging import Staging
from roarline.errors import ArtifactError


def _batch(images: np.ndarray, rows: np.ndarray) -> PixelBatch:
    sizes = np.tile(images.shape[2:], (len(rows), 1))
    return PixelBatch(rows, images[rows], sizes, [f"hash {row}" for row in rows])


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (12, 3, 4, 5), dtype=np.uint8)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.data())
def test_mean_and_deviation_are_those_of_float64(tmp_path_factory, values: list[int], data: st.DataObject) -> None:
    images = np.asarray(values, dtype=np.uint8).reshape(-1, 1, 1, 1)
    counted = np.asarray(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    with Staging(tmp_path_factory.mktemp("parts"), [], counted, 10**6) as staging:
        staging.add(_batch(images, np.arange(len(values))))
        staging.finish()
        statistics = staging.statistics()
    if not counted.any():
        assert statistics is None
        return
    mean, std = statistics
    exact = images[counted].astype(np.float64) / 255
    assert mean == pytest.approx([exact.mean()], abs=1e-14)
    assert std == pytest.approx([exact.std()], abs=1e-14)


def test_neither_order_nor_interruption_changes_a_bit(
    tmp_path: Path, images: np.ndarray, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = np.arange(12) % 3 > 0
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Staging(tmp_path / "a", "recipe", counted, 10**6) as straight:
        straight.add(_batch(images, np.arange(12)))
        straight.finish()
    monkeypatch.setattr(module, "_CHUNK_ROWS", 4)
    monkeypatch.setattr(module, "_COPY_BYTES", 200)
    order = rng.permutation(12)
    with Staging(tmp_path / "b", "recipe", counted, 10**6) as first:
        first.add(_batch(images, order[:4]))
        first.add(_batch(images, order[4:7]))  # in no closed chunk: lost with the process
    with Staging(tmp_path / "b", "recipe", counted, 10**6) as second:
        assert np.flatnonzero(second.done).tolist() == sorted(order[:4].tolist())
        assert second.shape == (3, 4, 5)
        second.add(_batch(images, np.flatnonzero(~second.done)))
        second.finish()
        assert np.array_equal(np.concatenate(list(second.chunks())), images)
        assert second.sha256 == straight.sha256 == [f"hash {row}" for row in range(12)]
        for one, other in zip(second.statistics(), straight.statistics(), strict=True):
            assert one.tobytes() == other.tobytes()


def test_what_another_recipe_left_is_dropped(tmp_path: Path, images: np.ndarray) -> None:
    with Staging(tmp_path, "one", np.ones(12, dtype=bool), 10**6) as staging:
        staging.add(_batch(images, np.arange(12)))
        staging.finish()
    assert not Staging(tmp_path, "two", np.ones(12, dtype=bool), 10**6).done.any()
    assert not Staging(tmp_path, "one", np.ones(12, dtype=bool), 10**6).done.any()


@pytest.mark.parametrize(("limit", "kept"), [(12 * 60, True), (12 * 60 - 1, False)])
def test_pixels_are_kept_up_to_the_limit(tmp_path: Path, images: np.ndarray, limit: int, kept: bool) -> None:
    with Staging(tmp_path, [], np.ones(12, dtype=bool), limit) as staging:
        staging.add(_batch(images, np.arange(12)))
        staging.finish()
        assert staging.kept is kept
        assert (tmp_path / "pixels.u8").exists() is kept


def test_a_missing_row_is_an_error(tmp_path: Path, images: np.ndarray) -> None:
    with Staging(tmp_path, [], np.ones(12, dtype=bool), 10**6) as staging:
        staging.add(_batch(images, np.arange(11)))
        with pytest.raises(ArtifactError, match="1 of 12 images never came"):
            staging.finish()
