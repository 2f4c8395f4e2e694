"""What the numbers mean, in words: every sentence is conditional on the numbers it speaks of.

Markup: `name` is a method; "arXiv 1806.10758" becomes a link. The page escapes everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from roarline.report.comparison_text import (
    agreement_sentences,
    alpha_sentences,
    rank_sentences,
    stability_sentences,
)
from roarline.report.findings import (
    Facts,
    agreement,
    best,
    half_width,
    leak,
    not_told_from_best,
    outranked_by,
    verdicts,
)
from roarline.report.formatting import (
    difference_text,
    fraction_percent,
    interval_text,
    join,
    percent,
    plain,
    quantity,
    score_text,
)
from roarline.report.glossary import definitions, limits
from roarline.report.leaderboard import metric_title
from roarline.report.scores import Score

_MAIN = ("roar_accuracy", "kar_accuracy", "morf", "lerf", "srg", "insertion", "deletion")
_MODES = {"roar": "ROAR", "kar": "KAR"}


@dataclass(frozen=True)
class Passage:
    """A heading, its paragraphs, and a list below them."""

    title: str
    paragraphs: tuple[str, ...]
    items: tuple[str, ...] = ()


def answer(facts: Facts) -> str:
    """The page's first paragraph: the question's answer in three or four sentences."""
    sentences = [_setting(facts)]
    for metric in ("roar_accuracy", "morf" if facts.has("morf") else "deletion"):
        top = best(facts, metric, facts.real)
        if top is None:
            continue
        test = (
            "remove and retrain (ROAR)" if metric == "roar_accuracy" else f"{metric_title(metric)}, without retraining,"
        )
        sentences.append(
            f"Under {test} the best method is {_named(top)}{_against_random(facts, top)}{_beaten(facts, top)}."
        )
        if metric == "roar_accuracy" and (counted := _counted(facts, metric)):
            sentences.append(f"{_capital(counted)} ({_level(facts)} intervals of the paired difference).")
    sentences += _warning(facts)
    return " ".join(sentences)


def _warning(facts: Facts) -> Iterator[str]:
    """Why a good MoRF curve and a bad ROAR score go together, where the probe explains it."""
    top = best(facts, "morf", facts.real)
    row = facts.scores.overall("roar_accuracy").get(top.method) if top else None
    found = leak(facts, "roar", row.method) if row else None
    if row is None or found is None or row.verdict != "worse" or not found.explains(row):
        return
    yield (
        f"That `{row.method}` is worse than random under ROAR has a reason: its removal masks alone, "
        f"without one pixel of the image, tell the class in {percent(found.average)} of the cases "
        f"(random masks: {percent(found.random_average)}), and a retrained network reads them."
    )


def passages(facts: Facts) -> list[Passage]:
    """The section "What this means"; a passage without a sentence is left out."""
    parts = [
        Passage("How to read the scores", tuple(definitions(facts))),
        _verdict_passage(facts),
        Passage("A good curve without retraining, and with it", tuple(_conflict(facts))),
        Passage("What the masks give away", tuple(_leakage(facts))),
        Passage("What needs no look into the classifier", tuple(_baselines(facts))),
        Passage("Do the tests agree?", (*_agreement(facts), *agreement_sentences(facts.comparisons.agreement))),
        _certainty_passage(facts),
        Passage("Who leads, and would other images say so?", tuple(_steadiness(facts))),
        Passage("What each test can and can't say", tuple(limits(facts))),
    ]
    return [passage for passage in parts if passage.paragraphs or passage.items]


def _setting(facts: Facts) -> str:
    kind = "class decisions right" if facts.multi_label else "images right"
    reach = f" gets {percent(facts.test_accuracy)} of the {kind}" if facts.test_accuracy is not None else " is tested"
    return (
        f"The classifier ({facts.model}){reach} on {facts.test_images:,} test images of {facts.dataset} with "
        f"{facts.classes} classes. Compared are {quantity(len(facts.real), 'attribution method')} and "
        f"{quantity(len(facts.methods) - len(facts.real), 'baseline')} blind to it."
    )


def _named(row: Score) -> str:
    return f"`{row.method}` ({score_text(row.metric, row.value, row.unit)})"


def _against_random(facts: Facts, row: Score) -> str:
    random = facts.scores.overall(row.metric).get(facts.random or "")
    if random is None or random.value is None:
        return ""
    value = score_text(row.metric, random.value, random.unit)
    words = {
        "better": f", better than a random ranking ({value})",
        "worse": f", yet even it is worse than a random ranking ({value})",
        "undecided": f", which the data can't tell from a random ranking ({value})",
        "unknown": f"; a random ranking gets {value}",
    }
    return words[row.verdict]


def _beaten(facts: Facts, row: Score) -> str:
    """The baseline that does better than the best method, if one does."""
    top = best(facts, row.metric, [method.name for method in facts.methods])
    if top is None or top.method in (row.method, facts.random) or top.value == row.value:
        return ""
    return f" (the baseline {_named(top)} does better still)"


def _counted(facts: Facts, metric: str) -> str:
    """The methods by verdict: "better than random: …; worse: …; not told apart: …"."""
    groups = verdicts(facts, metric)
    words = [
        f"{word}: {_list(names)}"
        for word, names in (
            ("better than random", groups["better"]),
            ("worse than random", groups["worse"]),
            ("not told apart from random", groups["undecided"]),
        )
        if names
    ]
    return "; ".join(words)


def _verdict_passage(facts: Facts) -> Passage:
    title = "Which methods beat a random ranking?"
    if facts.random is None:
        return Passage(
            title, ("The experiment has no random baseline, so no score here can be compared with guessing.",)
        )
    items = [f"{metric_title(metric)}. {_capital(text)}." for metric in _MAIN if (text := _counted(facts, metric))]
    if not items:
        return Passage(title, ())
    intro = (
        f"Decided where the {_level(facts)} interval of the paired difference to `{facts.random}` excludes 0; best "
        "rank first."
    )
    return Passage(title, (intro,), tuple(items))


def _conflict(facts: Facts) -> Iterator[str]:
    """The best method without retraining, and how it fares with it."""
    top = best(facts, "morf", facts.real)
    roar = facts.scores.overall("roar_accuracy")
    if top is None or top.method not in roar or facts.random not in roar:
        return
    row, random = roar[top.method], roar[facts.random]
    if row.value is None or random.value is None or row.verdict == "unknown":
        return
    numbers = (
        f"networks retrained without its most relevant pixels reach {score_text(row.metric, row.value)} "
        f"{_where(row)}, {score_text(row.metric, random.value)} after random removal (difference "
        f"{difference_text(row.metric, row.difference)} "
        f"{interval_text(row.metric, row.difference_low, row.difference_high)})"
    )
    if row.verdict == "better":
        yield f"Here the two agree on the best MoRF method: {_named(top)} also beats random under ROAR: {numbers}."
    elif row.verdict == "undecided":
        yield (
            f"{_named(top)} has the best MoRF curve{_beaten(facts, top)}, but ROAR can't tell it from random ranking: "
            f"{numbers}."
        )
    else:
        yield (
            f"Of the methods that look at the classifier, {_named(top)} has the best MoRF curve{_beaten(facts, top)} "
            f"and yet is worse than a random ranking under ROAR: "
            f"{numbers}. {_explanation(facts, row)}"
        )
    others = [
        name
        for name in verdicts(facts, "roar_accuracy")["worse"]
        if name in verdicts(facts, "morf")["better"] and name != top.method
    ]
    if others:
        yield f"The same holds for {_list(others)}: better than random by MoRF, worse than random by ROAR."


def _where(row: Score) -> str:
    if row.removed_fraction is not None:
        return f"with {fraction_percent(row.removed_fraction)} of the pixels removed"
    return "on average over the removed fractions"


def _explanation(facts: Facts, row: Score) -> str:
    """Why a method is worse than random under ROAR, as far as the leakage probe tells."""
    found = leak(facts, "roar", row.method)
    if found is None:
        return "The leakage probe, which could show why, was not run for it."
    numbers = (
        f"a network that sees only which pixels were removed, and not one pixel of the image, gets "
        f"{percent(found.average)} right {_where(row)}; with random masks it gets {percent(found.random_average)}, and "
        f"guessing ({facts.guessing}) {percent(facts.chance)}"
    )
    if not found.clear:
        return f"The leakage probe does not explain this: {numbers}."
    if not found.explains(row):
        return f"The leakage probe explains a part of this at most: {numbers}."
    peak = (
        f" With {fraction_percent(found.peak_fraction)} of the pixels removed the mask alone gives "
        f"{percent(found.peak_leakage)}"
    )
    if found.peak_accuracy is not None:
        peak += f", mask and remaining pixels together {percent(found.peak_accuracy)}"
    return (
        f"The leakage probe shows why: {numbers}. The shape of the hole tells the class, and the retrained network "
        f"reads it there (arXiv 2202.00449).{peak}."
    )


def _leakage(facts: Facts) -> Iterator[str]:
    for mode, name in _MODES.items():
        found = {method.name: leak(facts, mode, method.name) for method in facts.methods if method.name != facts.random}
        known = {method: item for method, item in found.items() if item is not None}
        if not known:
            continue
        clear = sorted((m for m, item in known.items() if item.clear), key=lambda m: -known[m].average)
        first = next(iter(known.values()))
        random_average = f"{percent(first.random_average)}{', means over the fractions' if first.fractions > 1 else ''}"
        if clear:
            listed = join([f"`{method}` ({percent(known[method].average)})" for method in clear])
            yield (
                f"{name}: the removal masks alone give away the class more than random masks do "
                f"({random_average}) for {listed}; guessing gets {percent(facts.chance)}. Read "
                f"their {name} accuracy with that in mind: it holds what the mask tells, too."
            )
        else:
            highest = max(known, key=lambda method: known[method].average)
            yield (
                f"{name}: no method's removal masks alone tell the class clearly better than random masks do "
                f"({random_average}); the highest is `{highest}` with "
                f"{percent(known[highest].average)}."
            )
        if mode == "kar":
            flattered = [m for m in verdicts(facts, "kar_accuracy")["better"] if m in clear]
            if flattered:
                yield (
                    f"KAR rewards this leak: {_list(flattered)} beat random under KAR, but part of that may be the "
                    "mask and not the kept pixels."
                )


def _baselines(facts: Facts) -> Iterator[str]:
    for metric in ("roar_accuracy", "morf" if facts.has("morf") else "deletion"):
        groups: dict[tuple[str, ...], list[str]] = {}
        for baseline, beaten in outranked_by(facts, metric).items():
            groups.setdefault(tuple(beaten), []).append(baseline)
        for outranked, baselines in groups.items():
            looks, ranks = ("looks", "ranks") if len(baselines) == 1 else ("look", "rank")
            yield (
                f"{_list(baselines)} never {looks} at the classifier, and {ranks} above {_list([*outranked])} in "
                f"{metric_title(metric)}."
            )


def _agreement(facts: Facts) -> Iterator[str]:
    other = "srg" if facts.has("srg") else "morf"
    found = agreement(facts, "roar_accuracy", other)
    if found is None:
        return
    tau, count = found
    words = "largely agree" if tau >= 0.6 else "largely contradict each other" if tau <= -0.6 else "agree little"
    yield (
        f"ROAR and {metric_title(other)} {words} on the order of the {count} methods, baselines included: Kendall's τ "
        f"is {plain(tau, 2)} (1: the same order, 0: unrelated, −1: reversed)."
    )


def _steadiness(facts: Facts) -> Iterator[str]:
    found = facts.comparisons
    yield from rank_sentences(found.ranks)
    yield from alpha_sentences(found.alphas)
    yield from stability_sentences(found.stability)


def _certainty_passage(facts: Facts) -> Passage:
    items = []
    for metric in _MAIN:
        width, near = half_width(facts, metric), not_told_from_best(facts, metric)
        if width is None or near is None:
            continue
        top, overlapping = near
        size = difference_text(metric, width, top.unit).removeprefix("+")
        others = f"the intervals of {_list(overlapping)}" if overlapping else "no other's interval"
        items.append(f"{metric_title(metric)}: ±{size}; that of the best, `{top.method}`, overlaps {others}.")
    if not items:
        return Passage("How sure is the order?", ())
    intro = f"Half widths of the {_level(facts)} intervals, median over the methods, stand below."
    return Passage("How sure is the order?", (*_repeats(facts), intro), tuple(items))


def _repeats(facts: Facts) -> Iterator[str]:
    if facts.repeats == 1:
        yield (
            "Every network of ROAR and KAR was trained once: the intervals cover the draw of test images, not the luck "
            "of a training run. More repeats make them honest."
        )
    elif 1 < facts.repeats < 5:
        yield (
            f"Every cell of ROAR and KAR was trained {facts.repeats} times; the original work used 5 "
            "(arXiv 1806.10758), and so few repeats make the intervals themselves uncertain."
        )


def _list(names: list[str]) -> str:
    return join([f"`{name}`" for name in names])


def _level(facts: Facts) -> str:
    return f"{100 * facts.confidence:g} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
