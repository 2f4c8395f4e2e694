"""removed.h5: round trip, joining by id, damage."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.artifacts.removed import RemovedFile, write_removed
from roarline.errors import ArtifactError


@settings(deadline=None, max_examples=15)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_masks_come_back_bit_by_bit_in_the_order_asked_for(tmp_path_factory, height, width, seed):
    masks = np.random.default_rng(seed).random((5, height, width)) < 0.4
    path = tmp_path_factory.mktemp("removed") / "removed.h5"
    write_removed(path, list("abcde"), (height, width), iter([masks[:2], masks[2:]]))
    with RemovedFile(path) as file:
        assert file.image_size == (height, width)
        found = file.masks(["e", "a", "e"])
        assert found.dtype == bool
        np.testing.assert_array_equal(found, masks[[4, 0, 4]])


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_masks_as_ids_are_expected(tmp_path: Path, count: int) -> None:
    with pytest.raises(ArtifactError, match="expected 2"):
        write_removed(tmp_path / "removed.h5", ["a", "b"], (2, 2), [np.zeros((count, 2, 2), dtype=bool)])
    assert not (tmp_path / "removed.h5").exists()


def test_an_unknown_image_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "removed.h5"
    write_removed(path, ["a"], (2, 2), [np.zeros((1, 2, 2), dtype=bool)])
    with RemovedFile(path) as file, pytest.raises(ArtifactError, match="'z'"):
        file.masks(["a", "z"])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="damaged"):
        RemovedFile(path)
