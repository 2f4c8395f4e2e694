"""Two experiments compared: paired by image and target, the same numbers as scipy's paired bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from roarline.artifacts.store import Artifact, Store
from roarline.errors import UserInputError
from roarline.execution import comparing
from roarline.seeds import derive_seed
from roarline.stages.compare import COLUMNS, compare
from tests.stages.test_aggregate_features import publish
from tests.stages.test_aggregate_scores import publish_scores

DIRECTIONS = {"lerf": True, "morf": False, "max_box_acc": True, "pointing_game": True, "entropy": None}


def compared(first: dict[str, Artifact], second: dict[str, Artifact], **changes: object) -> list[dict[str, object]]:
    settings = {"confidence": 0.95, "resamples": 500, "seed": 3, **changes}
    table = compare(first, second, higher_is_better=DIRECTIONS.get, **settings)
    assert tuple(table) == COLUMNS
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def test_differences_are_paired_and_their_interval_is_scipys(store: Store) -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=40) * 5  # what images have in common, and a paired difference is free of
    before, after = images + generator.normal(size=40), images + generator.normal(size=40) + 1
    first = {"scores:gradcam": publish_scores(store, "a", {("lerf", "x"): before, ("morf", "x"): before})}
    second = {"scores:gradcam": publish_scores(store, "b", {("lerf", "x"): after, ("morf", "x"): after})}
    lerf, morf = compared(first, second)
    assert (lerf["method"], lerf["metric"], lerf["setting"], lerf["n"]) == ("gradcam", "lerf", "x", 40)
    assert lerf["first"] == pytest.approx(before.mean())
    assert lerf["second"] == pytest.approx(after.mean())
    assert lerf["difference"] == pytest.approx((after - before).mean())
    seed = derive_seed(derive_seed(3, "compare", "scores"), "images")
    expected = stats.bootstrap(
        (after - before,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    assert (lerf["ci_low"], lerf["ci_high"]) == pytest.approx(tuple(expected))
    assert lerf["ci_high"] - lerf["ci_low"] < 1.2  # unpaired it would be about 4.5
    assert (lerf["better"], morf["better"]) == ("second", "first")  # of morf the lower one is better


def test_what_can_not_be_told_apart_is_better_on_neither_side(store: Store) -> None:
    values = np.arange(30.0)
    noise = np.random.default_rng(1).choice([-1.0, 1.0], 30)
    first = {"scores:a": publish_scores(store, "a", {("lerf", ""): values, ("entropy", ""): values})}
    second = {"scores:a": publish_scores(store, "b", {("lerf", ""): values + noise, ("entropy", ""): values + 9})}
    lerf, entropy = compared(first, second)
    assert lerf["better"] == ""
    assert entropy["better"] == ""  # it has no direction
    assert entropy["ci_low"] == pytest.approx(9)


def test_failed_rows_count_in_neither(store: Store) -> None:
    before, after = np.arange(20.0), np.arange(20.0) + 2
    before[3], after[7] = np.nan, np.nan
    first = {"scores:a": publish_scores(store, "a", {("lerf", ""): before})}
    (row,) = compared(first, {"scores:a": publish_scores(store, "b", {("lerf", ""): after})})
    assert row["difference"] == pytest.approx(2)


def test_scores_that_are_no_means_are_compared_too(store: Store) -> None:
    generator, ids, groups = np.random.default_rng(0), [f"s{row}" for row in range(60)], np.arange(60) % 3
    worse = (generator.random((60, 5)) < 0.2).astype(float)
    better = np.maximum(worse, (generator.random((60, 5)) < 0.6).astype(float))
    first = {"localization:a": publish(store, "a", worse, ids, groups)}
    rows = {row["metric"]: row for row in compared(first, {"localization:a": publish(store, "b", better, ids, groups)})}
    assert set(rows) == {"max_box_acc", "pointing_game"}
    for row in rows.values():
        assert row["difference"] == pytest.approx(row["second"] - row["first"])
        assert 0 < row["ci_low"] < row["difference"] < row["ci_high"]
        assert row["better"] == "second"


def test_other_rows_and_nothing_in_common_are_refused(store: Store) -> None:
    first = {"scores:a": publish_scores(store, "a", {("lerf", ""): np.arange(5.0)})}
    other = publish_scores(store, "b", {("lerf", ""): np.arange(5.0)}, targets=[1] * 5)
    with pytest.raises(UserInputError, match=r"scores:a: .*set attribution.target to label or every-label"):
        compared(first, {"scores:a": other})
    with pytest.raises(UserInputError, match="no method in common"):
        compared(first, {"scores:b": other})


def test_the_table_on_the_terminal_marks_what_differs() -> None:
    row = ("gradcam", "lerf", "", 0.5, 0.75, 0.25, 0.2, 0.3, 40, "second")
    text = comparing._text({name: [value] for name, value in zip(COLUMNS, row, strict=True)})
    assert "+0.2500" in text
    assert "[+0.2000, +0.3000] *" in text
    assert text.splitlines()[1].endswith("second")
