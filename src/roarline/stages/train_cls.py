"""Stage train-cls: train a classifier, or take one with its weights; write its card, weights and curve.

A job that reads a classifier fine-tunes it on images from which something is taken away at random: the surrogate that
F-Fidelity and IDSDS ask.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from roarline.artifacts.classifier import write_curve
from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.files import file_sha256
from roarline.artifacts.store import Artifact, Writer
from roarline.config.training import TrainCls
from roarline.data.loading import ImageReader
from roarline.errors import DataError, ModelError
from roarline.models.build import build
from roarline.models.load import check_classes, load_classifier
from roarline.seeds import derive_seed
from roarline.stages.classifier_files import write_classifier
from roarline.stages.fine_tuning import Alteration, fill_colour
from roarline.stages.job import Context, Job
from roarline.stages.splits import Normalization, normalization_of, split_images
from roarline.training.batches import Split
from roarline.training.checkpoint import Checkpoint
from roarline.training.classification import AlterBatch, train
from roarline.training.evaluate import evaluate
from roarline.training.loop import Trained

_FEWEST_CLASSES = 2


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
            model = _build(job, dataset, replace_head=settings is not None)
        model = model.to(context.device)

        def images(split: str, *, shuffled: bool = False) -> Split | None:
            if not len(dataset.rows(split)):
                return None
            found = split_images(dataset, reader, split, normalization, context.device)
            if alteration and split == "validation":  # the best epoch is the one that knows gaps best
                return found.altered(alteration.of_split(len(found), _seed(job, "gaps of validation images")))
            return (found.with_shuffled_labels(job.parameters["seed"]) if shuffled else found).altered()

        trained: Trained | None = None
        if settings is not None:
            shuffled = job.parameters.get("shuffle_labels", False)
            # True labels of other images can't tell which epoch learned shuffled ones best: the last one counts.
            validation = None if shuffled else images("validation")
            alter = alteration.of_batch if alteration else None
            trained = _train(
                job, context, writer, model, settings, images("train", shuffled=shuffled), validation, alter
            )
            validation_accuracy = trained.validation_accuracy
        else:
            validation_accuracy = _accuracy(model, images("validation"))
        write_classifier(
            writer.out,
            model,
            job.parameters["model"],
            dataset,
            normalization,
            epochs=settings.epochs if settings else 0,
            best_epoch=trained.best_epoch if trained else None,
            validation_accuracy=validation_accuracy,
            test_accuracy=_accuracy(model, images("test"), settings.precision if settings else "float32"),
        )
    write_curve(writer.out, trained.curve if trained else [])


def _seed(job: Job, purpose: str) -> int:
    return derive_seed(job.parameters["seed"], "train-cls", purpose)


def _trained_before(artifact: Artifact, dataset: DatasetFile) -> tuple[nn.Module, Normalization]:
    """The classifier that is to be trained on, and what its images are normalised by."""
    model, card = load_classifier(artifact)
    check_classes(card, dataset.class_names, dataset.name)
    return model.requires_grad_(True), Normalization(card.mean, card.std)


def _build(job: Job, dataset: DatasetFile, *, replace_head: bool) -> nn.Module:
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
        replace_head=replace_head,
    )


def _train(
    job: Job, context: Context, writer: Writer, model: nn.Module, settings: TrainCls, split: Split | None,
    validation: Split | None, alter: AlterBatch | None,
) -> Trained:  # fmt: skip
    if split is None:
        raise DataError("the data set has no training split; leave out the train-cls section to load model.weights")
    return train(
        model,
        split,
        validation,
        settings,
        seed=_seed(job, "fine-tuning" if alter else "batches"),
        alter=alter,
        checkpoint=Checkpoint(writer.parts),
        progress=lambda done, total: context.progress(done, total, "steps"),
    )


def _accuracy(model: nn.Module, split: Split | None, precision: str = "float32") -> float | None:
    return evaluate(model, split, precision=precision).accuracy if split else None
