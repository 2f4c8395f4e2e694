"""A small ``maps`` artifact for tests of the stages that read one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.maps import MAPS_FILE, MapRows, join_parts, write_part
from roarline.artifacts.store import Artifact, Store
from tests.stages.toy_classifier import make_artifact


def distinct_values(rows: int, side: int, seed: int = 0) -> np.ndarray:
    """float32 [rows, side, side], signed, without ties."""
    generator = np.random.default_rng(seed)
    values = np.stack([generator.permutation(side * side) for _ in range(rows)]).reshape(rows, side, side)
    return (values - side * side / 3).astype(np.float32)


def toy_maps(
    store: Store,
    dataset: Artifact,
    values: np.ndarray,
    *,
    rows: Sequence[tuple[str, int]] | None = None,
    logits: np.ndarray | None = None,
) -> Artifact:
    """Maps of the test images, in the data set's order and for class 0 unless ``rows`` (sample id, target) differ.

    Logits [rows, 4] are 0 unless given.
    """
    if rows is None:
        with DatasetFile(dataset.file(DATASET_FILE)) as file:
            rows = [(file.sample_ids[row], 0) for row in file.rows("test")]
    known = np.zeros((len(rows), 4), np.float32) if logits is None else logits.astype(np.float32)
    ids, targets = [sample_id for sample_id, _ in rows], np.array([target for _, target in rows])

    def write(folder: Path) -> None:
        part = folder / "part.h5"
        write_part(part, MapRows(ids, targets, values, known))
        join_parts(folder / MAPS_FILE, [part], {"method": "toy"})
        part.unlink()

    recipe = {"rows": [list(row) for row in rows], "values": values.tolist(), "dataset": dataset.digest}
    recipe |= {} if logits is None else {"logits": logits.tolist()}
    return make_artifact(store, "extract-attribution-maps", {**recipe, "values": repr(recipe["values"])}, write)
