"""aggregate-scores of features: functions of means beside means, over the same rows of all methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roarline.artifacts.features import FEATURES_FILE, Features, write_features
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import SCORES_FILE, read_parquet
from roarline.errors import ArtifactError
from roarline.execution.run_job import run_job
from roarline.stages.job import Context
from tests.stages.test_aggregate_scores import METHODS, aggregate_job
from tests.stages.toy_classifier import make_artifact


def publish(store: Store, method: str, values: np.ndarray, ids: list[str], groups: np.ndarray) -> Artifact:
    """MaxBoxAcc's features, and the pointing game's by class, of one method."""

    def write(folder: Path) -> None:
        statuses = ["broke" if np.isnan(row).any() else "ok" for row in values]
        metrics = {
            "max_box_acc": Features(values, statuses, "best_threshold", ground_truth="boxes"),
            "pointing_game": Features(
                values[:, :1], statuses, "mean_value", "mean over classes", groups, "segmentation"
            ),
        }
        write_features(folder / FEATURES_FILE, ids, groups, metrics)

    return make_artifact(store, "evaluate-localization", {"method": method, "ids": ids, "values": repr(values)}, write)


def test_scores_are_functions_of_the_means(store: Store) -> None:
    generator, ids, groups = np.random.default_rng(0), [f"s{row // 2}" for row in range(30)], np.arange(30) % 3
    values = {name: generator.integers(0, 2, (30, 5)).astype(float) for name in METHODS}
    values["good"][4] = np.nan
    inputs = {f"localization:{name}": publish(store, name, values[name], ids, groups) for name in METHODS}
    job = aggregate_job(inputs)
    run_job(job, Context(store))
    table = read_parquet(store.open(job.stage, job.key).file(SCORES_FILE))
    rows = {(table["method"][i], table["metric"][i]): {k: v[i] for k, v in table.items()} for i in range(6)}
    assert len(table["value"]) == 6
    for name, features in values.items():
        best, chance = rows[name, "max_box_acc"], np.mean(values["chance"], axis=0).max()
        assert best["value"] == pytest.approx(np.nanmean(features, axis=0).max())
        assert best["ci_low"] <= best["value"] <= best["ci_high"]
        assert (best["n"], best["failed"]) == ((29, 1) if name == "good" else (30, 0))
        if name != "chance":
            assert best["difference_to_random"] == pytest.approx(best["value"] - chance)
            assert best["difference_ci_low"] < best["difference_ci_high"]
        by_class = rows[name, "pointing_game"]
        assert by_class["setting"] == "mean over classes"
        expected = np.mean([np.nanmean(features[groups == group, 0]) for group in range(3)])
        assert by_class["value"] == pytest.approx(expected)
        assert (best["ground_truth"], by_class["ground_truth"]) == ("boxes", "segmentation")
    assert sorted(rows[name, "max_box_acc"]["rank"] for name in METHODS)[0] == 1


def test_methods_scored_on_other_rows_are_refused(store: Store) -> None:
    values, ids = np.ones((4, 2)), ["a", "b", "c", "d"]
    inputs = {
        "localization:good": publish(store, "good", values, ids, np.arange(4)),
        "localization:bad": publish(store, "bad", values[:3], ids[:3], np.arange(3)),
    }
    with pytest.raises(ArtifactError, match="method 'bad' was scored on 3 rows, 'good' on 4"):
        run_job(aggregate_job(inputs), Context(store))
