"""Passes: every (image, copy) goes through the network once, in full passes, in order."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.attribution import passes
from roarline.attribution.passes import _full_passes, choose_targets


@given(images=st.integers(0, 9), repeats=st.integers(1, 60), size=st.integers(1, 17))
def test_full_passes_cover_every_copy_once_in_order(images, repeats, size):
    found = list(_full_passes(images, repeats, size))
    flat = [(image, copy) for spans in found for image, start, stop in spans for copy in range(start, stop)]
    assert flat == [(image, copy) for image in range(images) for copy in range(repeats)]
    counts = [sum(stop - start for _, start, stop in spans) for spans in found]
    assert all(count == size for count in counts[:-1])
    assert all(0 < count <= size for count in counts)


def test_choose_targets_keeps_given_classes_and_fills_in_predicted_ones():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]], requires_grad=True)
    chosen = choose_targets(logits, torch.tensor([-1, 2]))
    assert chosen.tolist() == [1, 2]
    assert chosen.dtype == torch.int64


def test_gradients_come_back_to_the_image_they_belong_to(linear, monkeypatch):
    """Each image has its own target, so that a mix-up shows as another class's weight."""
    monkeypatch.setattr(passes, "pass_size", lambda height, width, device, **_: 4)
    images, targets = torch.zeros(5, 3, 8, 8).double(), torch.tensor([4, 0, 2, 1, 3])
    got = {}
    passes.accumulate_passes(
        linear, images, targets, 3,
        vary=lambda image, start, stop: images[image].expand(stop - start, -1, -1, -1),
        collect=lambda image, start, stop, maps: got.update({(image, start + i): map_ for i, map_ in enumerate(maps)}),
    )  # fmt: skip
    assert len(got) == 15
    weights = linear.layer.weight.detach().reshape(5, 3, 8, 8)
    for (image, _), gradient in got.items():
        torch.testing.assert_close(gradient, weights[targets[image]])
