"""Stage train-cls: train a classifier, or take one with its weights; write its card, weights and curve.

A job that reads a classifier fine-tunes it on images from which something is taken away at random: the surrogate that
F-Fidelity and IDSDS ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from roarline.artifacts.classifier import write_curve
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.files import file_sha256
from roarline.artifacts.store import Artifact, Writer
from roarline.config.training import TrainCls
from roarline.data.loading import ImageReader
from roarline.errors import DataError, ModelError
from roarline.evaluation.label_metrics import label_metrics
from roarline.models.build import build
from roarline.models.layers import find_layer
from roarline.models.load import check_classes, load_classifier
from roarline.seeds import derive_seed
from roarline.stages.classifier_files import write_classifier
from roarline.stages.classifier_objective import classifier_objective
from roarline.stages.fine_tuning import Alteration, fill_colour
from roarline.stages.job import Context, Job
from roarline.stages.recorded_steps import may_record
from roarline.stages.splits import Normalization, normalization_of, split_images
from roarline.stages.tensorboard import told_to_tensorboard
from roarline.training.batches import Split
from roarline.training.checkpoint import Checkpoint
from roarline.training.evaluate import Evaluation, evaluate
from roarline.training.loop import Trained, fit

_FEWEST_CLASSES = 2


class Images(Protocol):
    """What gives the images of a split, or None where it has none."""

    def __call__(self, split: str, *, shuffled: bool = False) -> Split | None: ...


def run(job: Job, context: Context, writer: Writer) -> None:
    """Make a ``classifier`` artifact.

    Where the parameter ``training`` is None the weights are taken as they are, and only evaluated.

    Raises:
        ModelError: The network can't be built, or its weights are for another number of classes.
        DataError: There is nothing to train on, or an image is unreadable.
        JobError: The training diverged.
    """
    training, inputs = job.parameters["training"], context.inputs(job)
    settings = TrainCls.model_validate(training) if training is not None else None
    path = inputs["dataset"].file(DATASET_FILE)
    with DatasetFile(path) as dataset, ImageReader(dataset, job.local.get("root"), context.loader_threads) as reader:
        if settings is not None and not dataset.multi_label and dataset.num_classes < _FEWEST_CLASSES:
            raise DataError(
                f"data set {dataset.name!r} has one class, {dataset.class_names[0]!r}: there is nothing to tell apart"
            )
        alteration: Alteration | None = None
        if "classifier" in inputs:
            model, normalization = _trained_before(inputs["classifier"], dataset)
            colour = fill_colour(dataset, normalization.mean)
            alteration = Alteration(job.parameters["alteration"], normalization, colour)
        else:
            normalization = normalization_of(job.parameters["normalization"], dataset)
            model = _build(job, dataset, settings)
            _check_layers(model, job.local.get("layers", {}), dataset.image_size)
        model = model.to(context.device)

        def images(split: str, *, shuffled: bool = False) -> Split | None:
            if not len(dataset.rows(split)):
                return None
            found = split_images(dataset, reader, split, normalization, context.device)
            if alteration and split == "validation":  # the best epoch is the one that knows gaps best
                return found.altered(alteration.of_split(len(found), _seed(job, "gaps of validation images")))
            return (found.with_shuffled_labels(job.parameters["seed"]) if shuffled else found).altered()

        trained = _train(job, context, writer, model, settings, dataset, images, alteration) if settings else None
        precision, threshold = (settings.precision, settings.label_threshold) if settings else ("float32", 0.0)
        # Labels of one class each: the loop has read the validation split, and says its accuracy.
        seen = {
            name: evaluate(model, split, precision=precision)
            for name in (("validation", "test") if trained is None or dataset.multi_label else ("test",))
            if (split := images(name)) is not None
        }
        write_classifier(
            writer.out,
            model,
            job.parameters["model"],
            dataset,
            normalization,
            epochs=len(trained.curve) if trained else 0,
            best_epoch=trained.best_epoch if trained else None,
            validation_accuracy=trained.validation_accuracy if trained else _accuracy(seen.get("validation")),
            test_accuracy=_accuracy(seen.get("test")),
            label_metrics={
                name: label_metrics(
                    found.logits_NK.numpy(), dataset.labels[dataset.rows(name)], dataset.class_names, threshold
                )
                for name, found in seen.items()
                if found.logits_NK is not None
            },
        )
    write_curve(writer.out, trained.curve if trained else [])


def _seed(job: Job, purpose: str) -> int:
    return derive_seed(job.parameters["seed"], "train-cls", purpose)


def _trained_before(artifact: Artifact, dataset: DatasetFile) -> tuple[nn.Module, Normalization]:
    """The classifier that is to be trained on, and what its images are normalised by."""
    model, card = load_classifier(artifact)
    check_classes(card, dataset.class_names, dataset.name)
    return model.requires_grad_(True), Normalization(card.mean, card.std)


def _build(job: Job, dataset: DatasetFile, settings: TrainCls | None) -> nn.Module:
    spec = job.parameters["model"]
    weights, weights_file = spec["weights"], None
    if job.local.get("weights"):
        weights_file = Path(job.local["weights"])
        if not weights_file.is_file():
            raise ModelError(f"model.weights: {weights_file}: no such file")
        if weights != f"sha256:{file_sha256(weights_file)}":
            raise ModelError(f"model.weights: {weights_file} changed since this run was planned; start the run again")
        weights = None
    return build(
        spec["arch"],
        spec["params"],
        dataset.num_classes,
        input_size=dataset.image_size,
        weights=weights,
        weights_file=weights_file,
        seed=_seed(job, "init"),
        replace_head=settings is not None,
        new_head=settings is not None and settings.frozen_backbone is not None and settings.frozen_backbone.new_head,
    )


def _check_layers(model: nn.Module, layers: Mapping[str, Sequence[str]], input_size: tuple[int, int] | None) -> None:
    """Refuse a layer that a method asks for and the network hasn't, before a training rather than after it."""
    for method, names in layers.items():
        for name in names:
            try:
                find_layer(model, name, input_size)
            except ModelError as error:
                raise ModelError(f"attribution.methods: {method}: {error}") from error


def _train(
    job: Job, context: Context, writer: Writer, model: nn.Module, settings: TrainCls, dataset: DatasetFile,
    images: Images, alteration: Alteration | None,
) -> Trained:  # fmt: skip
    shuffled = job.parameters.get("shuffle_labels", False)
    train = images("train", shuffled=shuffled)
    if train is None:
        raise DataError("the data set has no training split; leave out the train-cls section to load model.weights")
    # True labels of other images can't tell which epoch learned shuffled ones best: the last one counts.
    validation = None if shuffled else images("validation")
    if shuffled:
        settings = settings.model_copy(update={"early_stopping": None})
    objective = classifier_objective(
        model,
        settings,
        train,
        None if shuffled else dataset,
        alter=alteration.of_batch if alteration else None,
        seed=_seed(job, "composites of validation images"),
    )
    with told_to_tensorboard(job) as told:
        return fit(
            objective,
            train,
            validation,
            settings,
            seed=_seed(job, "fine-tuning" if alteration else "batches"),
            checkpoint=Checkpoint(writer.parts),
            record=may_record(job, job.parameters["model"]["arch"]),
            told=told,
            progress=lambda done, total: context.progress(done, total, "steps"),
        )


def _accuracy(seen: Evaluation | None) -> float | None:
    return seen.accuracy if seen else None
