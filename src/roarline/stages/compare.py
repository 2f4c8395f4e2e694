"""Two experiments compared image by image: what a change of the classifier does to every method's scores.

It is no stage: nothing is written but a table that the user asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from roarline.artifacts.features import FEATURES_FILE
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import SCORES_FILE
from roarline.errors import ArtifactError, UserInputError
from roarline.evaluation.feature_summary import summarise_features
from roarline.evaluation.summary import Summary, summarise
from roarline.seeds import derive_seed
from roarline.stages.aggregate_scores import FAMILIES, feature_scores, score_columns

FIRST, SECOND = "first", "second"
COLUMNS = ("method", "metric", "setting", FIRST, SECOND, "difference", "ci_low", "ci_high", "n", "better")


def compare(
    first: Mapping[str, Artifact],
    second: Mapping[str, Artifact],
    *,
    higher_is_better: Callable[[str], bool | None],
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, list[Any]]:
    """Scores of two experiments, and their paired differences.

    The difference is the mean over rows (image and target) of second minus first where both have a value; its interval
    comes from resampling images, the same in both, and for scores that are no means from their difference in each
    resample: as aggregate-scores compares methods with the random baseline.

    Args:
        first, second: Role of aggregate-scores' inputs (``localization:gradcam``) to artifact; roles that only one has
            are left out.
        higher_is_better: Of a metric.
        confidence: In (0, 1).
        resamples: Of the images.
        seed: Of the resamples.

    Returns:
        COLUMNS; ``better`` is ``second`` or ``first`` where the interval excludes 0 and the metric has a direction.

    Raises:
        UserInputError: They have no role in common, or other rows.
    """
    roles = [role for role in first if role in second and role.partition(":")[0] in FAMILIES]
    if not roles:
        raise UserInputError("the experiments have no method in common that both score by the same kind of metric")
    rows: list[tuple[str, Summary, Summary]] = []
    for role in roles:
        family, _, method = role.partition(":")
        own = derive_seed(seed, "compare", family)
        try:
            found = _summaries({FIRST: first[role], SECOND: second[role]}, higher_is_better, confidence, resamples, own)
        except ArtifactError as error:
            raise UserInputError(
                f"{role}: {error}; set attribution.target to label or every-label in both, and the same data"
            ) from error
        rows += [(method, *pair) for pair in _pairs(found)]
    return _table(rows, higher_is_better)


def _summaries(
    artifacts: Mapping[str, Artifact],
    higher_is_better: Callable[[str], bool | None],
    confidence: float,
    resamples: int,
    seed: int,
) -> list[Summary]:
    found: list[Summary] = []
    if all(SCORES_FILE in artifact.manifest.files for artifact in artifacts.values()):
        family = score_columns(artifacts)
        found += summarise(
            family.columns, family.images, baseline=FIRST, higher_is_better=higher_is_better, confidence=confidence,
            resamples=resamples, seed=seed,
        )  # fmt: skip
    if all(FEATURES_FILE in artifact.manifest.files for artifact in artifacts.values()):
        family = feature_scores(artifacts, resamples, seed)
        found += summarise_features(
            family.features, baseline=FIRST, higher_is_better=higher_is_better, confidence=confidence
        )
    return found


def _pairs(rows: Sequence[Summary]) -> list[tuple[Summary, Summary]]:
    """The two experiments' rows of each metric and setting that both have."""
    before = {(row.metric, row.setting): row for row in rows if row.method == FIRST}
    after = [row for row in rows if row.method == SECOND and (row.metric, row.setting) in before]
    return [(before[row.metric, row.setting], row) for row in after]


def _table(
    rows: Sequence[tuple[str, Summary, Summary]], higher_is_better: Callable[[str], bool | None]
) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    for method, before, after in rows:
        low, high = after.difference_interval or (None, None)
        values = (
            method, after.metric, after.setting, before.value, after.value, after.difference, low, high, after.n,
            _better(low, high, higher_is_better(after.metric)),
        )  # fmt: skip
        for column, value in zip(COLUMNS, values, strict=True):
            table[column].append(value)
    return table


def _better(low: float | None, high: float | None, higher_is_better: bool | None) -> str:
    if low is None or high is None or higher_is_better is None or low <= 0 <= high:
        return ""
    return SECOND if bool(np.sign(low) > 0) == higher_is_better else FIRST
