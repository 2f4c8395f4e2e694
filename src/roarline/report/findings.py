"""What the scores say, as facts that sentences can be made of; every one is read off the summary's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from scipy.stats import kendalltau

from roarline.report.comparisons import Comparisons
from roarline.report.scores import Method, Score, Scores, Verdict

RANDOM_COMPONENT = "random"


@dataclass(frozen=True)
class Facts:
    """All that the page's sentences are computed from.

    Attributes:
        chance: Accuracy of always giving the most frequent answer of the test split.
        test_accuracy: Of the classifier, None where there are no test labels.
        repeats: Retrainings a cell, 0 without ROAR.
        confidence: Of the intervals, e.g. 0.95.
        own_metrics: Name of each metric of the user's own to its dotted path.
        comparisons: How far the ranking can be trusted.
    """

    dataset: str
    model: str
    classes: int
    multi_label: bool
    test_images: int
    chance: float
    test_accuracy: float | None
    methods: tuple[Method, ...]
    scores: Scores
    repeats: int
    confidence: float
    own_metrics: Mapping[str, str] = field(default_factory=dict)
    comparisons: Comparisons = field(default_factory=Comparisons)

    @property
    def random(self) -> str | None:
        """Name of the random baseline, or None where the experiment has none."""
        return next((method.name for method in self.methods if method.component == RANDOM_COMPONENT), None)

    @property
    def real(self) -> list[str]:
        """Names of the methods that look at the classifier."""
        return [method.name for method in self.methods if not method.baseline]

    @property
    def guessing(self) -> str:
        """What reaches the accuracy ``chance``."""
        return "always the more frequent answer" if self.multi_label else "always the most frequent class"

    def has(self, metric: str) -> bool:
        """True where some method has a value."""
        return any(row.value is not None for row in self.scores.overall(metric).values())


@dataclass(frozen=True)
class Leak:
    """How a method's removal masks alone fare, against those of the random baseline.

    Attributes:
        average, random_average: Accuracy of the probe, mean over the fractions that both have.
        fractions: How many these are.
        clear: True where the masks tell more than random's: the paired interval of the mean lies above 0; where the
            table has none, the two intervals are apart at half of the fractions or more.
        peak_fraction: The fraction with the highest accuracy of the probe, and the scores there.
        peak_accuracy: Accuracy of the network retrained on the images at that fraction.
    """

    average: float
    random_average: float
    fractions: int
    clear: bool
    peak_fraction: float
    peak_leakage: float
    peak_random_leakage: float
    peak_accuracy: float | None

    def explains(self, row: Score) -> bool:
        """True where the masks tell more than random's by at least the accuracy that the method is worse by."""
        return self.clear and row.difference is not None and self.average - self.random_average >= row.difference


def verdicts(facts: Facts, metric: str) -> dict[Verdict, list[str]]:
    """The real methods by how they stand against random, each group in order of rank."""
    found: dict[Verdict, list[str]] = {"better": [], "worse": [], "undecided": [], "unknown": []}
    table = facts.scores.overall(metric)
    real = [table[name] for name in facts.real if name in table and table[name].value is not None]
    for row in sorted(real, key=lambda row: (row.rank is None, row.rank or 0)):
        found[row.verdict].append(row.method)
    return found


def best(facts: Facts, metric: str, names: Sequence[str]) -> Score | None:
    """The row of the best of some methods by value, or None where the metric has no direction or no values."""
    table = facts.scores.overall(metric)
    rows = [table[name] for name in names if name in table and table[name].value is not None]
    rows = [row for row in rows if row.higher_is_better is not None]
    if not rows:
        return None
    pick = max if rows[0].higher_is_better else min
    return pick(rows, key=lambda row: row.value if row.value is not None else math.nan)


def leak(facts: Facts, mode: str, method: str) -> Leak | None:
    """The leakage probe of one method, or None where it or random's was not run."""
    table = facts.scores.by_fraction(f"{mode}_leakage")
    if facts.random is None or method not in table or facts.random not in table:
        return None
    random = {row.removed_fraction: row for row in table[facts.random]}
    pairs = [(row, random[row.removed_fraction]) for row in table[method] if row.removed_fraction in random]
    if not pairs:
        return None
    peak, peak_random = max(pairs, key=lambda pair: pair[0].value or 0.0)
    accuracy = {row.removed_fraction: row.value for row in facts.scores.by_fraction(f"{mode}_accuracy").get(method, [])}
    apart = [
        row.ci_low is not None and other.ci_high is not None and row.ci_low > other.ci_high for row, other in pairs
    ]
    paired = facts.scores.overall(f"{mode}_leakage").get(method)
    return Leak(
        average=mean(row.value for row, _ in pairs if row.value is not None),
        random_average=mean(other.value for _, other in pairs if other.value is not None),
        fractions=len(pairs),
        clear=paired.difference_low > 0
        if paired is not None and paired.difference_low is not None
        else 2 * sum(apart) >= len(apart),
        peak_fraction=float(peak.removed_fraction or 0.0),
        peak_leakage=float(peak.value or 0.0),
        peak_random_leakage=float(peak_random.value or 0.0),
        peak_accuracy=accuracy.get(peak.removed_fraction),
    )


def half_width(facts: Facts, metric: str) -> float | None:
    """Median half width of the intervals of all methods, or None."""
    widths = [
        (row.ci_high - row.ci_low) / 2
        for row in facts.scores.overall(metric).values()
        if row.ci_low is not None and row.ci_high is not None
    ]
    return median(widths) if widths else None


def not_told_from_best(facts: Facts, metric: str) -> tuple[Score, list[str]] | None:
    """The best method and the others whose interval overlaps its own; None where intervals are missing."""
    table = facts.scores.overall(metric)
    top = best(facts, metric, list(table))
    if top is None or top.ci_low is None or top.ci_high is None:
        return None
    overlapping = [
        row.method
        for row in table.values()
        if row.method != top.method
        and row.ci_low is not None
        and row.ci_high is not None
        and row.ci_low <= top.ci_high
        and row.ci_high >= top.ci_low
    ]
    return top, overlapping


def agreement(facts: Facts, first: str, second: str) -> tuple[float, int] | None:
    """Kendall's τ of two metrics' orders of the methods, both read as better or worse, and how many methods.

    Returns:
        None for fewer than four methods, or where one metric gives all the same value.
    """
    one, two = facts.scores.overall(first), facts.scores.overall(second)
    pairs = [
        (_goodness(one[name]), _goodness(two[name]))
        for name in one
        if name in two and one[name].value is not None and two[name].value is not None
    ]
    if len(pairs) < 4 or len({x for x, _ in pairs}) == 1 or len({y for _, y in pairs}) == 1:
        return None
    return float(kendalltau([x for x, _ in pairs], [y for _, y in pairs]).statistic), len(pairs)


def outranked_by(facts: Facts, metric: str) -> dict[str, list[str]]:
    """Baseline other than random to the real methods that it ranks above."""
    table = facts.scores.overall(metric)
    ranks = {name: row.rank for name, row in table.items() if row.rank is not None}
    found = {}
    for method in facts.methods:
        if method.baseline and method.name != facts.random and method.name in ranks:
            beaten = [name for name in facts.real if name in ranks and ranks[name] > ranks[method.name]]
            if beaten:
                found[method.name] = sorted(beaten, key=lambda name: ranks[name])
    return found


def _goodness(row: Score) -> float:
    value = row.value if row.value is not None else math.nan
    return value if row.higher_is_better else -value
