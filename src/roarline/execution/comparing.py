"""What `roarline compare` does. Imports no torch before there is work that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roarline.artifacts.classifier import CARD_FILE, ClassifierCard
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import write_csv
from roarline.config.metrics import with_own_metrics
from roarline.errors import UserInputError
from roarline.execution.plan import Plan
from roarline.execution.prepared import load, obtain_data, run_jobs


def compare(first: Path, second: Path, overrides: Sequence[str], output: Path | None) -> None:
    """`roarline compare`: make the scores that are missing, then say what differs, image by image.

    Raises:
        UserInputError: The experiments are of other images, or have nothing in common.
    """
    plans = [_planned(config, overrides) for config in (first, second)]
    (before, old), (after, new) = plans
    if before.of("prepare-data")[0].key != after.of("prepare-data")[0].key:
        raise UserInputError(f"{second}: its data differ from those of {first}; images can't be paired")
    for plan, store in plans:
        run_jobs(plan, store, "aggregate-scores")
    from roarline.stages.compare import compare as compare_scores

    settings = after.experiment.aggregate_scores
    metrics = with_own_metrics(after.of("aggregate-scores")[0].parameters.get("own_metrics", []))
    table = compare_scores(
        _scores(before, old),
        _scores(after, new),
        higher_is_better=lambda metric: metrics[metric].higher_is_better,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=after.experiment.seed,
    )
    for name, config, (plan, store) in zip(("first", "second"), (first, second), plans, strict=True):
        print(f"{name + ':':<8}{config}, {_accuracy(plan, store)}")
    print(f"difference: second - first, with its {settings.confidence:.0%} interval over images; * excludes 0\n")
    print(_text(table))
    if output is not None:
        write_csv(output, table)
        print(f"\ntable: {output}")


def _planned(config: Path, overrides: Sequence[str]) -> tuple[Plan, Store]:
    plan, store = load(config, overrides)
    return obtain_data(plan), store


def _scores(plan: Plan, store: Store) -> dict[str, Artifact]:
    return {role: store.open(stage, key) for role, (stage, key) in plan.of("aggregate-scores")[0].inputs.items()}


def _accuracy(plan: Plan, store: Store) -> str:
    job = next(job for job in plan.jobs if job.stage == "train-cls" and job.asked_by is None)
    card = ClassifierCard.read(store.open(job.stage, job.key).file(CARD_FILE))
    return "no test accuracy" if card.test_accuracy is None else f"test accuracy {card.test_accuracy:.4f}"


def _text(table: dict[str, list[Any]]) -> str:
    lines = [["method", "metric", "setting", "first", "second", "difference", "interval", "better"]]
    for row in zip(*table.values(), strict=True):
        method, metric, setting, before, after, difference, low, high, _, better = row
        interval = "" if low is None else f"[{low:+.4f}, {high:+.4f}]{' *' if low * high > 0 else ''}"
        numbers = _number(before), _number(after), _number(difference, "+")
        lines.append([method, metric, setting, *numbers, interval, better])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"
