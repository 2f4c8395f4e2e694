"""Figures of F-Fidelity: a line a method over rising sizes, and none where there is nothing to draw."""

from dataclasses import replace

from roarline.report.f_fidelity import f_fidelity_panels
from roarline.report.scores import Method, Score, Scores

METHODS = [Method(name, name, "signed", "sum", {}, baseline=False) for name in ("a", "b")]
ROW = Score(
    method="a", metric="ffid_plus", setting="", value=0.1, ci_low=0.0, ci_high=0.2, n=5, failed=0,
    higher_is_better=True, unit="", difference=None, difference_low=None, difference_high=None, rank=1, status="ok",
)  # fmt: skip


def rows(method: str, metric: str, values: dict[float, float | None]) -> list[Score]:
    """Rows of some sizes, and of the mean."""
    found = [
        replace(ROW, method=method, metric=metric, setting=f"explanation_size={size:g}", value=value)
        for size, value in values.items()
    ]
    return [*found, replace(ROW, method=method, metric=metric, setting="mean over explanation sizes")]


def test_lines_rise_in_size_and_leave_out_the_mean():
    scores = Scores(
        [*rows("b", "ffid_plus", {0.9: 0.1, 0.1: 0.5, 0.5: 0.3}), *rows("a", "ffid_minus", {0.2: 0.0, 0.4: 0.1})]
    )
    plus, minus = f_fidelity_panels(scores, METHODS)
    assert [(line.name, line.x, line.y) for line in plus.lines] == [("b", (0.1, 0.5, 0.9), (0.5, 0.3, 0.1))]
    assert [(line.name, line.x) for line in minus.lines] == [("a", (0.2, 0.4))]
    assert plus.lines[0].low == (0.0, 0.0, 0.0)


def test_one_size_or_a_missing_value_is_no_line():
    assert f_fidelity_panels(Scores(rows("a", "ffid_plus", {0.5: 0.1})), METHODS) == []
    assert f_fidelity_panels(Scores(rows("a", "ffid_plus", {0.5: 0.1, 0.7: None})), METHODS) == []
    assert f_fidelity_panels(Scores([]), METHODS) == []
