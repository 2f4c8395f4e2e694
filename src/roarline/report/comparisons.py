"""How far the ranking can be trusted, as numbers for pictures: places with bars, agreement, reliability, stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roarline.report.leaderboard import UNSAID, metric_title
from roarline.report.scores import Method, Scores

EVERY, BASE = "all", "base"
_FACTORS = {
    "fill": "fill",
    "insertion_fill": "insertion fill",
    "steps": "steps",
    "score": "score (probability, logit)",
    "seed": "seed",
    "repeat": "repeat of the training",
    "removed_fraction": "removed fraction",
    "threshold": "threshold",
    "explanation_size": "explanation size",
}

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Placed:
    """One method's place with its interval, and the numbers of the bars that join it with others."""

    method: str
    baseline: bool
    place: float
    low: float | None
    high: float | None
    bars: tuple[int, ...]


@dataclass(frozen=True)
class RankPlot:
    """All methods on one metric, best first.

    Attributes:
        images: Whose rankings are averaged; None where places are those of the scores.
        left_out: Methods that lack values on too many images.
    """

    name: str
    title: str
    images: int | None
    rows: tuple[Placed, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class AgreementMap:
    """Kendall's τ of every two metrics; None where it is undefined, and on no diagonal."""

    titles: tuple[str, ...]
    tau: tuple[tuple[float | None, ...], ...]
    methods: int


@dataclass(frozen=True)
class Alpha:
    """How consistently images rank the methods by one metric."""

    title: str
    alpha: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True)
class Stable:
    """One method's places: with the test as it is, and (factor in words, place) of each other way to run it."""

    method: str
    baseline: bool
    base: float
    places: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class StabilityPlot:
    """How the ranking by one metric moves when the test is run otherwise.

    Attributes:
        factors: What was changed, in words, and Kendall's τ against the base, mean over its points.
        kendall_w: Concordance of all rankings.
        tau_min: Of the point that agrees least with the base.
    """

    name: str
    title: str
    rows: tuple[Stable, ...]
    factors: tuple[tuple[str, float | None], ...]
    points: int
    kendall_w: float | None
    tau_min: float | None


@dataclass(frozen=True)
class Comparisons:
    """All of it; empty parts are left out of the page."""

    agreement: AgreementMap | None = None
    alphas: tuple[Alpha, ...] = ()
    ranks: tuple[RankPlot, ...] = ()
    stability: tuple[StabilityPlot, ...] = ()

    @property
    def any(self) -> bool:
        """True where there is something to show."""
        return bool(self.agreement or self.alphas or self.ranks or self.stability)


def comparisons_from_tables(tables: Tables, scores: Scores, methods: Sequence[Method]) -> Comparisons:
    """Read the tables of the summary (``artifacts.comparison_tables``)."""
    baselines = {method.name for method in methods if method.baseline}
    order = {metric: place for place, metric in enumerate(scores.metrics)}
    reliability = sorted(tables["metric_reliability"], key=lambda row: order.get(row["metric"], len(order)))
    names = [(row["metric"], row["setting"] or "") for row in reliability]
    titles = {name: setting_title(*name, scores) for name in names}
    compared = [
        (row[f"{which}_metric"], row[f"{which}_setting"] or "")
        for row in tables["metric_agreement"]
        for which in ("first", "second")
    ]
    compared = sorted(dict.fromkeys(compared), key=lambda name: order.get(name[0], len(order)))
    return Comparisons(
        _agreement(tables["metric_agreement"], {name: setting_title(*name, scores) for name in compared}),
        tuple(
            Alpha(titles[name], row["alpha"], row["alpha_low"], row["alpha_high"], int(row["images"]))
            for name, row in zip(names, reliability, strict=True)
            if row["alpha"] is not None
        ),
        tuple(_ranks(tables["critical_difference"], reliability, titles, baselines)),
        tuple(_stability(tables, titles, baselines)),
    )


def setting_title(metric: str, setting: str, scores: Scores) -> str:
    """A metric and a setting for readers, with an arrow for the direction."""
    rows = scores.overall(metric, setting)
    higher = next((row.higher_is_better for row in rows.values()), None)
    arrow = {True: " ↑", False: " ↓", None: ""}[higher]
    return f"{metric_title(metric)}{f', {setting}' if setting and setting not in UNSAID else ''}{arrow}"


def _agreement(rows: Sequence[Row], titles: Mapping[tuple[str, str], str]) -> AgreementMap | None:
    if not rows:
        return None
    names = list(titles)
    table: list[list[float | None]] = [[None] * len(names) for _ in names]
    for row in rows:
        one = names.index((row["first_metric"], row["first_setting"] or ""))
        two = names.index((row["second_metric"], row["second_setting"] or ""))
        table[one][two] = table[two][one] = row["kendall_tau_b"]
    methods = max(int(row["methods"]) for row in rows)
    return AgreementMap(tuple(titles.values()), tuple(map(tuple, table)), methods)


def _ranks(
    rows: Sequence[Row], reliability: Sequence[Row], titles: Mapping[tuple[str, str], str], baselines: set[str]
) -> list[RankPlot]:
    by_name: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_name.setdefault((row["metric"], row["setting"] or ""), []).append(row)
    found: list[RankPlot] = []
    for known in reliability:
        name = known["metric"], known["setting"] or ""
        places = tuple(
            Placed(
                row["method"],
                row["method"] in baselines,
                row["place"],
                row["place_low"],
                row["place_high"],
                tuple(int(number) for number in (row["bars"] or "").split(",") if number),
            )
            for row in by_name.get(name, [])
        )
        if len(places) > 1:
            images = known["images"] if known["test"] == "signed-rank" else None
            left_out = tuple(part for part in (known["left_out"] or "").split(",") if part)
            found.append(RankPlot(f"places-{len(found)}", titles[name], images, places, left_out))
    return found


def _stability(tables: Tables, titles: Mapping[tuple[str, str], str], baselines: set[str]) -> list[StabilityPlot]:
    placed: dict[tuple[str, str], list[Row]] = {}
    for row in tables["rank_stability"]:
        placed.setdefault((row["metric"], row["setting"] or ""), []).append(row)
    summary: dict[tuple[str, str], list[Row]] = {}
    for row in tables["rank_stability_summary"]:
        summary.setdefault((row["metric"], row["setting"] or ""), []).append(row)
    found: list[StabilityPlot] = []
    for name, rows in summary.items():
        base = {row["method"]: row["place"] for row in placed[name] if row["factor"] == BASE}
        whole = next((row for row in rows if row["factor"] == EVERY), rows[0])
        methods = tuple(
            Stable(
                method,
                method in baselines,
                place,
                tuple(
                    (factor_title(row["factor"]), row["place"])
                    for row in placed[name]
                    if row["method"] == method and row["factor"] != BASE
                ),
            )
            for method, place in sorted(base.items(), key=lambda pair: pair[1])
        )
        factors = tuple((factor_title(row["factor"]), row["tau_mean"]) for row in rows if row["factor"] != EVERY)
        found.append(
            StabilityPlot(
                f"stability-{len(found)}", titles.get(name, metric_title(name[0])), methods, factors,
                int(whole["points"]), whole["kendall_w"], whole["tau_min"],
            )
        )  # fmt: skip
    return found


def factor_title(factor: str) -> str:
    """What was changed, for readers."""
    return _FACTORS.get(factor, factor.replace("_", " "))
