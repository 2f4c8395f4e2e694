"""The section of sanity checks: a table with a reading for each method and test, and curves over layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from roarline.config.sanity_metrics import SANITY_METRICS
from roarline.report.formatting import join
from roarline.report.panels import Line, Panel
from roarline.report.scores import LAYER_SETTING, Method, Score, Scores

Reading = Literal["passes", "fails", "unknown"]

TITLES = {
    "cascading_randomisation": "Weights lost layer by layer",
    "independent_randomisation": "Weights lost in one layer",
    "smooth_randomisation": "sMPRT: noisy copies, weights lost",
    "efficient_randomisation": "eMPRT: rise of entropy",
    "random_logit": "Another class",
    "data_randomisation": "Shuffled labels",
}
SIMILARITIES = {"ssim": "SSIM", "spearman": "Spearman", "spearman_abs": "Spearman of magnitudes", "hog": "HOG"}
_CURVES = {
    "cascading_randomisation": "Layer by layer",
    "independent_randomisation": "One layer at a time",
    "smooth_randomisation": "sMPRT",
}
_INDEPENDENT, _EFFICIENT = "independent_randomisation", "efficient_randomisation"
_ALL, _MEAN, _ABOVE = "all randomised, ", "mean over layers, ", "above chance, "


@dataclass(frozen=True)
class Cell:
    """One method in one test.

    Attributes:
        score: What was measured.
        above: How much of it lies above chance, or None where chance is not known.
        reading: ``passes`` where the interval of ``above`` is not above 0 (eMPRT: where that of the rise is).
    """

    score: Score
    above: Score | None
    reading: Reading


@dataclass(frozen=True)
class Column:
    """One test: a metric and, but for eMPRT, a similarity."""

    metric: str
    title: str
    similarity: str
    summary: str
    arrow: str


@dataclass(frozen=True)
class Row:
    """One method; ``cells`` in the order of the columns, None where nothing was measured."""

    method: str
    baseline: bool
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Sanity:
    """The section; empty where the experiment has no evaluate-sanity.

    Attributes:
        shuffled_accuracy: Training accuracy that the network of shuffled labels reached in its last epoch.
    """

    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    panels: tuple[Panel, ...] = ()
    order: str = "top_down"
    shuffled_accuracy: float | None = None
    sentences: tuple[str, ...] = field(default=())


def build_sanity(
    scores: Scores, methods: Sequence[Method], *, order: str = "top_down", shuffled_accuracy: float | None = None
) -> Sanity:
    """The section from the summary's rows.

    Args:
        order: ``top_down`` or ``bottom_up``, in which layers lost their weights.
    """
    known = {(row.metric, row.setting, row.method): row for row in scores.rows if row.metric in SANITY_METRICS}
    if not known:
        return Sanity()
    columns = tuple(_columns(known))
    rows = tuple(
        Row(method.name, method.baseline, tuple(_cell(known, column, method.name) for column in columns))
        for method in sorted(methods, key=lambda method: method.baseline)
    )
    panels = tuple(_panels(known, methods, order))
    return Sanity(columns, rows, panels, order, shuffled_accuracy, tuple(_sentences(columns, rows)))


def reading(metric: str, score: Score, above: Score | None) -> Reading:
    """Does a method pass a test?

    A similarity passes where the data can't tell it from that of the same maps displaced at random: where the lower end
    of the interval of their difference is 0 or less. The rise of entropy passes where its interval lies above 0.
    """
    if metric == _EFFICIENT:
        if score.ci_low is None:
            return "unknown"
        return "passes" if score.ci_low > 0 else "fails"
    if above is None or above.ci_low is None:
        return "unknown"
    return "passes" if above.ci_low <= 0 else "fails"


Known = Mapping[tuple[str, str, str], Score]


def _columns(known: Known) -> Iterator[Column]:
    settings = dict.fromkeys((metric, setting) for metric, setting, _ in known)
    for metric, component in SANITY_METRICS.items():
        arrow = "↑" if component.higher_is_better else "↓"
        if (metric, "") in settings:
            yield Column(metric, TITLES[metric], "", component.summary, arrow)
        for similarity in SIMILARITIES:
            if (metric, _setting(metric, similarity)) in settings:
                yield Column(metric, TITLES[metric], similarity, component.summary, arrow)


def _setting(metric: str, similarity: str) -> str:
    if metric == _INDEPENDENT:
        return f"{_MEAN}{similarity}"
    return f"{_ALL}{similarity}" if metric in _CURVES else similarity


def _cell(known: Known, column: Column, method: str) -> Cell | None:
    setting = _setting(column.metric, column.similarity) if column.similarity else ""
    score = known.get((column.metric, setting, method))
    if score is None:
        return None
    above = known.get((column.metric, f"{_ABOVE}{column.similarity}", method))
    return Cell(score, above, reading(column.metric, score, above))


def _panels(known: Known, methods: Sequence[Method], order: str) -> Iterator[Panel]:
    for metric in _CURVES:
        for similarity, words in SIMILARITIES.items():
            names = list(
                dict.fromkeys(
                    setting
                    for of, setting, _ in known
                    if of == metric and setting.startswith(LAYER_SETTING) and setting.endswith(f", {similarity}")
                )
            )
            of_methods = {m.name: [known.get((metric, name, m.name)) for name in names] for m in methods}
            lines = tuple(line for name, found in of_methods.items() if (line := _line(name, found)))
            if not lines:
                continue
            ends = "from the output to the input" if order == "top_down" else "from the input to the output"
            x_label = "Layer without its weights" if metric == _INDEPENDENT else "Weights lost up to this layer"
            yield Panel(
                f"{metric}-{similarity}",
                f"{_CURVES[metric]}: {words} (lower is better)",
                f"{x_label}, {ends}",
                "Similarity to the trained network's map",
                lines,
                x_range=None,
                percent=(False, False),
                group=f"sanity {similarity}",
                x_ticks=tuple(name.removeprefix(LAYER_SETTING).split(" ", 1)[1].rpartition(", ")[0] for name in names),
            )


def _line(method: str, rows: Sequence[Score | None]) -> Line | None:
    points = [(float(place), row) for place, row in enumerate(rows, 1) if row is not None and row.value is not None]
    if not points:
        return None
    return Line(
        method,
        tuple(place for place, _ in points),
        tuple(float(row.value) for _, row in points if row.value is not None),
        tuple(row.ci_low for _, row in points),
        tuple(row.ci_high for _, row in points),
    )


def _sentences(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Who passes which test, and which methods a reader may take for blind."""
    for metric, title in TITLES.items():
        places = [place for place, column in enumerate(columns) if column.metric == metric]
        readings = {
            row.method: [cell.reading for place in places if (cell := row.cells[place]) is not None]
            for row in rows
            if not row.baseline
        }
        judged = {method: [word for word in words if word != "unknown"] for method, words in readings.items()}
        judged = {method: words for method, words in judged.items() if words}
        if not judged:
            continue
        measures = max(map(len, judged.values()))
        groups = {
            "passes": [method for method, words in judged.items() if set(words) == {"passes"}],
            "passes by some measures and fails by others": [m for m, words in judged.items() if len(set(words)) == 2],
            "fails" if measures == 1 else "fails by every measure": [
                method for method, words in judged.items() if set(words) == {"fails"}
            ],
        }
        said = [
            f"{join([f'`{name}`' for name in names])} {_verb(words, names)}" for words, names in groups.items() if names
        ]
        yield f"{title}: {'; '.join(said)}."


def _verb(words: str, names: Sequence[str]) -> str:
    return words if len(names) == 1 else words.replace("passes", "pass").replace("fails", "fail")
