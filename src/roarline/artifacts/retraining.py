"""The ``retraining`` artifact: one cell of the remove-and-retrain grid. Imports no torch.

Files: ``cell.json`` (RetrainedCell), ``predictions.parquet`` (a row a test image: sample_id; label, None where the data
is multi-label; predicted, the class of the highest logit; correct in [0, 1], for multi-label data the share of right
(image, class) decisions), ``curve.csv`` (as the classifier's); of recursive ROAR also ``classifier.json`` and
``weights.safetensors`` (as the classifier's) and ``removed.h5`` (see ``artifacts.removed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from roarline.artifacts.files import read_json, write_json
from roarline.artifacts.tables import read_table, write_parquet
from roarline.errors import ArtifactError

CELL_FILE, PREDICTIONS_FILE = "cell.json", "predictions.parquet"


class Place(BaseModel):
    """Where a cell stands in its method's grid.

    Attributes:
        mode: ``roar``, ``kar``, ``recursive_roar``, ``reference`` where nothing is removed, ``everything_removed``.
        probe: True where the network saw the binary removal masks alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: str
    removed_fraction: float
    repeat: int
    probe: bool


class RetrainedCell(BaseModel):
    """``cell.json``.

    Attributes:
        validation_accuracy: Of the best epoch, in [0, 1]; None without a validation split.
        test_accuracy: In [0, 1], read once, of the best epoch's weights.
        best_epoch: From 1.
        n_test: Test images.
        removed_pixels: Of each image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    place: Place
    validation_accuracy: float | None
    test_accuracy: float
    best_epoch: int
    epochs: int
    n_test: int
    removed_pixels: int

    def write(self, folder: Path) -> None:
        """Write ``cell.json``."""
        write_json(folder / CELL_FILE, self.model_dump(mode="json"))

    @staticmethod
    def read(path: Path) -> RetrainedCell:
        """Read ``cell.json``.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            return RetrainedCell.model_validate(read_json(path))
        except ValidationError as error:
            raise ArtifactError(
                f"{path}: damaged: {error.errors()[0]['msg']}; delete its folder and run again"
            ) from error


def write_predictions(
    folder: Path,
    sample_ids: Sequence[str],
    labels: Sequence[int | None],
    predicted: Sequence[int],
    correct: Sequence[float],
) -> None:
    """Write ``predictions.parquet``, in the order given."""
    columns = {"sample_id": sample_ids, "label": labels, "predicted": predicted, "correct": correct}
    write_parquet(folder / PREDICTIONS_FILE, columns)


def read_correct(path: Path) -> tuple[list[str], np.ndarray]:
    """Sample ids and how right each prediction is, float64 [N] in [0, 1], from ``predictions.parquet``.

    Raises:
        ArtifactError: The file is damaged.
    """
    table = read_table(path, ("sample_id", "correct"))
    return table.column("sample_id").to_pylist(), np.asarray(table.column("correct"), dtype=np.float64)
