"""The leaderboard: every value of the summary in its place."""

from __future__ import annotations

from roarline.report.leaderboard import build_leaderboard
from roarline.report.scores import Method, scores_from_columns
from tests.report.make_experiment import Recipe, summary_columns

_METHODS = [
    Method(name, name, "signed", "sum", {}, name in ("sobel", "random"))
    for name in ("integrated_gradients", "gradient", "sobel", "random")
]


def test_cells_are_the_summarys_rows_and_baselines_stand_apart():
    scores = scores_from_columns(summary_columns(Recipe()))
    board = build_leaderboard(scores, _METHODS)
    assert [column.metric for column in board.columns[:4]] == [
        "roar_accuracy", "roar_leakage", "kar_accuracy", "kar_leakage",
    ]  # fmt: skip
    assert {row.method for row in board.methods} == {"integrated_gradients", "gradient"}
    assert {row.method for row in board.baselines} == {"sobel", "random"}
    for row in (*board.methods, *board.baselines):
        for column, cell in zip(board.columns, row.cells, strict=True):
            assert cell == scores.overall(column.metric, column.setting)[row.method]


def test_rows_are_in_order_of_the_mean_rank():
    board = build_leaderboard(scores_from_columns(summary_columns(Recipe(modes=(), metrics=("morf",)))), _METHODS)
    assert [row.method for row in board.methods] == ["integrated_gradients", "gradient"]
    assert [row.mean_rank for row in board.methods] == [1.0, 2.0]
    # Values rise with a method's place; lower is better for MoRF, higher for LeRF.
    board = build_leaderboard(scores_from_columns(summary_columns(Recipe(modes=(), metrics=("lerf",)))), _METHODS)
    assert [row.method for row in board.methods] == ["gradient", "integrated_gradients"]


def test_arrows_say_the_direction():
    board = build_leaderboard(scores_from_columns(summary_columns(Recipe())), _METHODS)
    arrows = {column.metric: column.arrow for column in board.columns}
    assert arrows["roar_accuracy"] == arrows["morf"] == arrows["deletion"] == "↓"
    assert arrows["kar_accuracy"] == arrows["lerf"] == arrows["srg"] == arrows["insertion"] == "↑"


def test_a_probe_ranks_nothing():
    board = build_leaderboard(scores_from_columns(summary_columns(Recipe())), _METHODS)
    assert [column.metric for column in board.columns if not column.ranked] == ["roar_leakage", "kar_leakage"]


def test_a_single_fraction_is_its_own_summary():
    recipe = Recipe(modes=("roar",), fractions=(0.5,), metrics=())
    board = build_leaderboard(scores_from_columns(summary_columns(recipe)), _METHODS)
    assert [column.title for column in board.columns] == ["ROAR accuracy, 50 % removed", "ROAR leakage, 50 % removed"]
    assert board.methods[0].cells[0] is not None


def test_two_settings_of_one_metric_are_two_columns():
    columns = summary_columns(Recipe(modes=(), metrics=("morf",)))
    second = {name: [*values] for name, values in columns.items()}
    second["setting"] = ["fill=zero"] * len(second["setting"])
    both = {name: columns[name] + second[name] for name in columns}
    board = build_leaderboard(scores_from_columns(both), _METHODS)
    assert [column.title for column in board.columns] == ["MoRF", "MoRF, fill=zero"]


def test_no_scores_no_columns():
    board = build_leaderboard(scores_from_columns(summary_columns(Recipe(modes=(), metrics=()))), _METHODS)
    assert board.columns == ()
    assert [row.cells for row in board.methods] == [(), ()]
