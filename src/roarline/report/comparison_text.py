"""What agreement, reliability and stability come to, in words; and the words that their pictures use.

Every sentence is computed from the numbers it speaks of. Markup as in ``text``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from roarline.report.comparisons import AgreementMap, Alpha, Comparisons, RankPlot, StabilityPlot
from roarline.report.formatting import join, plain, quantity

_ALIKE, _APART = 0.6, 0.0
_TENTATIVE, _RELIABLE = 2 / 3, 0.8
_MOST_NAMED = 4


def agreement_sentences(found: AgreementMap | None) -> Iterator[str]:
    """How many pairs of metrics order the methods alike, and which contradict one another."""
    if found is None:
        return
    pairs = sorted(
        (tau, found.titles[one], found.titles[two])
        for one, two in combinations(range(len(found.titles)), 2)
        if (tau := found.tau[one][two]) is not None
    )
    if not pairs:
        return
    alike, apart = [p for p in pairs if p[0] >= _ALIKE], [p for p in pairs if p[0] < _APART]
    if len(pairs) > 1:
        yield (
            f"Of {len(pairs)} pairs of metrics, {len(alike)} order the {found.methods} methods much alike "
            f"(Kendall's τ of {_ALIKE} or more), {len(apart)} rather the other way round (below 0)."
        )
    if apart:
        yield f"These metrics disagree: {'; '.join(_pair(pair) for pair in apart[:_MOST_NAMED])}{_more(len(apart))}."
    elif len(pairs) > 1:
        yield f"No two metrics contradict each other; furthest apart are {_pair(pairs[0])}."
    if len(pairs) == 1 and not apart:
        yield f"The two metrics, {_pair(pairs[0])}, {'agree' if alike else 'agree little'}."
    if found.methods < 6:
        yield f"With {quantity(found.methods, 'method')} a single exchange of two moves τ a lot: read it with care."


def alpha_sentences(alphas: tuple[Alpha, ...]) -> Iterator[str]:
    """By which metrics one image's ranking says much about another's."""
    if not alphas:
        return
    ordered = sorted(alphas, key=lambda row: -row.alpha)
    first, last = ordered[0], ordered[-1]
    if first is last:
        agreed = f"α = {plain(first.alpha, 2)}: {_level(first)}"
        yield f"Images agree on the order of the methods by {first.title} with {agreed}."
        return
    yield (
        f"Single images agree most on the order of the methods by {first.title} (α = {plain(first.alpha, 2)}: "
        f"{_level(first)}) and least by {last.title} (α = {plain(last.alpha, 2)}: {_level(last)})."
    )
    low = [row for row in ordered if row.alpha < _TENTATIVE]
    if len(low) == len(ordered):
        yield (
            "By no metric would a handful of images give this ranking again: it is a ranking of averages over many "
            "images."
        )


def rank_sentences(plots: tuple[RankPlot, ...]) -> Iterator[str]:
    """Where the first place is shared."""
    shared: list[tuple[str, str, list[str]]] = []
    alone: list[tuple[str, str, list[str]]] = []
    for plot in plots:
        top = plot.rows[0]
        rivals = [row.method for row in plot.rows[1:] if set(row.bars) & set(top.bars)]
        (shared if rivals else alone).append((plot.title, top.method, rivals))
    if alone:
        named = "; ".join(f"{title}: `{method}`" for title, method, _ in alone[:_MOST_NAMED])
        yield f"A single method leads, told apart from all others after Holm's correction: {named}{_more(len(alone))}."
    if shared:
        named = "; ".join(
            f"{title}: {join([f'`{name}`' for name in (method, *rivals[:3])])}{_more(len(rivals), 3)}"
            for title, method, rivals in shared[:_MOST_NAMED]
        )
        yield f"The lead is shared by methods that the tests can't tell apart: {named}{_more(len(shared))}."


def stability_sentences(plots: tuple[StabilityPlot, ...]) -> Iterator[str]:
    """Which ranking depends most on how the test is run."""
    known = [plot for plot in plots if plot.tau_min is not None]
    if not known:
        return
    worst = min(known, key=lambda plot: plot.tau_min or 0.0)
    factors = sorted((tau, factor) for factor, tau in worst.factors if tau is not None)
    tau = worst.tau_min or 0.0
    if tau > 1 - 1e-9:
        yield "Run otherwise, every test gives the same order of the methods."
        return
    because = (
        f"; what moves it most is another {factors[0][1]} (τ = {plain(factors[0][0], 2)} on average)" if factors else ""
    )
    yield (
        f"Run otherwise, the order by {worst.title} changes most: in the worst of {quantity(worst.points, 'case')} "
        f"Kendall's τ against the leaderboard is {plain(tau, 2)}{because}."
    )
    best = max(known, key=lambda plot: plot.tau_min or 0.0)
    if best is not worst:
        yield f"Steadiest is the order by {best.title}, τ of {plain(best.tau_min or 0.0, 2)} at the least."


def words(found: Comparisons) -> Iterator[tuple[str, str]]:
    """(word, meaning) of what the pictures show."""
    if found.ranks:
        yield (
            "place",
            "1 is the best method. Where every image can rank the methods, the dot is the mean of the places that the "
            "images give, and the blue line its interval: where the mean would lie for other images of the kind.",
        )
        yield (
            "black bar",
            "joins methods whose difference may be luck. Every two methods are compared image by image (Wilcoxon's "
            "signed-rank test; for retrained networks by the means over images and repeats), after Friedman's test has "
            "asked whether there is any difference at all.",
        )
        yield (
            "Holm's correction",
            "who runs a hundred tests at 5 % finds five differences where there are none; the correction "
            "raises the bar so that all tests of a metric together err in 5 % of cases.",
        )
    if found.agreement:
        yield (
            "Kendall's τ",
            "takes all pairs of methods: +1 where two metrics order every pair alike, −1 where they order every pair "
            "the other way round, 0 where it is half and half.",
        )
    if found.alphas:
        yield (
            "Krippendorff's α",
            "takes every image for a judge that ranks the methods: 1 where all judges give one order, 0 where their "
            "orders agree as chance would have it, below 0 where they contradict each other. From 0.8 a single image "
            "is called a reliable judge, from 0.67 one for tentative conclusions (arXiv 1912.01451).",
        )
    if found.stability:
        yield (
            "concordance W",
            "Kendall's coefficient: 1 where all ways to run the test give one order of the methods, 0 where their "
            "orders have nothing in common.",
        )


def _pair(pair: tuple[float, str, str]) -> str:
    tau, one, two = pair
    return f"{one} and {two} (τ = {plain(tau, 2)})"


def _more(count: int, named: int = _MOST_NAMED) -> str:
    return f"; and {count - named} more" if count > named else ""


def _level(row: Alpha) -> str:
    if row.alpha >= _RELIABLE:
        return "reliable"
    if row.alpha >= _TENTATIVE:
        return "tentative"
    if row.low is not None and row.low > 0:
        return "more than chance, less than reliable"
    return "no more than chance" if row.alpha >= 0 or (row.high is not None and row.high >= 0) else "contradiction"
