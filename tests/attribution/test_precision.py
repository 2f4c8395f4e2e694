"""Mixed precision: on inside the network's passes, off around them, off again after a pass that failed."""

import pytest
import torch
from torch import nn

from roarline.attribution.precision import mixed_passes


class Network(nn.Module):
    """Notes whether its passes are mixed; fails if told."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.mixed, self.fails = [], False

    def forward(self, images):
        self.mixed.append(torch.is_autocast_enabled("cpu"))
        if self.fails:
            raise RuntimeError("midway")
        return self.linear(images)


def test_passes_are_mixed_and_what_is_around_them_is_not():
    model, inputs = Network(), torch.rand(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with mixed_passes(model, "cpu"):
            logits = model(inputs)
            assert (inputs @ inputs.T).dtype == torch.float32
        assert (inputs @ inputs.T).dtype == torch.bfloat16
    assert model.mixed == [True]
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits.bfloat16().float())  # it was computed in bfloat16
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_does_nothing_where_the_caller_asks_for_nothing():
    model = Network()
    with mixed_passes(model, "cpu"):
        model(torch.rand(2, 4))
        assert not model._forward_hooks
    assert model.mixed == [False]


def test_a_pass_that_fails_leaves_autocast_as_it_was():
    model = Network()
    model.fails = True
    with torch.autocast("cpu", torch.bfloat16), mixed_passes(model, "cpu"):
        with pytest.raises(RuntimeError, match="midway"):
            model(torch.rand(2, 4))
        assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    assert not model._forward_hooks
