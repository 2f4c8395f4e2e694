"""Losses against their formulas."""

import math

import pytest
import torch

from roarline.errors import UserInputError
from roarline.training.losses import correct_share, make_loss


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_class_count():
    loss = make_loss("cross_entropy")(torch.zeros(4, 7), torch.tensor([0, 3, 6, 1]))
    assert float(loss) == pytest.approx(math.log(7), rel=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution():
    logits, label, smoothing = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([1]), 0.3
    log_p = torch.log_softmax(logits, 1)[0]
    target = torch.tensor([smoothing / 3, 1 - smoothing + smoothing / 3, smoothing / 3])
    loss = make_loss("cross_entropy", label_smoothing=smoothing)(logits, label)
    assert float(loss) == pytest.approx(-float((target * log_p).sum()), rel=1e-6)


def test_binary_cross_entropy_is_the_mean_over_images_and_classes():
    logits, labels = torch.tensor([[0.0, 3.0], [-2.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    expected = sum(
        math.log1p(math.exp(-logit if label else logit))
        for row, targets in zip(logits.tolist(), labels.tolist(), strict=True)
        for logit, label in zip(row, targets, strict=True)
    )
    loss = make_loss("binary_cross_entropy", multi_label=True)(logits, labels)
    assert float(loss) == pytest.approx(expected / 4, rel=1e-6)


def test_binary_cross_entropy_takes_one_class_each_as_one_hot():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 1, 0])
    one_hot = torch.eye(3)[labels]
    single = make_loss("binary_cross_entropy")(logits, labels)
    multi = make_loss("binary_cross_entropy", multi_label=True)(logits, one_hot)
    assert float(single) == pytest.approx(float(multi), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "cross_entropy", "multi_label": True}, "set loss: binary_cross_entropy"),
        ({"name": "binary_cross_entropy", "label_smoothing": 0.1}, "label_smoothing is 0.1"),
        ({"name": "hinge"}, "loss is 'hinge'"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(settings, said):
    with pytest.raises(UserInputError, match=said):
        make_loss(**settings)


def test_correct_share_of_single_labels_takes_the_first_of_equal_logits():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 5.0, 1.0], [0.0, 0.0, 0.1]])
    assert correct_share(logits, torch.tensor([0, 1, 0])).tolist() == [1.0, 1.0, 0.0]
    assert correct_share(logits, torch.tensor([1, 1, 2])).tolist() == [0.0, 1.0, 1.0]


def test_correct_share_of_multi_labels_counts_decisions():
    logits = torch.tensor([[1.0, -1.0, 2.0, -3.0], [0.0, 0.0, 0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    assert correct_share(logits, labels).tolist() == [0.5, 0.75]  # a logit of 0 decides against the class
