"""A trained explainer as a method: each row the mask of its target, one pass an image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from roarline.attribution.call import attribute, find_method
from roarline.attribution.explainer import learned_mask
from roarline.attribution.surroundings import Surroundings
from roarline.errors import MethodError


class Sums(nn.Module):
    def forward(self, images):
        return torch.stack([images.sum(dim=(1, 2, 3)), -images.sum(dim=(1, 2, 3))], dim=1)


def masks_of(images, classes=2):
    """Mask k of image n is n + k / 10 everywhere."""
    values = images[:, :1, :1, :1] + torch.arange(classes)[None, :, None, None] / 10
    return values.expand(-1, -1, *images.shape[2:])


def test_each_row_gets_the_mask_of_its_image_and_target_in_one_pass():
    seen = []

    def explainer(model, images):
        seen.append(len(images))
        return masks_of(images)

    images = torch.tensor([0.0, 0, 1])[:, None, None, None].expand(3, 3, 4, 4)
    maps = learned_mask(Sums(), images, torch.tensor([0, 1, 1]), explainer=explainer, image_index=[0, 0, 1])
    assert seen == [2]
    assert maps.shape == (3, 4, 4)
    torch.testing.assert_close(maps[:, 0, 0], torch.tensor([0.0, 0.1, 1.1]))


def test_one_mask_serves_every_target():
    images = torch.tensor([0.0, 1])[:, None, None, None].expand(2, 3, 4, 4)
    maps = learned_mask(
        Sums(), images, torch.tensor([1, 0]), explainer=lambda model, some: masks_of(some, 1), image_index=[0, 1]
    )
    torch.testing.assert_close(maps[:, 0, 0], torch.tensor([0.0, 1.0]))


def test_without_an_explainer_says_what_to_do():
    with pytest.raises(MethodError, match="explainer: draws the masks of a trained explainer, and there is none here"):
        attribute(
            Sums(), torch.ones(1, 3, 4, 4), torch.tensor([0]), find_method("explainer", {}),
            seed_of=lambda row, target: 0, sample_ids=["a"], surroundings=Surroundings(),
        )  # fmt: skip
