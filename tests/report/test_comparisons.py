"""How far to trust the ranking: what the page reads from the tables, says of them and draws."""

from __future__ import annotations

import re

import pytest

from roarline.report.comparison_plots import draw_comparisons, shorten
from roarline.report.comparison_text import (
    agreement_sentences,
    alpha_sentences,
    rank_sentences,
    stability_sentences,
    words,
)
from roarline.report.comparisons import (
    AgreementMap,
    Alpha,
    Comparisons,
    Placed,
    RankPlot,
    StabilityPlot,
    Stable,
    comparisons_from_tables,
)
from roarline.report.palette import diverging_colour
from roarline.report.scores import Scores, methods_from_parameters, scores_from_columns
from tests.report.make_experiment import Recipe, comparison_rows, method_parameters, summary_columns


@pytest.fixture(scope="module")
def found() -> Comparisons:
    recipe = Recipe(modes=(), metrics=("morf", "lerf", "srg"))
    scores = scores_from_columns(summary_columns(recipe))
    return comparisons_from_tables(comparison_rows(recipe), scores, methods_from_parameters(method_parameters(recipe)))


def placed(method: str, place: float, *bars: int) -> Placed:
    return Placed(method, False, place, place - 0.2, place + 0.2, bars)


def test_tables_become_pictures_metric_by_metric(found: Comparisons) -> None:
    assert [plot.title for plot in found.ranks] == ["MoRF ↓", "LeRF ↑", "SRG ↑"]
    assert found.agreement is not None
    assert found.agreement.titles == ("MoRF ↓", "LeRF ↑", "SRG ↑")
    tau = found.agreement.tau
    assert all(tau[one][one] is None for one in range(3))
    assert all(tau[one][two] == tau[two][one] for one in range(3) for two in range(3))
    assert tau[1][2] == 1
    assert [row.place for row in found.ranks[0].rows] == [1, 2, 3, 4]
    assert [row.bars for row in found.ranks[0].rows] == [(1,), (1,), (), ()]
    assert {row.method for row in found.ranks[0].rows if row.baseline} == {"sobel", "random"}
    assert [(plot.points, plot.tau_min) for plot in found.stability] == [(1, -1.0)] * 3
    first = found.stability[0].rows[0]
    assert (first.base, first.places) == (1.0, (("fill", 4.0),))


def test_the_arrow_of_a_name_in_two_lines_stays_with_its_last_word() -> None:
    title = "Region perturbation, patch_px=2 ↑"
    alphas = (Alpha(title, 0.4, 0.3, 0.5, 60),)
    svg = draw_comparisons(Comparisons(alphas=alphas))["alpha"].decode()
    assert "<!-- ↑ -->" not in svg
    assert any(line.endswith("↑") for line in re.findall("<!-- (.*?) -->", svg))


def test_no_tables_no_pictures() -> None:
    empty = {
        name: []
        for name in (
            "metric_reliability", "metric_agreement", "critical_difference", "rank_stability", "rank_stability_summary",
        )
    }  # fmt: skip
    found = comparisons_from_tables(empty, Scores([]), [])
    assert not found.any
    assert draw_comparisons(found) == {}
    assert list(words(found)) == []


def test_every_picture_is_drawn_the_same_each_time(found: Comparisons) -> None:
    one, two = draw_comparisons(found), draw_comparisons(found)
    assert one == two
    assert set(one) == {"places-0", "places-1", "places-2", "alpha", "stability-0", "stability-1", "stability-2"}
    assert all(svg.lstrip().startswith(b"<?xml") for svg in one.values())


def test_pictures_take_missing_intervals_long_names_and_many_factors() -> None:
    name = "a_method_with_a_name_that_is_far_longer_than_any_row_of_the_picture_can_be_wide"
    rows = (Placed(name, False, 1.0, None, None, ()), placed("b", 2.0))
    factors = tuple((f"factor {number}", None) for number in range(11))
    stable = Stable(name, True, 1.0, tuple((factor, 2.0) for factor, _ in factors))
    drawn = draw_comparisons(
        Comparisons(
            None,
            (Alpha("MoRF ↓", -0.4, None, None, 2),),
            (RankPlot("places-0", "MoRF ↓", None, rows),),
            (StabilityPlot("stability-0", "MoRF ↓", (stable,), factors, 11, None, None),),
        )
    )
    assert set(drawn) == {"places-0", "alpha", "stability-0"}


def test_long_names_keep_both_ends() -> None:
    assert shorten("gradient", 10) == "gradient"
    short = shorten("integrated_gradients_squared_blurred", 20)
    assert len(short) == 20
    assert short.startswith("integrated_g")
    assert short.endswith("lurred")


def test_colours_differ_to_both_sides_and_words_on_them_can_be_read() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for step in range(-10, 11):
        ground, ink = (luminance(colour) for colour in diverging_colour(step / 10))
        contrast = (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05)
        assert contrast >= 4.5, step  # WCAG 2.1, level AA
    assert diverging_colour(-1)[0] != diverging_colour(1)[0]
    assert diverging_colour(0)[0] == "#f7f7f7" or luminance(diverging_colour(0)[0]) > 0.85


def test_metrics_that_contradict_each_other_are_named_worst_first() -> None:
    table = AgreementMap(("A", "B", "C"), ((None, -0.2, 0.8), (-0.2, None, -0.9), (0.8, -0.9, None)), 7)
    counts, disagree = agreement_sentences(table)
    assert "Of 3 pairs of metrics, 1 order the 7 methods much alike" in counts
    assert "2 rather the other way round" in counts
    assert disagree == "These metrics disagree: B and C (τ = −0.90); A and B (τ = −0.20)."


def test_metrics_that_agree_are_said_to_and_few_methods_are_warned_of() -> None:
    table = AgreementMap(("A", "B", "C"), ((None, 0.3, 1.0), (0.3, None, 0.4), (1.0, 0.4, None)), 4)
    sentences = list(agreement_sentences(table))
    assert "No two metrics contradict each other; furthest apart are A and B (τ = 0.30)." in sentences
    assert sentences[-1].startswith("With 4 methods")
    assert list(agreement_sentences(None)) == []
    assert list(agreement_sentences(AgreementMap(("A", "B"), ((None, None), (None, None)), 2))) == []
    (only,) = agreement_sentences(AgreementMap(("A", "B"), ((None, 0.7), (0.7, None)), 9))
    assert only == "The two metrics, A and B (τ = 0.70), agree."


@pytest.mark.parametrize(
    ("alpha", "low", "high", "level"),
    [
        (0.9, 0.85, 0.95, "reliable"),
        (0.7, 0.6, 0.8, "tentative"),
        (0.4, 0.3, 0.5, "more than chance"),
        (0.1, -0.1, 0.3, "no more than chance"),
        (-0.3, -0.5, -0.1, "contradiction"),
    ],
)
def test_alpha_in_words(alpha: float, low: float, high: float, level: str) -> None:
    assert level in next(alpha_sentences((Alpha("MoRF ↓", alpha, low, high, 9),)))


def test_who_leads_alone_and_who_shares_the_lead() -> None:
    alone = RankPlot("p0", "MoRF ↓", 9, (placed("a", 1.1), placed("b", 2.0, 1), placed("c", 2.9, 1)))
    shared = RankPlot("p1", "LeRF ↑", 9, (placed("b", 1.4, 1), placed("a", 1.6, 1), placed("c", 3.0)))
    first, second = rank_sentences((alone, shared))
    assert "MoRF ↓: `a`." in first
    assert "LeRF ↑: `b` and `a`." in second


def test_the_least_stable_metric_is_named_with_what_moves_it() -> None:
    def plot(title: str, least: float, *factors: tuple[str, float]) -> StabilityPlot:
        return StabilityPlot("s", title, (), factors, 3, 0.5, least)

    unstable = plot("Insertion ↑", 0.2, ("steps", 0.9), ("insertion fill", 0.3))
    worst, best = stability_sentences((plot("MoRF ↓", 0.9, ("fill", 0.95)), unstable))
    assert "the order by Insertion ↑ changes most: in the worst of 3 cases Kendall's τ" in worst
    assert "is 0.20; what moves it most is another insertion fill (τ = 0.30 on average)" in worst
    assert "MoRF ↓, τ of 0.90" in best
    (same,) = stability_sentences((plot("MoRF ↓", 1.0, ("fill", 1.0)),))
    assert "the same order" in same


def test_every_word_that_a_picture_uses_is_explained(found: Comparisons) -> None:
    explained = dict(words(found))
    assert set(explained) == {
        "place", "black bar", "Holm's correction", "Kendall's τ", "Krippendorff's α", "concordance W",
    }  # fmt: skip
    assert all(re.search(r"[.)]$", meaning) for meaning in explained.values())
