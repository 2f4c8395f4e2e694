"""What a classifier's training minimises, as its settings and the data set say."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from roarline.artifacts.dataset import DatasetFile
from roarline.config.training import TrainCls
from roarline.models.heads import freeze_backbone
from roarline.training.batches import Split
from roarline.training.classification import AlterBatch, Classification
from roarline.training.consistency import ConsistentClassification
from roarline.training.objectives import Objective


def classifier_objective(
    model: nn.Module,
    settings: TrainCls,
    train: Split,
    dataset: DatasetFile | None,
    *,
    alter: AlterBatch | None,
    seed: int,
) -> Objective:
    """Classification, with consistency where it is asked for; a frozen backbone is frozen here.

    Args:
        train: The training split.
        dataset: What it is of, for its objects; None where labels are not the images' own.
        alter: Changes every batch of training images.
        seed: Of what consistency draws for validation images.

    Raises:
        DataError: There are too few images of other classes for composites.
        ModelError: The network's head can't be told from its backbone, or there is no such layer.
        UserInputError: The loss doesn't go with the labels.
    """
    if settings.frozen_backbone is not None:
        freeze_backbone(model)
    plain = Classification(model, settings, multi_label=train.labels.ndim == 2, alter=alter)
    if settings.consistency is None:
        return plain
    objects_NK = _objects(dataset) if dataset is not None and train.labels.ndim == 2 else None
    return ConsistentClassification(plain, settings.consistency, train, objects_NK, seed)


def _objects(dataset: DatasetFile) -> Tensor | None:
    """How many objects of each class the training images have, [N, K]; None where no boxes are known.

    A class that an image shows without a box (its objects were cut off, say) counts once.
    """
    if dataset.boxes is None:
        return None
    counts = np.zeros((len(dataset), dataset.num_classes))
    np.add.at(counts, (dataset.boxes[:, 0], dataset.boxes[:, 1]), 1)
    rows = dataset.rows("train")
    return torch.from_numpy(np.maximum(counts[rows], dataset.labels[rows]))
