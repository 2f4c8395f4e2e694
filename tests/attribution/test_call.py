"""Calling methods: both styles of the user's own, and everything they may return that is unusable."""

import random

import numpy as np
import pytest
import torch

from roarline.attribution import controls, gradient
from roarline.attribution.call import MethodCall, attribute, find_method
from roarline.errors import MethodError, ModelError, UserInputError

IDS = ["a", "b", "c", "d"]


def call(model, images, targets, function, *, batched=True, **params):
    method = MethodCall("mine", function, params, batched=batched)
    return attribute(model, images, targets, method, seed_of=lambda row, target: 100 * row + target, sample_ids=IDS)


def test_batched_function_gets_images_resolved_targets_and_params(convnet, images):
    seen = {}

    def mine(model, given, classes, knob=1):
        seen.update(training=model.training, shape=given.shape, classes=classes, knob=knob)
        return given.sum(dim=1)

    result = call(convnet, images, torch.tensor([-1, 2, -1, 0]), mine, knob=3)
    logits = convnet.eval()(images).detach()
    expected = logits.argmax(dim=1)
    expected[1], expected[3] = 2, 0
    assert (seen["training"], seen["shape"], seen["knob"]) == (False, images.shape, 3)
    assert torch.equal(seen["classes"], expected)
    assert torch.equal(result.targets, expected)
    torch.testing.assert_close(result.logits, logits)
    torch.testing.assert_close(result.maps, images.sum(dim=1))


def test_unbatched_function_gets_one_image_and_a_scalar_label_as_the_original_calls_it(convnet, images, targets):
    seen = []

    def mine(model, image, label):
        seen.append((tuple(image.shape), label.ndim, int(label)))
        return np.repeat(image[0, :1].numpy(), 3, axis=0)  # the original's contract: an array of 3 × H × W

    maps = call(convnet, images, targets, mine, batched=False).maps
    assert seen == [((1, 3, 8, 8), 0, int(target)) for target in targets]
    torch.testing.assert_close(maps, images[:, :1].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("batched", [True, False])
def test_both_styles_of_one_method_give_the_same_maps(convnet, images, targets, batched):
    def mine(model, given, classes):
        given = given.clone().requires_grad_()
        model(given).gather(1, classes.reshape(-1, 1)).sum().backward()
        return given.grad

    maps = call(convnet, images, targets, mine, batched=batched).maps
    torch.testing.assert_close(maps, gradient.gradient(convnet.eval(), images, targets))


@pytest.mark.parametrize(
    ("shape", "kept"), [((4, 8, 8), (4, 8, 8)), ((4, 3, 8, 8), (4, 3, 8, 8)), ((4, 1, 8, 8), (4, 8, 8))]
)
def test_shapes_a_batched_function_may_return(convnet, images, targets, shape, kept):
    assert call(convnet, images, targets, lambda *_: np.zeros(shape)).maps.shape == kept


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((8, 8), (4, 8, 8)),
        ((3, 8, 8), (4, 3, 8, 8)),
        ((1, 8, 8), (4, 8, 8)),
        ((1, 3, 8, 8), (4, 3, 8, 8)),
        ((1, 1, 8, 8), (4, 8, 8)),
    ],
)
def test_shapes_an_unbatched_function_may_return(convnet, images, targets, shape, kept):
    assert call(convnet, images, targets, lambda *_: torch.zeros(shape), batched=False).maps.shape == kept


@pytest.mark.parametrize("shape", [(8, 8), (4, 8), (4, 8, 9), (3, 8, 8), (4, 2, 8, 8), (4, 3, 8, 8, 1), ()])
def test_wrong_shape_of_a_batch_says_what_came_and_what_was_expected(convnet, images, targets, shape):
    with pytest.raises(MethodError) as caught:
        call(convnet, images, targets, lambda *_: torch.zeros(shape))
    for words in ("mine", str(list(shape)), "[4, 8, 8]", "[4, 3, 8, 8]", "'a'", "batched: false"):
        assert words in str(caught.value)


def test_wrong_shape_of_one_image_names_the_sample(convnet, images, targets):
    shapes = iter([(8, 8), (8, 8), (4, 4), (8, 8)])
    with pytest.raises(MethodError, match=r"mine: returned shape \[4, 4\] for sample 'c', expected \[8, 8\]"):
        call(convnet, images, targets, lambda *_: torch.zeros(next(shapes)), batched=False)


def test_maps_with_and_without_channels_do_not_mix(convnet, images, targets):
    shapes = iter([(8, 8), (8, 8), (3, 8, 8), (8, 8)])
    with pytest.raises(MethodError, match="different shapes"):
        call(convnet, images, targets, lambda *_: torch.zeros(next(shapes)), batched=False)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "a NoneType"),
        ([[1.0]], "a list"),
        (np.array([["x"]]), "an array of <U1"),
        (torch.zeros(4, 8, 8, dtype=torch.complex64), "complex values"),
    ],
)
def test_what_is_no_map_is_refused(convnet, images, targets, returned, words):
    with pytest.raises(MethodError, match=words):
        call(convnet, images, targets, lambda *_: returned)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_real_dtypes_become_floating(convnet, images, targets, dtype):
    assert call(convnet, images, targets, lambda *_: torch.ones(4, 8, 8, dtype=dtype)).maps.is_floating_point()


def test_unknown_parameter_names_the_signature(convnet, images, targets):
    def mine(model, given, classes, *, sigma: float = 1.0):
        return given

    with pytest.raises(
        MethodError, match=r"'knob'; its signature is \(model, given, classes, \*, sigma: float = 1.0\)"
    ):
        call(convnet, images, targets, mine, knob=3)


@pytest.mark.parametrize(("batched", "where"), [(True, r"'a' \(first of its batch.*\)"), (False, "'a'")])
def test_an_exception_of_the_users_keeps_its_message_and_leaves_the_model_as_it_was(
    convnet, images, targets, batched, where
):
    def mine(model, given, classes):
        model.conv1.register_forward_hook(lambda *_: None)
        raise TypeError("inside")

    convnet.train()
    with pytest.raises(MethodError, match=f"mine: failed at sample {where}: TypeError: inside") as caught:
        call(convnet, images, targets, mine, batched=batched)
    assert isinstance(caught.value.__cause__, TypeError)
    assert convnet.training
    assert not convnet.conv1._forward_hooks


def test_roarlines_own_errors_pass_unchanged(convnet, images, targets):
    def mine(model, given, classes):
        raise ModelError("no such layer")

    with pytest.raises(ModelError, match=r"^no such layer$"):
        call(convnet, images, targets, mine)


def test_a_changed_weight_is_an_error(convnet, images, targets):
    def mine(model, given, classes):
        with torch.no_grad():
            model.linear.weight.zero_()
        return given

    with pytest.raises(MethodError, match=r"linear\.weight"):
        call(convnet, images, targets, mine)


@pytest.mark.parametrize("batched", [True, False])
def test_global_random_numbers_are_seeded_from_the_row_and_put_back(convnet, images, targets, batched):
    def mine(model, given, classes):
        noise = torch.rand(8, 8) + float(np.random.rand()) + random.random()  # noqa: NPY002 (as a user might)
        return noise if given.shape[0] == 1 else noise.expand(4, 8, 8)

    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    first = call(convnet, images, targets, mine, batched=batched).maps
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    torch.testing.assert_close(call(convnet, images, targets, mine, batched=batched).maps, first, rtol=0, atol=0)
    if not batched:
        assert not torch.equal(first[0], first[1])


def test_random_control_gets_seeds_of_row_and_chosen_target(convnet, images, targets):
    method = find_method("random", {})
    result = attribute(convnet, images, targets, method, seed_of=lambda row, target: 100 * row + target, sample_ids=IDS)
    expected = controls.random(convnet, images, targets, seeds=[100 * row + int(t) for row, t in enumerate(targets)])
    assert torch.equal(result.maps, expected)


def test_dotted_path_is_found_and_unknown_name_refused():
    method = find_method("roarline.attribution.gradient.gradient", {})
    assert not method.builtin
    assert method.function is gradient.gradient
    with pytest.raises(UserInputError, match="neither a known name nor a dotted path"):
        find_method("gradcamm", {})
