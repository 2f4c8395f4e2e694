"""The masks of an image's classes, and of the others."""

from __future__ import annotations

import pytest
import torch

from roarline.imaging.mask_aggregation import aggregate_masks
from tests.golden_cases import case

ROUNDING = 1e-7
"""float64 sums in another order; the golden README's tolerance."""


def test_equals_nn_explainers_masks():
    arrays, _ = case("s0_masks_tv_entropy")
    target, others = aggregate_masks(torch.from_numpy(arrays["in_seg_logits"]), torch.from_numpy(arrays["in_targets"]))
    torch.testing.assert_close(target, torch.from_numpy(arrays["out_target_mask"]), rtol=ROUNDING, atol=0)
    torch.testing.assert_close(others, torch.from_numpy(arrays["out_nontarget_mask"]), rtol=ROUNDING, atol=0)


def test_is_the_pixelwise_maximum_of_the_sigmoids():
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    target, others = aggregate_masks(logits, labels)
    sigmoids = logits.sigmoid()
    torch.testing.assert_close(target[0], torch.maximum(sigmoids[0, 0], sigmoids[0, 3]))
    torch.testing.assert_close(target[1], sigmoids[1, 1])
    torch.testing.assert_close(others[0], torch.maximum(sigmoids[0, 1], sigmoids[0, 2]))


@pytest.mark.parametrize(("labels", "empty"), [([0.0, 0.0, 0.0], 0), ([1.0, 1.0, 1.0], 1)])
def test_without_a_class_the_mask_is_0_and_teaches_nothing(labels, empty):
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    mask = aggregate_masks(logits, torch.tensor([labels]))[empty]
    assert (mask == 0).all()
    mask.sum().backward()
    assert (logits.grad == 0).all()
