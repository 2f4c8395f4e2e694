"""What the figures show, as numbers: lines with bands, and levels for comparison. The page's JSON holds the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roarline.report.formatting import percent
from roarline.report.leaderboard import metric_title
from roarline.report.scores import Method, Score, Scores

ROAR, KAR, RECURSIVE = "roar", "kar", "recursive_roar"
MODES = {ROAR: "ROAR", KAR: "KAR", RECURSIVE: "Recursive ROAR"}
CURVE_METRICS = ("morf", "lerf", "insertion", "deletion", "road_morf", "road_lerf", "irof")
PATCH_CURVES = "region_perturbation_"  # and the side of a patch in px


@dataclass(frozen=True)
class Line:
    """A curve with its interval at every point; ``name`` is the method or what else is drawn."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Level:
    """A horizontal line for comparison."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One figure.

    Attributes:
        name: Identifier, unique on the page.
        x_range: The range of the x axis, None for that of the points.
        percent: (x, y) True where an axis is a share that is shown in per cent.
        group: Panels of one group share the range of their y axes.
        x_ticks: Names of the places 1, 2, … of the x axis; none: numbers.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    x_range: tuple[float, float] | None = (0.0, 1.0)
    percent: tuple[bool, bool] = (True, True)
    group: str = ""
    x_ticks: tuple[str, ...] = ()


def retraining_panels(scores: Scores, methods: Sequence[Method], mode: str, chance: Level) -> list[Panel]:
    """Accuracy after retraining, and the leakage probe, against the removed fraction.

    Args:
        mode: One of ``MODES``.
        chance: What guessing without looking reaches.

    Returns:
        None, one or two panels: those that have points. Both share their y range.
    """
    ends = "least" if mode == KAR else "most"
    panels = []
    for what, metric in (("accuracy", f"{mode}_accuracy"), ("leakage", f"{mode}_leakage")):
        lines = _fraction_lines(scores, methods, metric)
        if not lines:
            continue
        levels = [chance]
        reference = scores.reference(f"{mode}_accuracy")
        if reference is not None and reference.value is not None:
            levels.insert(
                0,
                Level(
                    f"nothing removed ({percent(reference.value)})",
                    reference.value,
                    reference.ci_low,
                    reference.ci_high,
                ),
            )
        title = (
            f"{MODES[mode]}: retrained on what is left" if what == "accuracy" else "Leakage: retrained on masks alone"
        )
        y_label = (
            "Test accuracy after retraining (%)" if what == "accuracy" else "Test accuracy from the mask alone (%)"
        )
        panels.append(
            Panel(
                f"{mode}-{what}", title, f"Removed pixels, {ends} relevant first (% of the image)", y_label,
                tuple(lines), tuple(levels), group=mode,
            )
        )  # fmt: skip
    return panels


def _fraction_lines(scores: Scores, methods: Sequence[Method], metric: str) -> list[Line]:
    by_method = scores.by_fraction(metric)
    return [_line_of(method.name, by_method[method.name]) for method in methods if method.name in by_method]


def _line_of(name: str, rows: Sequence[Score]) -> Line:
    return Line(
        name,
        tuple(float(row.removed_fraction or 0.0) for row in rows),
        tuple(float(row.value) for row in rows if row.value is not None),
        tuple(row.ci_low for row in rows),
        tuple(row.ci_high for row in rows),
    )


def perturbation_panels(curves: Mapping[str, Sequence[Line]], score: str) -> list[Panel]:
    """The classifier's score while pixels go or come, without retraining.

    Args:
        curves: Metric of ``CURVE_METRICS`` or ``PATCH_CURVES`` to one line a method, x in [0, 1].
        score: ``probability`` or ``logit``.

    Returns:
        One panel for each metric that has curves.
    """
    words = {
        "morf": ("MoRF: most relevant first (lower is better)", "Removed pixels (% of the image)"),
        "lerf": ("LeRF: least relevant first (higher is better)", "Removed pixels (% of the image)"),
        "insertion": ("Insertion: most relevant first (higher is better)", "Inserted pixels (% of the image)"),
        "deletion": ("Deletion: most relevant first (lower is better)", "Deleted pixels (% of the image)"),
        "road_morf": (
            "ROAD MoRF: most relevant first (lower is better)",
            "Removed and imputed pixels (% of the image)",
        ),
        "road_lerf": (
            "ROAD LeRF: least relevant first (higher is better)",
            "Removed and imputed pixels (% of the image)",
        ),
        "irof": ("IROF: superpixels, most relevant first (lower is better)", "Removed superpixels (% of all)"),
    }
    groups = {"morf": "removal", "lerf": "removal", "road_morf": "road", "road_lerf": "road", "irof": "irof"}
    panels = []
    for metric, lines in curves.items():
        if lines:
            title, x_label = words.get(metric) or (
                f"Patches of {metric.removeprefix(PATCH_CURVES)} px, most relevant first (lower is better)",
                "Removed patches (% of all)",
            )
            y_label = (
                "Mean probability of the target class (%)" if score == "probability" else "Mean logit of the target"
            )
            of_patches = metric.startswith(PATCH_CURVES)
            group = groups.get(metric, PATCH_CURVES if of_patches else "insertion")
            panels.append(
                Panel(
                    metric, title, x_label, y_label, tuple(lines), percent=(True, score == "probability"), group=group,
                    x_range=(0.0, max(lines[0].x) if of_patches else 1.0),
                )
            )  # fmt: skip
    return panels


def deviation_panels(scores: Scores, methods: Sequence[Method]) -> list[Panel]:
    """The relative change of the probability at each removed fraction; one panel for each deviation with values."""
    panels = []
    for metric, ends, better in (("morf_deviation", "most", "higher"), ("lerf_deviation", "least", "lower")):
        lines = _fraction_lines(scores, methods, metric)
        if lines:
            panels.append(
                Panel(
                    metric, f"{metric_title(metric)} ({better} is better)",
                    f"Removed pixels, {ends} relevant first (% of the image)", "Relative change of the probability (%)",
                    tuple(lines), percent=(True, False), group="deviation",
                )
            )  # fmt: skip
    return panels


def training_panels(curve: Mapping[str, Sequence[float | None]], best_epoch: int | None) -> list[Panel]:
    """Loss and accuracy of the classifier by epoch.

    Args:
        curve: Columns of the classifier's ``curve.csv``; a missing number is None.
        best_epoch: The epoch whose weights were kept.
    """
    epochs = curve.get("epoch", ())
    if not epochs:
        return []
    note = f" (weights of epoch {best_epoch} were kept)" if best_epoch is not None else ""
    panels = []
    for what, y_label in (("accuracy", "Accuracy (%)"), ("loss", "Loss")):
        lines = []
        for split in ("train", "validation"):
            points = [
                (float(epoch), float(value))
                for epoch, value in zip(epochs, curve.get(f"{split}_{what}", ()), strict=False)
                if epoch is not None and value is not None
            ]
            if points:
                nothing = (None,) * len(points)
                lines.append(Line(split, tuple(x for x, _ in points), tuple(y for _, y in points), nothing, nothing))
        if lines:
            panels.append(
                Panel(
                    f"training-{what}", f"Classifier's {what}{note if what == 'accuracy' else ''}", "Epoch", y_label,
                    tuple(lines), x_range=None, percent=(False, what == "accuracy"),
                )
            )  # fmt: skip
    return panels
