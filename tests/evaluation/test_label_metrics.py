"""Metrics of several labels an image: those of the two originals, and what counting gives."""

import numpy as np
import pytest

from roarline.evaluation.label_metrics import label_metrics
from tests.golden_cases import case

COLUMNS = ("precision", "recall", "f_score")


@pytest.mark.parametrize(("threshold", "stored"), [(0.0, "0p0"), (-1.0, "m1p0"), (0.7, "0p7")])
def test_pooled_metrics_equal_those_of_nn_explainer(threshold, stored):
    arrays, _ = case("s0_label_metrics")
    found = label_metrics(arrays["in_logits"], arrays["in_multi_labels"], list("abcdefg"), threshold)["overall"]
    ours = [found[name] for name in ("accuracy", *COLUMNS)]
    np.testing.assert_allclose(ours, arrays[f"out_multi_{stored}"], rtol=1e-6)  # the original counts in float32


def test_metrics_by_class_and_overall_equal_those_of_consistent_interpretations():
    arrays, _ = case("s2_multilabel_metrics")
    found = label_metrics(arrays["in_logits"], arrays["in_labels"], list("abcdefgh"))
    ours = [found[part][name] for part in ("per_class_mean", "overall") for name in COLUMNS]
    np.testing.assert_allclose(100 * np.array(ours), arrays["out_overall"], rtol=1e-6)  # float32 in the original
    for name, stored in zip(COLUMNS, ("out_p_c", "out_r_c", "out_f_c"), strict=True):
        by_class = [100 * found["classes"][k][name] for k in "abcdefgh"]
        np.testing.assert_allclose(by_class, arrays[stored], rtol=1e-6)


def test_what_is_counted_by_hand():
    logits = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    labels = np.array([[1, 1], [1, 0], [0, 1], [1, 0]])
    found = label_metrics(logits, labels, ["cat", "dog"])
    # cat: 2 of 2 decided are right, 2 of 3 found; dog: 1 of 2, 1 of 2
    assert found["classes"]["cat"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f_score": 0.8})
    assert found["classes"]["dog"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f_score": 0.5})
    assert found["overall"] == pytest.approx(
        {"accuracy": 5 / 8, "precision": 3 / 4, "recall": 3 / 5, "f_score": 2 * 3 / (2 * 3 + 1 + 2)}
    )
    assert found["per_class_mean"] == pytest.approx({"precision": 0.75, "recall": 7 / 12, "f_score": 0.65})


def test_a_class_that_is_never_decided_for_counts_as_nothing():
    found = label_metrics(np.array([[1.0, -1.0]]), np.array([[1, 1]]), ["cat", "dog"])
    assert found["classes"]["dog"] == {"precision": 0.0, "recall": 0.0, "f_score": 0.0}
    assert found["per_class_mean"]["f_score"] == pytest.approx(0.5)
