"""The section of sanity checks: readings follow from intervals, curves from layers, and nothing else."""

from __future__ import annotations

import pytest

from roarline.report.palette import line_styles
from roarline.report.plots import draw
from roarline.report.sanity import Sanity, build_sanity, reading
from roarline.report.scores import Method, Score, Scores

METHODS = [
    Method("gradcam", "gradcam", "positive", "sum", {}, baseline=False),
    Method("guided", "guided_backprop", "absolute", "sum", {}, baseline=False),
    Method("sobel", "sobel", "signed", "sum", {}, baseline=True),
]


def score(
    method: str, metric: str, setting: str, value: float | None, low: float | None = None, high: float | None = None
) -> Score:
    better = metric == "efficient_randomisation"
    return Score(
        method,
        metric,
        setting,
        value,
        low,
        high,
        10,
        0,
        better,
        "",
        None,
        None,
        None,
        None,
        "ok" if value else "all failed",
    )


def cascade(method: str, last: float, above: tuple[float, float]) -> list[Score]:
    name = "cascading_randomisation"
    return [
        score(method, name, "layer=1 fc, ssim", 0.8, 0.7, 0.9),
        score(method, name, "layer=2 block.conv, ssim", last, last - 0.1, last + 0.1),
        score(method, name, "mean over layers, ssim", (0.8 + last) / 2),
        score(method, name, "all randomised, ssim", last, last - 0.1, last + 0.1),
        score(method, name, "above chance, ssim", sum(above) / 2, *above),
    ]


ROWS = [
    *cascade("gradcam", 0.05, (-0.02, 0.1)),
    *cascade("guided", 0.6, (0.4, 0.5)),
    *cascade("sobel", 1.0, (0.9, 0.95)),
    score("gradcam", "efficient_randomisation", "", 0.2, 0.1, 0.3),
    score("guided", "efficient_randomisation", "", -0.1, -0.2, 0.05),
]


def test_without_rows_there_is_no_section() -> None:
    assert build_sanity(Scores([score("gradcam", "morf", "", 0.5)]), METHODS) == Sanity()


def test_a_method_passes_where_the_interval_above_chance_reaches_0() -> None:
    table = build_sanity(Scores(ROWS), METHODS)
    assert [(column.metric, column.similarity, column.arrow) for column in table.columns] == [
        ("cascading_randomisation", "ssim", "↓"),
        ("efficient_randomisation", "", "↑"),
    ]
    found = {row.method: [cell.reading if cell else None for cell in row.cells] for row in table.rows}
    assert found == {"gradcam": ["passes", "passes"], "guided": ["fails", "fails"], "sobel": ["fails", None]}
    assert table.rows[0].cells[0] is not None
    assert table.rows[0].cells[0].score.value == 0.05


@pytest.mark.parametrize(
    ("metric", "low", "expected"),
    [
        ("random_logit", 0.0, "passes"), ("random_logit", 1e-9, "fails"), ("random_logit", None, "unknown"),
        ("efficient_randomisation", 0.0, "fails"), ("efficient_randomisation", 1e-9, "passes"),
        ("efficient_randomisation", None, "unknown"),
    ],
)  # fmt: skip
def test_readings_turn_at_0(metric: str, low: float | None, expected: str) -> None:
    row = score("gradcam", metric, "", 0.5, low, 1.0)
    assert reading(metric, row, row) == expected


def test_a_similarity_without_chance_has_no_reading() -> None:
    row = score("gradcam", "independent_randomisation", "mean over layers, ssim", 0.5, 0.1, 0.9)
    assert reading("independent_randomisation", row, None) == "unknown"


def test_sentences_name_who_passes_and_who_fails() -> None:
    first, second = build_sanity(Scores(ROWS), METHODS).sentences
    assert first == "Weights lost layer by layer: `gradcam` passes; `guided` fails."
    assert second == "eMPRT: rise of entropy: `gradcam` passes; `guided` fails."


def test_curves_have_the_layers_names_and_a_line_a_method() -> None:
    (panel,) = build_sanity(Scores(ROWS), METHODS).panels
    assert panel.x_ticks == ("fc", "block.conv")
    assert [line.name for line in panel.lines] == ["gradcam", "guided", "sobel"]
    assert panel.lines[1].y == (0.8, 0.6)
    assert panel.lines[1].low == (0.7, 0.5)
    styles = line_styles([(method.name, method.baseline) for method in METHODS])
    assert draw([panel], styles)[panel.name].startswith(b"<?xml")


def test_a_layer_without_a_value_leaves_a_gap_and_no_line_where_none_has() -> None:
    rows = [row for row in ROWS if row.method == "gradcam" and not row.setting.startswith("layer=1")]
    rows += [score("gradcam", "cascading_randomisation", "layer=1 fc, ssim", None)]
    rows += [score("guided", "cascading_randomisation", "layer=1 fc, ssim", None)]
    (panel,) = build_sanity(Scores(rows), METHODS).panels
    assert [(line.name, line.y) for line in panel.lines] == [("gradcam", (0.05,))]
