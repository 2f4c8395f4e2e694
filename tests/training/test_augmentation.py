"""Crops and flips against a loop over images."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from roarline.config.training import Augmentation
from roarline.training.augmentation import Draws, augment, draw

CPU = torch.device("cpu")


def one_by_one(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The same with slices of each padded image."""
    height, width = images.shape[2:]
    out = []
    for index, image in enumerate(F.pad(images, [draws.padding_px] * 4)):
        top, left = int(draws.top_N[index]), int(draws.left_N[index])
        cut = image[:, top : top + height, left : left + width]
        out.append(cut.flip(-1) if draws.flip_N[index] else cut)
    return torch.stack(out)


@given(st.integers(0, 5), st.booleans(), st.integers(0, 2**31))
def test_augment_equals_slicing_each_image(padding, flip, seed):
    settings = Augmentation(crop_padding_px=padding, horizontal_flip=flip)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, 7, 5, generator=generator)
    draws = draw(settings, 6, generator, CPU)
    if draws is None:
        assert padding == 0
        assert not flip
        return
    before = images.clone()
    assert torch.equal(augment(images, draws), one_by_one(images, draws))
    assert torch.equal(images, before)


def test_draws_reach_every_corner_and_both_sides():
    draws = draw(Augmentation(crop_padding_px=2, horizontal_flip=True), 2000, torch.Generator().manual_seed(0), CPU)
    assert draws is not None
    assert set(draws.top_N.tolist()) == set(draws.left_N.tolist()) == {0, 1, 2, 3, 4}
    assert 0.45 < float(draws.flip_N.float().mean()) < 0.55


def test_nothing_to_do_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert draw(Augmentation(), 10, generator, CPU) is None
    assert torch.equal(generator.get_state(), state)
