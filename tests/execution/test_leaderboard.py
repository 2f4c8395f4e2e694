"""The leaderboard on the terminal."""

from __future__ import annotations

from roarline.execution.leaderboard import leaderboard

COLUMNS = (
    "method",
    "metric",
    "setting",
    "value",
    "higher_is_better",
    "difference_ci_low",
    "difference_ci_high",
    "rank",
    "status",
)


def scores(*rows: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)}


def test_best_mean_rank_first_with_stars_where_the_difference_excludes_zero() -> None:
    said = leaderboard(
        scores(
            ("worse", "morf", "", "0.5", "False", "-0.1", "0.2", "2", "ok"),
            ("better", "morf", "", "0.25", "False", "-0.3", "-0.1", "1", "ok"),
        )
    ).splitlines()
    assert said[0].split() == ["method", "morf", "↓"]
    assert said[2].split() == ["better", "0.250*"]
    assert said[3].split() == ["worse", "0.500"]


def test_fractions_are_shown_by_their_mean_and_the_reference_in_a_line() -> None:
    said = leaderboard(
        scores(
            ("a", "roar_accuracy", "removed_fraction=0.1", "0.9", "False", "", "", "1", "ok"),
            ("a", "roar_accuracy", "removed_fraction=0.5", "0.7", "False", "", "", "1", "ok"),
            ("a", "roar_accuracy", "mean over fractions", "0.8", "False", "", "", "1", "ok"),
            ("(nothing removed)", "roar_accuracy", "removed_fraction=0", "0.975", "False", "", "", "", "ok"),
        )
    )
    assert "0.800" in said
    assert "0.900" not in said
    assert "with nothing removed, a retrained network reaches 0.975" in said


def test_a_single_fraction_stands_for_itself() -> None:
    row = ("a", "roar_accuracy", "removed_fraction=0.5", "0.7", "False", "", "", "1", "ok")
    assert "0.700" in leaderboard(scores(row))


def test_a_failed_score_shows_its_status() -> None:
    row = ("a", "morf", "", "", "False", "", "", "", "failed: no finite score")
    assert "failed: no finite score" in leaderboard(scores(row))


def test_the_legend_of_the_star_stands_only_where_there_is_a_random_ranking() -> None:
    row = ("a", "morf", "", "0.5", "False", "-0.1", "0.2", "1", "ok")
    assert "90%" in leaderboard(scores(row), confidence=0.9)
    assert "*" not in leaderboard(scores((*row[:5], "", "", *row[7:])))
