"""The model is as it was after a method had it, and a method that changes it is found out."""

import pytest
import torch

from roarline.attribution.model_state import frozen, guarded
from roarline.errors import MethodError


def _state(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [
            (dict(module._forward_hooks), dict(module._forward_pre_hooks), dict(module._backward_hooks))
            for module in model.modules()
        ],
        [parameter.grad for parameter in model.parameters()],
    )


def _mix(model):
    """A state that is neither all one nor all the other."""
    model.train()
    model.dropout.eval()
    model.conv1.weight.requires_grad_(False)
    model.conv2.register_forward_hook(lambda module, args, output: None)
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_gives_evaluation_mode_and_puts_every_flag_back(convnet, fails):
    before = _state(_mix(convnet))
    with pytest.raises(KeyError) if fails else frozen(convnet), frozen(convnet):
        assert not any(module.training for module in convnet.modules())
        assert not any(parameter.requires_grad for parameter in convnet.parameters())
        if fails:
            raise KeyError
    assert _state(convnet) == before


@pytest.mark.parametrize("fails", [False, True])
def test_guarded_takes_off_hooks_and_resets_modes_flags_and_gradients(convnet, images, fails):
    before = _state(_mix(convnet))

    def misbehave():
        for module in convnet.modules():
            module.register_forward_hook(lambda *_: None)
            module.register_forward_pre_hook(lambda *_: None)
            module.register_full_backward_hook(lambda *_: None)
        convnet.eval()
        convnet.requires_grad_(True)
        convnet(images.clone().requires_grad_()).sum().backward()
        if fails:
            raise KeyError

    with pytest.raises(KeyError) if fails else frozen(convnet), frozen(convnet), guarded(convnet, "mine"):
        misbehave()
    assert _state(convnet) == before


def test_a_changed_weight_is_an_error_that_names_it(convnet):
    def change():
        with torch.no_grad():
            convnet.conv2.weight.mul_(2)

    with pytest.raises(MethodError, match=r"mine: changed the model itself \(conv2.weight\)"), guarded(convnet, "mine"):
        change()


def test_running_statistics_that_move_in_training_mode_are_an_error(convnet, images):
    def forget_eval():
        convnet.train()
        convnet(images)

    with pytest.raises(MethodError, match=r"norm\.num_batches_tracked"), guarded(convnet, "mine"):
        forget_eval()
