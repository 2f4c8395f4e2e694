"""report: one self-contained page from the summary, curves, maps and manifests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from roarline.artifacts.classifier import CARD_FILE, CURVE_FILE, ClassifierCard
from roarline.artifacts.comparison_tables import read_comparisons
from roarline.artifacts.curves import CURVES_FILE, read_curves
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.files import atomic_path, write_json
from roarline.artifacts.manifest import Manifest
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.store import Artifact, Writer
from roarline.artifacts.tables import SCORES_FILE, read_csv, read_parquet
from roarline.config.component import MetricComponent
from roarline.config.fills import fill_name
from roarline.config.metrics import with_own_metrics
from roarline.config.sanity_metrics import SANITY_METRICS
from roarline.data.loading import ImageReader, normalise
from roarline.imaging.fills import Fill, fill_image
from roarline.report import gallery, page, plots, text
from roarline.report.bands import mean_line
from roarline.report.class_matrix import draw_class_matrices
from roarline.report.comparison_plots import draw_comparisons
from roarline.report.comparison_text import words
from roarline.report.comparisons import comparisons_from_tables
from roarline.report.content import ClassifierFacts, Content, Failure, as_json
from roarline.report.f_fidelity import f_fidelity_panels
from roarline.report.findings import RANDOM_COMPONENT, Facts
from roarline.report.formatting import percent, quantity
from roarline.report.leaderboard import build_leaderboard
from roarline.report.palette import line_styles
from roarline.report.panels import (
    CURVE_METRICS,
    MODES,
    PATCH_CURVES,
    Level,
    Line,
    deviation_panels,
    perturbation_panels,
    retraining_panels,
    training_panels,
)
from roarline.report.pictures import as_picture
from roarline.report.provenance import collect
from roarline.report.scores import OK, Method, Scores, methods_from_parameters, scores_from_columns
from roarline.seeds import derive_seed
from roarline.stages import STAGES
from roarline.stages.aggregate_scores import FAMILIES
from roarline.stages.class_matrix_section import class_matrix_section
from roarline.stages.job import Context, Job
from roarline.stages.sanity_section import sanity_section

PAGE_FILE, CONTENT_FILE = "index.html", "report.json"
_GALLERY_FRACTION = 0.3
_MOST_EXAMPLES = 3
_TRAINING_LINES = (("train", False), ("validation", False))


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``index.html``, ``report.json``, and each figure of the page as an SVG file of its own."""
    inputs = context.inputs(job)
    methods = methods_from_parameters(job.parameters["methods"])
    with ExitStack() as stack:
        dataset = stack.enter_context(DatasetFile(inputs["dataset"].file(DATASET_FILE)))
        maps = {
            method.name: stack.enter_context(MapsFile(inputs[f"maps:{method.name}"].file(MAPS_FILE)))
            for method in methods
        }
        content = _content(job, context, inputs, methods, dataset, maps)
        counts = {name: len(file) for name, file in maps.items()}
    # The random baseline comes first of the baselines, so that it looks the same on every page.
    random_first = sorted(methods, key=lambda method: method.component != RANDOM_COMPONENT)
    styles = line_styles([(method.name, method.baseline) for method in random_first]) | line_styles(_TRAINING_LINES)
    figures = plots.draw(content.panels, styles) | draw_comparisons(content.comparisons)
    figures |= draw_class_matrices(content.class_matrices)
    provenance = collect(
        _manifests(inputs.values()),
        {name: (inputs[f"maps:{name}"].manifest, count) for name, count in counts.items()},
    )
    write_json(writer.out / CONTENT_FILE, as_json(content))
    drawn = {f"{name}.svg": svg for name, svg in figures.items()}
    for name, rendered in {**drawn, PAGE_FILE: page.render(content, provenance, figures).encode()}.items():
        writer.undigested.add(name)
        with atomic_path(writer.out / name) as partial:
            partial.write_bytes(rendered)


def _content(
    job: Job,
    context: Context,
    inputs: Mapping[str, Artifact],
    methods: list[Method],
    dataset: DatasetFile,
    maps: Mapping[str, MapsFile],
) -> Content:
    parameters = job.parameters
    own_metrics = parameters.get("own_metrics", [])
    metrics = with_own_metrics(own_metrics)
    scores = scores_from_columns(read_parquet(inputs["summary"].file(SCORES_FILE)))
    comparisons = comparisons_from_tables(read_comparisons(inputs["summary"]), scores, methods)
    card = ClassifierCard.read(inputs["classifier"].file(CARD_FILE))
    curve = _training_curve(inputs["classifier"])
    roar, perturbation = parameters["evaluate_roar"], parameters["evaluate_perturbation"]
    facts = Facts(
        dataset=parameters["dataset"],
        model=parameters["model"],
        classes=dataset.num_classes,
        multi_label=dataset.multi_label,
        test_images=len(dataset.rows("test")),
        chance=_chance(dataset),
        test_accuracy=card.test_accuracy,
        methods=tuple(methods),
        scores=scores,
        repeats=roar["repeats"] if roar else 0,
        confidence=parameters["confidence"],
        own_metrics={metric["name"]: metric["metric"] for metric in own_metrics},
        comparisons=comparisons,
    )
    fraction, fill = _gallery_removal(parameters)
    chance = Level(f"{facts.guessing} ({percent(facts.chance)})", facts.chance)
    retraining = {mode: tuple(panels) for mode in MODES if (panels := retraining_panels(scores, methods, mode, chance))}
    if gaps := f_fidelity_panels(scores, methods):
        retraining["f_fidelity"] = tuple(gaps)
    score_kind = perturbation["score"] if perturbation else "probability"
    return Content(
        title=parameters["title"],
        question=parameters["description"]
        or f"Which attribution method tells the truth about {facts.model} on {facts.dataset}?",
        answer=text.answer(facts),
        settings=tuple(_settings(parameters, facts)),
        methods=tuple(methods),
        confidence=facts.confidence,
        leaderboard=build_leaderboard(scores, methods, metrics, of=partial(_ranks, metrics)),
        localization=build_leaderboard(scores, methods, metrics, of=partial(_localizes, metrics)),
        passages=tuple(text.passages(facts)),
        retraining=retraining,
        perturbation=(
            *perturbation_panels(_mean_curves(job, inputs, methods), score_kind),
            *deviation_panels(scores, methods),
        ),
        training=tuple(training_panels(curve, card.best_epoch)),
        gallery=tuple(_gallery(job, context, methods, dataset, maps, card, fraction, fill)),
        removed_fraction=fraction,
        fill=fill_name(fill),
        classifier=_classifier_facts(card, curve),
        failures=tuple(_failures(inputs, methods, scores)),
        scores=scores.rows,
        comparisons=comparisons,
        words=tuple(words(comparisons)),
        sanity=sanity_section(parameters.get("evaluate_sanity"), inputs, methods, scores),
        class_matrices=class_matrix_section(inputs, methods),
    )


def _localizes(metrics: Mapping[str, MetricComponent], metric: str) -> bool:
    return metric in metrics and metrics[metric].stage == "evaluate-localization"


def _ranks(metrics: Mapping[str, MetricComponent], metric: str) -> bool:
    """Measured with the classifier, and no sanity check."""
    return not _localizes(metrics, metric) and metric not in SANITY_METRICS


def _settings(parameters: Mapping[str, Any], facts: Facts) -> Iterator[tuple[str, str]]:
    yield "Data set", f"{facts.dataset}, {facts.classes} classes"
    yield "Test images", f"{facts.test_images:,}"
    yield "Classifier", facts.model
    if facts.test_accuracy is not None:
        yield "Its test accuracy", percent(facts.test_accuracy)
    yield "Methods", f"{len(facts.real)} and {quantity(len(facts.methods) - len(facts.real), 'baseline')}"
    if roar := parameters["evaluate_roar"]:
        yield "Removed and retrained at", ", ".join(f"{100 * value:g}" for value in roar["fractions"]) + " %"
        yield "Retrainings a cell", f"{roar['repeats']}, fill {fill_name(roar['fill'])}"
    if perturbation := parameters["evaluate_perturbation"]:
        steps = len(perturbation["fractions"])
        yield "MoRF and LeRF", f"{steps} fractions, {perturbation['score']}, fill {fill_name(perturbation['fill'])}"
    if localization := parameters.get("evaluate_localization"):
        yield "Pointing tolerance", f"{localization['tolerance_px']:g} px"
    yield "Intervals", f"{100 * facts.confidence:g} %, bootstrap"
    yield "Seed", str(parameters["seed"])


def _chance(dataset: DatasetFile) -> float:
    """Accuracy of always guessing the most frequent class (multi-label: the more frequent answer for each class)."""
    labels = dataset.labels[dataset.rows("test")]
    if not len(labels):
        return 0.0
    if dataset.multi_label:
        present = labels.mean(axis=0)
        return float(np.maximum(present, 1 - present).mean())
    return max(Counter(labels.tolist()).values()) / len(labels)


def _training_curve(classifier: Artifact) -> dict[str, list[float | None]]:
    """Columns of ``curve.csv`` as numbers; empty for weights that were loaded."""
    if CURVE_FILE not in classifier.manifest.files:
        return {}
    return {
        name: [_number(value) for value in values] for name, values in read_csv(classifier.file(CURVE_FILE)).items()
    }


def _number(value: str) -> float | None:
    return float(value) if value and math.isfinite(float(value)) else None


def _classifier_facts(card: ClassifierCard, curve: Mapping[str, list[float | None]]) -> ClassifierFacts:
    at_best = dict(zip(curve.get("epoch", []), curve.get("train_accuracy", []), strict=False))
    return ClassifierFacts(
        arch=card.arch,
        params=card.params,
        parameters_count=card.parameters_count,
        input_size=tuple(card.input_size) if card.input_size else None,
        epochs=card.epochs,
        best_epoch=card.best_epoch,
        train_accuracy=at_best.get(float(card.best_epoch)) if card.best_epoch is not None else None,
        validation_accuracy=card.validation_accuracy,
        test_accuracy=card.test_accuracy,
        multi_label=card.multi_label,
    )


def _mean_curves(job: Job, inputs: Mapping[str, Artifact], methods: list[Method]) -> dict[str, list[Line]]:
    lines: dict[str, list[Line]] = {metric: [] for metric in CURVE_METRICS}
    for method in methods:
        artifact = inputs.get(f"scores:{method.name}")
        if artifact is None or CURVES_FILE not in artifact.manifest.files:
            continue
        curves = read_curves(artifact.file(CURVES_FILE))
        for metric, (fractions, values) in curves.by_metric.items():
            line = mean_line(method.name, fractions, values, curves.sample_ids, job.parameters["confidence"])
            if line is not None and (metric in lines or metric.startswith(PATCH_CURVES)):
                lines.setdefault(metric, []).append(line)
    return lines


def _gallery_removal(parameters: Mapping[str, Any]) -> tuple[float, Fill]:
    """What the masked images of the gallery show: the evaluated fraction that is nearest to 30 %, and its fill.

    Fills that would hide what was removed, or that differ from row to row, are shown as the mean colour.
    """
    section = parameters["evaluate_roar"] or parameters["evaluate_perturbation"]
    if section is None:
        return _GALLERY_FRACTION, "mean"
    fill = "mean" if section["fill"] in ("noisy_linear", "uniform_noise") else section["fill"]
    fractions = [value for value in section["fractions"] if 0 < value < 1] or [_GALLERY_FRACTION]
    return min(fractions, key=lambda value: abs(value - _GALLERY_FRACTION)), fill


def _gallery(
    job: Job,
    context: Context,
    methods: list[Method],
    dataset: DatasetFile,
    maps: Mapping[str, MapsFile],
    card: ClassifierCard,
    fraction: float,
    fill: Fill,
) -> Iterator[gallery.Item]:
    first = maps[methods[0].name]
    mapped = set(first.sample_ids)
    rows = np.array([row for row in dataset.rows("test") if dataset.sample_ids[row] in mapped], dtype=np.int64)
    seed, count = job.parameters["seed"], job.parameters["gallery_images"]
    chosen = gallery.choose(rows, dataset.labels[rows], count, derive_seed(seed, "report", "gallery"))
    fill_mean = dataset.mean.tolist() if dataset.mean is not None else card.mean
    with ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader:
        for done, choice in enumerate(chosen):
            sample_id = dataset.sample_ids[choice.row]
            row = _row_of(first, sample_id, choice.drawn_for)
            target = int(first.targets[row])
            image_BCHW = normalise(reader.read([choice.row]), [0.0], [1.0])
            logits = first.logits[row]
            labels = dataset.labels[choice.row]
            positives = np.flatnonzero(labels) if dataset.multi_label else np.atleast_1d(labels)
            right = np.array_equal(logits > 0, labels > 0) if dataset.multi_label else int(logits.argmax()) == labels
            yield gallery.Item(
                sample_id=sample_id,
                labels=tuple(dataset.class_names[label] for label in positives),
                likeliest=tuple(gallery.class_scores(logits, dataset.class_names, multi_label=dataset.multi_label)),
                target=dataset.class_names[target],
                correct=bool(right),
                picture=as_picture(image_BCHW[0].numpy()),
                tiles=gallery.tiles(
                    image_BCHW[0],
                    {name: file.maps([_row_of(file, sample_id, target)])[0] for name, file in maps.items()},
                    methods,
                    fill_image(image_BCHW, fill, [0.0], [1.0], fill_mean=fill_mean)[0],
                    fraction,
                    derive_seed(seed, "ties", sample_id),
                ),
            )
            context.progress(done + 1, len(chosen), "images")


def _row_of(file: MapsFile, sample_id: str, wanted: int) -> int:
    """The row of an image and a target; where that target has none, the row of its likeliest target."""
    rows = file.rows_for([sample_id])[0]
    return max(rows, key=lambda row: (file.targets[row] == wanted, file.logits[row][file.targets[row]]))


def _failures(inputs: Mapping[str, Artifact], methods: list[Method], scores: Scores) -> Iterator[Failure]:
    """Rows without a value: of each sample, grouped; then of the summary, where no sample explains them."""
    explained = set()
    for method, family in [(method, family) for method in methods for family in FAMILIES]:
        artifact = inputs.get(f"{family}:{method.name}")
        if artifact is None or SCORES_FILE not in artifact.manifest.files:
            continue
        table = read_parquet(artifact.file(SCORES_FILE))
        groups: dict[tuple[str, str, str], list[str]] = {}
        for sample_id, metric, setting, status in zip(
            table["sample_id"], table["metric"], table["setting"], table["status"], strict=True
        ):
            if status != OK:
                groups.setdefault((metric, setting or "", status), []).append(sample_id)
        for (metric, setting, status), samples in sorted(groups.items()):
            explained.add((method.name, metric))
            yield Failure(method.name, metric, setting, len(samples), status, tuple(samples[:_MOST_EXAMPLES]))
    for row in scores.rows:
        if (row.failed or row.status != OK) and (row.method, row.metric) not in explained:
            why = row.status if row.status != OK else "some of its values are missing"
            yield Failure(row.method, row.metric, row.setting, row.failed or 1, why)


def _manifests(artifacts: Any) -> list[Manifest]:
    """Manifests of all that the report stands on, inputs of inputs too, in the order of the stages."""
    found: dict[str, Manifest] = {}
    waiting = list(artifacts)
    while waiting:
        artifact = waiting.pop(0)
        manifest = artifact.manifest
        if manifest.key in found:
            continue
        found[manifest.key] = manifest
        waiting += [
            artifact.store.open(entry.stage, entry.key)
            for entry in manifest.inputs.values()
            if entry.key not in found and artifact.store.exists(entry.stage, entry.key)
        ]
    order = list(STAGES)
    return sorted(found.values(), key=lambda manifest: order.index(manifest.stage))
