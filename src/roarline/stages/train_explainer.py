"""Stage train-explainer: train a network to draw masks for a frozen classifier; write its card, weights and curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roarline.artifacts.classifier import ClassifierCard
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.explainer import (
    EXPLAINER_WEIGHTS_FILE,
    ExplainedClassifier,
    ExplainerCard,
    write_explainer_curve,
)
from roarline.artifacts.files import file_sha256
from roarline.artifacts.store import Artifact, Writer
from roarline.config.explainers import EXPLAINERS
from roarline.config.training import Training
from roarline.data.loading import ImageReader
from roarline.data.splits import draw_per_group, strata
from roarline.errors import DataError, ModelError
from roarline.models.explainers import build_explainer
from roarline.models.load import check_classes, load_classifier
from roarline.models.load_explainer import without_start
from roarline.seeds import derive_seed
from roarline.stages.classifier_files import size_for, write_weights
from roarline.stages.job import Context, Job
from roarline.stages.recorded_steps import may_record
from roarline.stages.splits import Normalization, shuffled_order, split_images
from roarline.stages.tensorboard import told_to_tensorboard
from roarline.training.checkpoint import Checkpoint
from roarline.training.explainer_task import ExplainerTask
from roarline.training.loop import Trained, fit

STAGE = "train-explainer"


def run(job: Job, context: Context, writer: Writer) -> None:
    """Make an ``explainer`` artifact.

    The classifier is frozen and in eval mode throughout: dropout is off, and batch norm keeps its statistics.

    Raises:
        ModelError: The classifier is for other classes or images, or the network can't be built.
        DataError: There are no training images, or one is unreadable.
        JobError: The training diverged.
    """
    parameters, inputs = job.parameters, context.inputs(job)
    settings = Training.model_validate(parameters["training"])
    if "shuffle_labels" in parameters:  # there is nothing to stop by, see below
        settings = settings.model_copy(update={"early_stopping": None})
    component = EXPLAINERS[parameters["explainer"]]
    classifier, known = load_classifier(inputs["classifier"])
    path = inputs["dataset"].file(DATASET_FILE)
    with DatasetFile(path) as dataset, ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader:
        check_classes(known, dataset.class_names, dataset.name)
        size = size_for(dataset, known)
        rows, labels = _training_rows(dataset, parameters)
        network = _build(job, classifier, dataset.num_classes, size).to(context.device)
        classifier = classifier.to(context.device)
        if settings.channels_last:
            classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        task = ExplainerTask(
            num_classes=dataset.num_classes,
            multi_label=dataset.multi_label,
            most_labels=_most_labels(dataset),
            input_size=size,
            settings=settings,
            seed=_seed(job, "objective"),
        )
        objective = component.load_objective()(network, classifier, task, **parameters["params"]["losses"])
        normalization = Normalization(known.mean, known.std)
        training = split_images(dataset, reader, "train", normalization, context.device, rows)
        if "shuffle_labels" in parameters:
            training = replace(training, labels=torch.from_numpy(labels).to(training.labels))
        validation = None  # true labels of other images can't tell which epoch learned shuffled ones best
        if len(dataset.rows("validation")) and "shuffle_labels" not in parameters:
            validation = split_images(dataset, reader, "validation", normalization, context.device).altered()
        with told_to_tensorboard(job) as told:
            trained = fit(
                objective,
                training.altered(),
                validation,
                settings,
                seed=_seed(job, "batches"),
                checkpoint=Checkpoint(writer.parts),
                record=may_record(job, known.arch),
                told=told,
                progress=lambda done, total: context.progress(done, total, "steps"),
            )
    _card(job, inputs["classifier"], known, trained, size, len(rows), objective.trained).write(writer.out)
    write_weights(writer.out / EXPLAINER_WEIGHTS_FILE, objective.trained)
    write_explainer_curve(writer.out, trained.curve)


def _seed(job: Job, purpose: str) -> int:
    return derive_seed(job.parameters["seed"], STAGE, purpose)


def _training_rows(dataset: DatasetFile, parameters: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """All training images, or so many of each class, and their labels, which are those of other images if so told."""
    rows = dataset.rows("train")
    if not len(rows):
        raise DataError(f"data set {dataset.name!r} has no training images to train an explainer on")
    labels = dataset.labels[rows]
    if "shuffle_labels" in parameters:
        labels = labels[shuffled_order(len(rows), parameters["seed"]).numpy()]
    count = parameters.get("images_per_class")
    if count is None:
        return rows, labels
    seed = derive_seed(parameters["seed"], STAGE, "images_per_class")
    chosen = draw_per_group([dataset.sample_ids[row] for row in rows], strata(labels), count, seed)
    return rows[chosen], labels[chosen]


def _most_labels(dataset: DatasetFile) -> int:
    return max(1, int(dataset.labels.sum(axis=1).max())) if dataset.multi_label else 1


def _build(job: Job, classifier: torch.nn.Module, num_classes: int, size: tuple[int, int]) -> torch.nn.Module:
    network = job.parameters["params"]["network"]
    weights_file = Path(job.local["weights"]) if "weights" in job.local else None
    if weights_file is not None:
        if not weights_file.is_file():
            raise ModelError(f"network.weights: {weights_file}: no such file")
        if network["weights"] != f"sha256:{file_sha256(weights_file)}":
            raise ModelError(f"network.weights: {weights_file} changed since this run was planned; start the run again")
        network = without_start(network)
    return build_explainer(
        job.parameters["explainer"], classifier, network, num_classes=num_classes, input_size=size,
        seed=_seed(job, "init"), weights_file=weights_file,
    )  # fmt: skip


def _card(
    job: Job, classifier: Artifact, known: ClassifierCard, trained: Trained,
    size: tuple[int, int], training_images: int, network: torch.nn.Module,
) -> ExplainerCard:  # fmt: skip
    name = job.parameters["explainer"]
    return ExplainerCard(
        explainer=name,
        params=job.parameters["params"],
        one_mask=EXPLAINERS[name].one_mask,
        classifier=ExplainedClassifier(key=classifier.manifest.key, digest=classifier.digest, arch=known.arch),
        class_names=known.class_names,
        multi_label=known.multi_label,
        input_size=list(size),
        mean=known.mean,
        std=known.std,
        epochs=len(trained.curve),
        best_epoch=trained.best_epoch,
        validation=trained.best,
        training_images=training_images,
        images_per_class=job.parameters.get("images_per_class"),
        parameters_count=sum(parameter.numel() for parameter in network.parameters()),
    )
