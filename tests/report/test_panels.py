"""What the figures show: the summary's numbers, the reference and chance beside them."""

from __future__ import annotations

from roarline.report.panels import (
    Level,
    Line,
    deviation_panels,
    perturbation_panels,
    retraining_panels,
    training_panels,
)
from roarline.report.scores import Method, scores_from_columns
from tests.report.make_experiment import Recipe, summary_columns

_CHANCE = Level("chance", 0.25)
_METHODS = [
    Method(name, name, "signed", "sum", {}, False) for name in ("integrated_gradients", "gradient", "sobel", "random")
]


def test_roar_panels_hold_the_rows_of_the_summary_with_its_intervals():
    scores = scores_from_columns(summary_columns(Recipe(leakage={"gradient": 0.6})))
    accuracy, leakage = retraining_panels(scores, _METHODS, "roar", _CHANCE)
    assert (accuracy.name, leakage.name) == ("roar-accuracy", "roar-leakage")
    assert accuracy.group == leakage.group
    for panel, metric in ((accuracy, "roar_accuracy"), (leakage, "roar_leakage")):
        assert [line.name for line in panel.lines] == [method.name for method in _METHODS]
        for line in panel.lines:
            rows = scores.by_fraction(metric)[line.name]
            assert line.x == (0.1, 0.5, 0.9)
            assert line.y == tuple(row.value for row in rows)
            assert line.low == tuple(row.ci_low for row in rows)
            assert line.high == tuple(row.ci_high for row in rows)
    nothing, chance = accuracy.levels
    assert (nothing.value, nothing.low, nothing.high) == (0.95, 0.95 - 0.02, 0.95 + 0.02)
    assert chance == _CHANCE


def test_without_a_probe_there_is_one_panel_and_without_the_mode_none():
    columns = summary_columns(Recipe(modes=("kar",)))
    keep = [row for row, metric in enumerate(columns["metric"]) if metric != "kar_leakage"]
    scores = scores_from_columns({name: [values[row] for row in keep] for name, values in columns.items()})
    assert [panel.name for panel in retraining_panels(scores, _METHODS, "kar", _CHANCE)] == ["kar-accuracy"]
    assert retraining_panels(scores, _METHODS, "roar", _CHANCE) == []


def test_axes_say_which_pixels_go_first():
    scores = scores_from_columns(summary_columns(Recipe()))
    assert "most relevant first" in retraining_panels(scores, _METHODS, "roar", _CHANCE)[0].x_label
    assert "least relevant first" in retraining_panels(scores, _METHODS, "kar", _CHANCE)[0].x_label


def test_logits_are_not_called_probabilities():
    line = Line("m", (0.0, 1.0), (3.0, 1.0), (None, None), (None, None))
    panel = perturbation_panels({"morf": [line], "lerf": []}, "logit")
    assert [item.name for item in panel] == ["morf"]
    assert "logit" in panel[0].y_label
    assert panel[0].percent == (True, False)
    assert "probability" in perturbation_panels({"morf": [line]}, "probability")[0].y_label


def test_curves_of_imputation_and_of_regions_are_drawn_like_the_others():
    """Both of ROAD's share their range of y; patches, of which few are removed, end where the curve does."""
    nothing = (None, None)
    line, short = (Line("gradient", x, (0.9, 0.2), nothing, nothing) for x in ((0.0, 1.0), (0.0, 0.2)))
    curves = {"road_morf": [line], "road_lerf": [line], "irof": [line], "region_perturbation_8": [short]}
    panels = {panel.name: panel for panel in perturbation_panels(curves, "probability")}
    assert list(panels) == list(curves)
    assert panels["road_morf"].group == panels["road_lerf"].group != panels["irof"].group
    assert panels["region_perturbation_8"].x_range == (0.0, 0.2)
    assert panels["irof"].x_range == (0.0, 1.0)
    assert "superpixels" in panels["irof"].x_label
    assert "8 px" in panels["region_perturbation_8"].title


def test_deviations_are_drawn_by_fraction_in_their_own_unit():
    row = {name: values[0] for name, values in summary_columns(Recipe(modes=(), metrics=("morf_deviation",))).items()}
    rows = [{**row, "setting": f"removed_fraction={fraction}", "value": 100 * fraction} for fraction in (0.5, 0.1)]
    scores = scores_from_columns({name: [item[name] for item in rows] for name in row})
    (panel,) = deviation_panels(scores, _METHODS)
    assert (panel.lines[0].x, panel.lines[0].y) == ((0.1, 0.5), (10.0, 50.0))
    assert panel.percent == (True, False)


def test_the_training_curve_skips_missing_numbers():
    curve = {
        "epoch": [1.0, 2.0, 3.0],
        "train_loss": [2.0, 1.0, 0.5],
        "validation_loss": [None, 1.0, None],
        "train_accuracy": [0.2, 0.4, 0.6],
        "validation_accuracy": [None, None, None],
    }
    accuracy, loss = training_panels(curve, 2)
    assert [line.name for line in accuracy.lines] == ["train"]
    assert loss.lines[1] == Line("validation", (2.0,), (1.0,), (None,), (None,))
    assert "epoch 2" in accuracy.title
    assert training_panels({}, None) == []
