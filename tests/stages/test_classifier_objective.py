"""What a classifier's training is told about the data set: of several labels, how many objects an image has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.config.training import TrainCls
from roarline.models.build import build
from roarline.stages.classifier_objective import classifier_objective
from roarline.training.batches import ResidentSplit
from tests.stages.toy_classifier import toy_dataset

# the last image is a test image; row, class and corners of each box
SPLIT = np.array([0, 0, 0, 0, 2])
LABELS = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1]], dtype=np.uint8)
BOXES = np.array([[0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 1], [0, 1, 2, 2, 3, 3], [2, 2, 0, 0, 1, 1], [4, 0, 0, 0, 1, 1]])


@pytest.mark.parametrize("boxes", [BOXES, None])
def test_targets_of_several_labels_are_drawn_by_the_boxes_of_training_images(store, boxes):
    artifact = toy_dataset(store, count=5, classes=3, side=8, split=SPLIT, labels=LABELS, boxes=boxes)
    settings = TrainCls.model_validate({"loss": "binary_cross_entropy", "consistency": {}})
    train = ResidentSplit(torch.zeros(4, 3, 8, 8), torch.from_numpy(LABELS[:4]).float())
    model = build("small_cnn", {"width": 4}, 3, input_size=(8, 8), seed=0)
    with DatasetFile(artifact.file(DATASET_FILE)) as dataset:
        objective = classifier_objective(model, settings, train, dataset, alter=None, seed=0)
    # image 0 has two objects of class 1; what is shown without a box (image 1, class 2; image 2, class 0) counts once
    counts = LABELS[:4].astype(float)
    counts[0, 1] = 2 if boxes is not None else 1
    assert objective.companions.weights_NK.tolist() == counts.tolist()
