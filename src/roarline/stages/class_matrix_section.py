"""What the report shows of class-specific matrices, from the artifacts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import read_parquet
from roarline.report.class_matrix import ClassMatrix, class_matrices
from roarline.report.scores import Method
from roarline.stages.evaluate_class_masks import MATRIX_FILE


def class_matrix_section(inputs: Mapping[str, Artifact], methods: Sequence[Method]) -> tuple[ClassMatrix, ...]:
    """A matrix for each method that has one; none where the experiment didn't ask.

    Args:
        inputs: Of the report.
    """
    of_methods = {method.name: inputs.get(f"classes:{method.name}") for method in methods}
    return class_matrices(
        {
            name: read_parquet(artifact.file(MATRIX_FILE))
            for name, artifact in of_methods.items()
            if artifact is not None
        }
    )
