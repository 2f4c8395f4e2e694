"""aggregate-scores: the tables beside the scores, from artifacts of several stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from roarline.artifacts.comparison_tables import COMPARISON_TABLES, read_comparisons
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import read_csv
from tests.stages.test_aggregate_features import publish as publish_features
from tests.stages.test_aggregate_scores import METHODS, aggregate, flags, grid, publish_scores

Tables = dict[str, list[dict[str, Any]]]


def select(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


@pytest.fixture
def values(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """MoRF of three methods over 40 images: good lies clearly below the others."""
    chance = rng.random(40)
    return {"good": chance - 0.3, "bad": chance + rng.normal(0, 0.1, 40), "chance": chance}


def inputs_of(store: Store, values: dict[str, np.ndarray], **others: Any) -> dict[str, Artifact]:
    return {
        f"scores:{name}": publish_scores(store, name, {("morf", ""): v, ("lerf", ""): -v}, **others)
        for name, v in values.items()
    }


def test_tables_have_their_columns_and_the_same_rows_as_csv(store: Store, values: dict[str, np.ndarray]) -> None:
    artifact = aggregate(store, inputs_of(store, values))
    tables = read_comparisons(artifact)
    for name, columns in COMPARISON_TABLES.items():
        csv = read_csv(artifact.file(f"{name}.csv"))
        assert tuple(csv) == columns
        assert len(csv["metric" if "metric" in csv else "first_metric"]) == len(tables[name])
    assert len(tables["pairwise_tests"]) == 2 * 3
    assert len(tables["critical_difference"]) == 2 * 3
    (row,) = tables["metric_agreement"]
    # LeRF is the negative of MoRF here, and its direction is the other: both order methods and images alike.
    assert (row["first_metric"], row["second_metric"], row["methods"], row["images"]) == ("morf", "lerf", 3, 40)
    assert (row["kendall_tau_b"], row["spearman_images"]) == pytest.approx((1, 1))


def test_pairwise_tests_are_of_images(store: Store, values: dict[str, np.ndarray]) -> None:
    tables = read_comparisons(aggregate(store, inputs_of(store, values)))
    (row,) = select(tables["pairwise_tests"], metric="morf", first="good", second="bad")
    theirs = stats.wilcoxon(values["good"], values["bad"], method="exact")
    assert row["p_wilcoxon"] == pytest.approx(theirs.pvalue)
    assert (row["better"], row["test"], row["images"]) == ("good", "signed-rank", 40)
    assert row["ci_low"] < row["difference"] < row["ci_high"] < 0
    (reliability,) = select(tables["metric_reliability"], metric="morf")
    assert reliability["friedman_chi2"] == pytest.approx(stats.friedmanchisquare(*values.values()).statistic)


def test_rows_of_one_image_are_one_image(store: Store, values: dict[str, np.ndarray]) -> None:
    """Two targets an image: forty rows of twenty images."""
    ids, targets = [f"s{row // 2:03d}" for row in range(40)], [row % 2 for row in range(40)]
    tables = read_comparisons(aggregate(store, inputs_of(store, values, ids=ids, targets=targets)))
    (row,) = select(tables["pairwise_tests"], metric="morf", first="good", second="bad")
    paired = (values["good"] - values["bad"]).reshape(20, 2).mean(axis=1)
    assert row["images"] == 20
    assert row["p_mean"] == pytest.approx(stats.ttest_1samp(paired, 0).pvalue)
    assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(paired, method="exact").pvalue)


def test_retrained_networks_are_tested_over_images_and_repeats(store: Store, rng: np.random.Generator) -> None:
    places, inputs = grid(
        store,
        {
            (name, "roar", fraction, False): [flags(rng, accuracy) for _ in range(3)]
            for name, accuracy in {"good": 0.2, "bad": 0.7, "chance": 0.7}.items()
            for fraction in (0.3, 0.6)
        },
    )
    tables = read_comparisons(aggregate(store, inputs, places))
    (row,) = select(tables["pairwise_tests"], first="good", second="bad")
    assert (row["setting"], row["test"], row["p_wilcoxon"]) == ("mean over fractions", "mean difference", None)
    assert row["better"] == "good"
    # Every repeat and every fraction is another run of the same test.
    summary = {row["factor"]: row for row in tables["rank_stability_summary"]}
    assert {name: row["points"] for name, row in summary.items()} == {"repeat": 3, "removed_fraction": 2, "all": 5}
    assert {row["place"] for row in select(tables["rank_stability"], method="good")} == {1}


def test_scores_that_are_no_means_take_part(store: Store, values: dict[str, np.ndarray]) -> None:
    generator, ids, groups = np.random.default_rng(0), [f"s{row // 2:03d}" for row in range(30)], np.arange(30) % 3
    inputs = inputs_of(store, values)
    for place, name in enumerate(METHODS):
        features = (generator.random((30, 5)) < 0.2 + 0.3 * place).astype(float)
        inputs[f"localization:{name}"] = publish_features(store, name, features, ids, groups)
    tables = read_comparisons(aggregate(store, inputs))
    found = {(row["metric"], row["setting"]): row for row in tables["metric_reliability"]}
    assert set(found) == {("morf", ""), ("lerf", ""), ("max_box_acc", ""), ("pointing_game", "mean over classes")}
    assert found["max_box_acc", ""]["test"] == "resampled scores"
    assert found["max_box_acc", ""]["alpha"] is None
    assert len(tables["metric_agreement"]) == 6
    (row,) = select(tables["metric_agreement"], first_metric="morf", second_metric="max_box_acc")
    assert row["methods"] == 3
    assert row["spearman_images"] is None


def test_points_of_another_similarity_are_no_points_of_a_setting(store: Store, values: dict[str, np.ndarray]) -> None:
    """Layers of sanity checks: by SSIM the methods' order is turned round, and by HOG it is not."""
    turned = {"good": values["bad"], "bad": values["good"], "chance": values["chance"]}
    settings = {
        "above chance, hog": values, "layer=1 fc, hog": values, "layer=2 conv, hog": values,
        "above chance, ssim": turned, "layer=1 fc, ssim": turned,
    }  # fmt: skip
    inputs = {
        f"scores:{name}": publish_scores(
            store, name, {("morf", setting): found[name] for setting, found in settings.items()}
        )
        for name in values
    }
    tables = read_comparisons(aggregate(store, inputs))
    found = {(row["setting"], row["factor"]): row for row in tables["rank_stability_summary"]}
    assert found["above chance, hog", "layer"]["points"] == 2
    assert found["above chance, hog", "layer"]["tau_min"] == found["above chance, ssim", "layer"]["tau_min"] == 1
    assert found["above chance, ssim", "layer"]["points"] == 1


def test_sweep_points_are_compared_with_the_base_and_change_no_score(
    store: Store, values: dict[str, np.ndarray]
) -> None:
    inputs = inputs_of(store, values)
    without = aggregate(store, inputs)
    turned = {"good": values["chance"] + 1, "bad": values["chance"] + 2, "chance": values["chance"]}
    for role, point in (("sweep:0", values), ("sweep:1", turned)):
        inputs |= {
            f"{role}:{name}": publish_scores(store, f"{role} {name}", {("morf", ""): v}) for name, v in point.items()
        }
    sweep = {"sweep:0": {"factor": "fill", "value": "blur"}, "sweep:1": {"factor": "fill", "value": "zero"}}
    artifact = aggregate(store, inputs, sweep=sweep)
    assert artifact.file("scores.csv").read_bytes() == without.file("scores.csv").read_bytes()
    tables = read_comparisons(artifact)
    placed = {(row["point"], row["method"]): row["place"] for row in tables["rank_stability"]}
    assert placed["", "good"] == placed["blur", "good"] == 1
    assert (placed["zero", "chance"], placed["zero", "good"], placed["zero", "bad"]) == (1, 2, 3)
    (row,) = tables["rank_stability_summary"]
    assert (row["metric"], row["factor"], row["points"], row["methods"]) == ("morf", "fill", 2, 3)
    base, other = [placed["", name] for name in METHODS], [placed["zero", name] for name in METHODS]
    assert row["tau_min"] == pytest.approx(stats.kendalltau(base, other).statistic)


def test_areas_that_have_no_rows_take_part_in_the_agreement_of_metrics(store: Store, rng: np.random.Generator) -> None:
    """The relative area of ROAR is a ratio of areas: it orders methods, and no image has one of its own."""
    places, inputs = grid(
        store,
        {
            **{
                (name, "roar", fraction, False): [flags(rng, accuracy) for _ in range(2)]
                for name, accuracy in {"good": 0.2, "bad": 0.6, "chance": 0.8}.items()
                for fraction in (0.3, 0.6)
            },
            (None, "reference", 0.0, False): [flags(rng, 0.9) for _ in range(2)],
            (None, "everything_removed", 1.0, False): [flags(rng, 0.1) for _ in range(2)],
        },
    )
    tables = read_comparisons(aggregate(store, inputs, places))
    (row,) = tables["metric_agreement"]
    assert {row["first_metric"], row["second_metric"]} == {"roar_accuracy", "roar_relative_area"}
    assert row["spearman_images"] is None
    assert row["kendall_tau_b"] == pytest.approx(1)
    assert {row["metric"] for row in tables["pairwise_tests"]} == {"roar_accuracy"}


def test_no_scores_no_rows(store: Store) -> None:
    tables = read_comparisons(aggregate(store, {}))
    assert all(rows == [] for rows in tables.values())


def test_many_methods_and_metrics_stay_within_memory_and_seconds(rng: np.random.Generator) -> None:
    """A tenth of the size that must stay within a minute (50 methods, 60 metrics, 1,000 images)."""
    import torch

    from roarline.evaluation.summary import Column
    from roarline.stages.aggregate_comparisons import Family, comparison_tables

    methods = [f"method{index}" for index in range(20)]
    columns = [
        Column(method, f"metric{metric}", "", torch.from_numpy(rng.random((1, 300))))
        for metric in range(8)
        for method in methods
    ]
    tables = comparison_tables(
        [Family(columns, torch.arange(300), [f"{row:04d}" for row in range(300)])], [], methods=methods,
        directions={f"metric{metric}": True for metric in range(8)}, points=("removed_fraction=",), confidence=0.95,
        resamples=500, seed=0,
    )  # fmt: skip
    assert len(tables["pairwise_tests"]) == 8 * 190
    assert len(tables["metric_agreement"]) == 28
