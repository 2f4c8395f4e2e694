"""Words follow the numbers: no sentence claims what the table doesn't show."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.report.findings import Facts, leak
from roarline.report.formatting import percent
from roarline.report.scores import methods_from_parameters, scores_from_columns
from roarline.report.text import Passage, answer, passages
from tests.report.make_experiment import Recipe, method_parameters, summary_columns

_METHODS = {"ig": "integrated_gradients", "gradient": "gradient", "sobel": "sobel", "random": "random"}
_SCORES = {
    "roar_accuracy": {"ig": 0.8, "gradient": 0.62, "sobel": 0.65, "random": 0.68},
    "morf": {"ig": 0.1, "gradient": 0.3, "sobel": 0.35, "random": 0.4},
}


def _facts(recipe: Recipe, **changes: Any) -> Facts:
    facts = Facts(
        dataset="made",
        model="small_cnn",
        classes=4,
        multi_label=False,
        test_images=16,
        chance=0.25,
        test_accuracy=0.875,
        methods=tuple(methods_from_parameters(method_parameters(recipe))),
        scores=scores_from_columns(summary_columns(recipe)),
        repeats=recipe.repeats,
        confidence=0.95,
    )
    return replace(facts, **changes)


def _recipe(**changes: Any) -> Recipe:
    return replace(Recipe(methods=_METHODS, scores=_SCORES), **changes)


def _text(found: list[Passage]) -> str:
    return "\n".join(text for passage in found for text in (*passage.paragraphs, *passage.items))


def _passage(facts: Facts, title: str) -> str:
    return _text([passage for passage in passages(facts) if passage.title.startswith(title)])


_CONFLICT = "A good curve"


def test_the_best_morf_curve_that_is_worse_than_random_under_roar_is_explained_by_its_masks():
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): "worse", ("morf", "ig"): "better"}, leakage={"ig": 0.75})
    said = _passage(_facts(recipe), _CONFLICT)
    assert "`ig` (0.100) has the best MoRF curve and yet is worse than a random ranking under ROAR" in said
    assert "reach 80.0 % on average over the removed fractions, 68.0 % after random removal" in said
    assert "The leakage probe shows why" in said
    assert "gets 75.0 % right on average" in said
    assert "with random masks it gets 20.0 %, and guessing (always the most frequent class) 25.0 %" in said


@pytest.mark.parametrize(
    ("verdict", "leakage", "expected", "absent"),
    [
        ("worse", 0.75, "shows why", "does not explain"),
        ("worse", 0.2, "does not explain this", "shows why"),
        ("worse", 0.22, "does not explain this", "shows why"),  # higher than random's 0.2, by less than the interval
        ("worse", 0.25, "explains a part of this at most", "shows why"),  # ROAR's difference is 0.1
        ("worse", 0.1, "does not explain this", "shows why"),
        ("better", 0.75, "the two agree", "worse than a random ranking"),
        ("undecided", 0.75, "can't tell it from random ranking", "shows why"),
    ],
)
def test_the_conflict_is_told_only_where_it_is(verdict: str, leakage: float, expected: str, absent: str):
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): verdict, ("morf", "ig"): "better"}, leakage={"ig": leakage})
    said = _passage(_facts(recipe), _CONFLICT)
    assert expected in said
    assert absent not in said


@pytest.mark.parametrize(
    ("verdict", "leakage", "warns"),
    [("worse", 0.75, True), ("worse", 0.25, False), ("worse", 0.2, False), ("undecided", 0.75, False)],
)
def test_the_first_paragraph_warns_where_the_masks_explain_the_failure(verdict: str, leakage: float, warns: bool):
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): verdict}, leakage={"ig": leakage})
    warning = f"tell the class in {percent(leakage)} of the cases (random masks: 20.0 %)"
    assert (warning in answer(_facts(recipe))) == warns


def test_a_single_fraction_is_not_called_an_average():
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): "worse"}, leakage={"ig": 0.75}, fractions=(0.5,))
    said = _passage(_facts(recipe), _CONFLICT)
    assert "reach 80.0 % with 50 % of the pixels removed" in said
    assert "gets 75.0 % right with 50 % of the pixels removed" in said
    assert "average" not in said
    assert "means over the fractions" not in _text(passages(_facts(recipe)))
    assert "means over the fractions" in _text(passages(_facts(_recipe(leakage={"ig": 0.75}))))


def test_a_leak_needs_no_paired_interval_to_be_seen():
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): "worse"}, leakage={"ig": 0.75, "gradient": 0.23})
    columns = summary_columns(recipe)
    for name in ("difference_to_random", "difference_ci_low", "difference_ci_high"):
        for row, metric in enumerate(columns["metric"]):
            if metric == "roar_leakage":
                columns[name][row] = None
    facts = _facts(recipe, scores=scores_from_columns(columns))
    found = {name: leak(facts, "roar", name) for name in ("ig", "gradient")}
    # Intervals are ±0.02 around 0.75, 0.23 and random's 0.2.
    assert {name: item.clear for name, item in found.items() if item} == {"ig": True, "gradient": False}


def test_without_a_probe_the_page_says_that_it_was_not_run():
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): "worse"})
    columns = summary_columns(recipe)
    keep = [row for row, metric in enumerate(columns["metric"]) if not metric.endswith("leakage")]
    scores = scores_from_columns({name: [values[row] for row in keep] for name, values in columns.items()})
    facts = _facts(recipe, scores=scores)
    assert "was not run for it" in _passage(facts, _CONFLICT)
    assert _passage(facts, "What the masks") == ""


def test_a_baseline_that_beats_the_best_method_is_named():
    scores = {**_SCORES, "morf": {"ig": 0.2, "gradient": 0.3, "sobel": 0.05, "random": 0.4}}
    facts = _facts(_recipe(scores=scores, verdicts={("roar_accuracy", "ig"): "worse"}))
    assert "(the baseline `sobel` (0.050) does better still)" in _passage(facts, _CONFLICT)
    assert "`sobel` never looks at the classifier, and ranks above `ig` and `gradient` in MoRF" in (
        _passage(facts, "What needs no look")
    )


def test_baselines_that_beat_the_same_methods_stand_in_one_sentence():
    methods = {"ig": "integrated_gradients", "sobel": "sobel", "flat": "constant", "random": "random"}
    scores = {"morf": {"ig": 0.2, "sobel": 0.05, "flat": 0.1, "random": 0.4}}
    said = _passage(_facts(_recipe(scores=scores, methods=methods)), "What needs no look")
    assert "`sobel` and `flat` never look at the classifier, and rank above `ig` in MoRF." in said


@pytest.mark.parametrize("metric", ["roar_accuracy", "kar_accuracy", "morf", "lerf", "srg", "insertion", "deletion"])
@pytest.mark.parametrize("verdict", ["better", "worse", "undecided"])
def test_each_method_stands_under_its_verdict(metric: str, verdict: str):
    words = {"better": "etter than random: `ig`", "worse": "orse than random: `ig`", "undecided": "from random: "}
    said = _passage(_facts(_recipe(verdicts={(metric, "ig"): verdict})), "Which methods beat")
    titles = {"roar_accuracy": "ROAR", "kar_accuracy": "KAR", "morf": "MoRF", "lerf": "LeRF", "srg": "SRG"}
    line = next(line for line in said.splitlines() if line.startswith(titles.get(metric, metric.capitalize())))
    assert words[verdict] in line
    other = next(line for line in said.splitlines()[1:] if not line.startswith(titles.get(metric, metric.capitalize())))
    assert "etter than" not in other
    assert "orse than" not in other


def test_without_a_random_baseline_nothing_is_compared_with_it():
    methods = {name: component for name, component in _METHODS.items() if name != "random"}
    facts = _facts(_recipe(methods=methods))
    said = answer(facts) + _text(passages(facts))
    assert "no random baseline" in said
    assert "than random" not in said
    assert "random ranking" not in said


def test_only_retraining_speaks_of_retraining_only():
    facts = _facts(_recipe(metrics=()))
    said = answer(facts) + _text(passages(facts))
    assert "ROAR" in said
    for word in ("MoRF", "LeRF", "SRG", "nsertion", "eletion", "Kendall"):
        assert word not in said


def test_only_perturbation_speaks_of_perturbation_only():
    facts = _facts(_recipe(modes=()), repeats=0)
    said = answer(facts) + _text(passages(facts))
    assert "MoRF" in said
    for word in ("ROAR", "KAR", "retrained", "leakage", "Kendall"):
        assert word not in said


def test_no_scores_no_claims():
    facts = _facts(_recipe(modes=(), metrics=()), repeats=0)
    assert passages(facts) == []
    assert "best" not in answer(facts)


@pytest.mark.parametrize(
    ("repeats", "expected"), [(1, "was trained once"), (3, "was trained 3 times"), (5, None), (10, None)]
)
def test_few_repeats_are_owned_up_to(repeats: int, expected: str | None):
    said = _passage(_facts(_recipe(repeats=repeats)), "How sure")
    assert (expected in said) if expected else ("was trained" not in said)


@pytest.mark.parametrize(
    ("srg", "expected"),
    [
        ({"ig": 4, "gradient": 3, "sobel": 2, "random": 1}, "largely agree"),
        ({"ig": 1, "gradient": 2, "sobel": 3, "random": 4}, "largely contradict"),
        ({"ig": 4, "gradient": 1, "sobel": 2, "random": 3}, "agree little"),
    ],
)
def test_agreement_counts_good_and_bad_not_high_and_low(srg: dict[str, float], expected: str):
    # ROAR: lower is better, in the order ig, gradient, sobel, random; SRG: higher is better.
    roar = {"ig": 0.1, "gradient": 0.2, "sobel": 0.3, "random": 0.4}
    assert expected in _passage(_facts(_recipe(scores={"roar_accuracy": roar, "srg": srg})), "Do the tests")


def test_agreement_needs_four_methods_and_different_values():
    three = {name: _METHODS[name] for name in ("ig", "sobel", "random")}
    assert _passage(_facts(_recipe(methods=three)), "Do the tests") == ""
    same = {"roar_accuracy": dict.fromkeys(_METHODS, 0.5)}
    assert _passage(_facts(_recipe(scores=same)), "Do the tests") == ""


def test_overlap_with_the_best_is_overlap_of_intervals():
    # Intervals are ±0.02: 0.62 and 0.65 overlap, 0.62 and 0.68 don't.
    said = _passage(_facts(_recipe()), "How sure").splitlines()
    assert "ROAR accuracy: ±2.0 pp; that of the best, `gradient`, overlaps the intervals of `sobel`." in said
    assert "MoRF: ±0.020; that of the best, `ig`, overlaps no other's interval." in said


def test_leaky_masks_are_named_highest_first():
    facts = _facts(_recipe(leakage={"ig": 0.5, "gradient": 0.75}))
    assert "for `gradient` (75.0 %) and `ig` (50.0 %); guessing gets 25.0 %" in _passage(facts, "What the masks")
    calm = _passage(_facts(_recipe(leakage={"sobel": 0.21})), "What the masks")
    assert "no method's removal masks alone tell the class clearly better" in calm
    assert "the highest is `sobel` with 21.0 %" in calm


def test_kar_is_warned_about_only_where_a_leaky_method_beats_random():
    leaky = _recipe(leakage={"ig": 0.75}, verdicts={("kar_accuracy", "ig"): "better"})
    assert "KAR rewards this leak: `ig`" in _passage(_facts(leaky), "What the masks")
    honest = _recipe(leakage={"ig": 0.75}, verdicts={("kar_accuracy", "gradient"): "better"})
    assert "KAR rewards" not in _passage(_facts(honest), "What the masks")


def test_the_peak_of_the_leak_is_where_the_probe_is_highest():
    columns = summary_columns(_recipe())
    for row, (method, metric, setting) in enumerate(
        zip(columns["method"], columns["metric"], columns["setting"], strict=True)
    ):
        if (method, metric, setting) == ("ig", "roar_leakage", "removed_fraction=0.9"):
            columns["value"][row] = 0.9
    found = leak(_facts(_recipe(), scores=scores_from_columns(columns)), "roar", "ig")
    assert found is not None
    assert (found.peak_fraction, found.peak_leakage, found.peak_random_leakage) == (0.9, 0.9, 0.2)
    assert found.average == pytest.approx((0.2 + 0.2 + 0.9) / 3)
    assert found.peak_accuracy == pytest.approx(0.8 - 0.4 * 0.4)


def test_multi_label_accuracy_is_called_what_it_is():
    recipe = _recipe(verdicts={("roar_accuracy", "ig"): "worse"})
    assert "87.5 % of the class decisions right" in answer(_facts(recipe, multi_label=True))
    assert "always the more frequent answer" in _text(passages(_facts(recipe, multi_label=True)))


_SHARES = st.integers(0, 1000).map(lambda value: value / 1000)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*_METHODS]), _SHARES),
    st.dictionaries(st.sampled_from([*_METHODS]), _SHARES),
    st.dictionaries(st.sampled_from([*_METHODS]), _SHARES),
    st.dictionaries(
        st.tuples(st.sampled_from(["roar_accuracy", "morf", "kar_accuracy"]), st.sampled_from(["ig", "gradient"])),
        st.sampled_from(["better", "worse", "undecided"]),
    ),
)
def test_every_number_in_the_words_is_in_the_table(roar: Any, morf: Any, leakage: Any, verdicts: Any):
    recipe = _recipe(scores={"roar_accuracy": roar, "morf": morf}, leakage=leakage, verdicts=verdicts)
    facts = _facts(recipe)
    known = {facts.chance, 0.875}
    for row in facts.scores.rows:
        known |= {value for value in (row.value, row.ci_low, row.ci_high) if value is not None}
    for mode in ("roar", "kar"):
        for method in _METHODS:
            found = leak(facts, mode, method)
            if found is not None:
                known |= {found.average, found.random_average}
    allowed = {percent(value) for value in known} | {f"{100 * value:g} %" for value in recipe.fractions} | {"95 %"}
    said = answer(facts) + _text(passages(facts))
    for number in re.findall(r"−?\d+(?:\.\d+)? %", said):
        assert number in allowed
    for row in facts.scores.rows:
        if row.metric == "roar_accuracy" and row.setting == "mean over fractions" and row.method in ("ig", "gradient"):
            groups = answer(facts)
            better = re.search(r"etter than random: ([^;(]*)", groups)
            assert (f"`{row.method}`" in better[1] if better else False) == (row.verdict == "better")
