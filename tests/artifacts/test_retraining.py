"""The retraining artifact's files."""

import pytest

from roarline.artifacts.retraining import CELL_FILE, PREDICTIONS_FILE, Place, RetrainedCell, write_predictions
from roarline.artifacts.tables import read_parquet
from roarline.errors import ArtifactError

CELL = RetrainedCell(
    place=Place(mode="kar", removed_fraction=0.3, repeat=2, probe=True), validation_accuracy=None, test_accuracy=0.25,
    best_epoch=4, epochs=4, n_test=8, removed_pixels=19,
)  # fmt: skip


def test_a_cell_comes_back_as_it_was(tmp_path):
    CELL.write(tmp_path)
    assert RetrainedCell.read(tmp_path / CELL_FILE) == CELL


def test_a_damaged_cell_is_named(tmp_path):
    (tmp_path / CELL_FILE).write_text('{"place": {"mode": "roar"}}')
    with pytest.raises(ArtifactError, match=r"cell\.json: damaged"):
        RetrainedCell.read(tmp_path / CELL_FILE)


@pytest.mark.parametrize("labels", [[1, 0], [None, None]])
def test_predictions_come_back_in_order(tmp_path, labels):
    write_predictions(tmp_path, ["b", "a"], labels, [1, 1], [1.0, 0.5])
    assert read_parquet(tmp_path / PREDICTIONS_FILE) == {
        "sample_id": ["b", "a"], "label": labels, "predicted": [1, 1], "correct": [1.0, 0.5],
    }  # fmt: skip
