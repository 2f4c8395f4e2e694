"""Out of memory: the passes are halved, one warning is given, and the maps stay the same."""

import warnings

import pytest
import torch
from torch import nn

from roarline.attribution.call import MethodCall, attribute, find_method
from roarline.attribution.memory import MemoryWarning, PassLimit
from roarline.config.component import Smooth
from roarline.errors import ModelError
from roarline.models.passes import at_most, pass_size

CPU = torch.device("cpu")


class Small(nn.Module):
    """A network on a device that holds ``fits`` images at once."""

    def __init__(self, inner: nn.Module, fits: int) -> None:
        super().__init__()
        self.inner, self.fits, self.sizes = inner, fits, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(images)


def run(model, images, targets, method, limit=None):
    ids = [str(row) for row in range(len(images))]
    return attribute(
        model, images, targets, method, seed_of=lambda row, target: 10 * row + target, sample_ids=ids, limit=limit
    )  # fmt: skip


METHODS = {
    "one pass": find_method("gradient", {}),
    "several passes": find_method("integrated_gradients", {"steps": 5}),
    "draws": find_method("smoothgrad", {"samples": 5}),
    "control": find_method("random", {}),
    "smoothed": find_method("input_x_gradient", {}, smooth=Smooth(samples=5)),
    "one image a call": MethodCall(
        "mine", lambda model, image, label: image[0] * model(image)[0, label], batched=False
    ),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("fits", [1, 3])
def test_maps_stay_the_same(convnet, images, targets, name, fits):
    convnet.eval()
    expected = run(convnet, images, targets, METHODS[name])
    small = Small(convnet, fits).eval()
    with pytest.warns(MemoryWarning, match="going on with") as caught:
        found = run(small, images, targets, METHODS[name])
    assert len(caught) == 1
    torch.testing.assert_close(found.maps, expected.maps)
    torch.testing.assert_close(found.logits, expected.logits)
    assert torch.equal(found.targets, expected.targets)
    assert max(size for size in small.sizes if size <= fits) >= fits // 2 + 1  # it does not fall to 1 at once


def test_the_limit_is_kept_for_the_next_batch(convnet, images, targets):
    small, limit = Small(convnet.eval(), 2), PassLimit()
    with pytest.warns(MemoryWarning):
        run(small, images, targets, METHODS["several passes"], limit)
    assert limit.images is not None
    assert limit.images <= 2
    small.sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(small, images, targets, METHODS["several passes"], limit)
    assert max(small.sizes) <= 2


def test_a_single_image_too_much_is_said_plainly(convnet, images, targets):
    with pytest.warns(MemoryWarning), pytest.raises(ModelError, match="single image"):
        run(Small(convnet, 0), images, targets, METHODS["one pass"])


def test_other_errors_are_not_taken_for_it(convnet, images, targets):
    def fail(model, inputs, classes):
        raise RuntimeError("something else")

    with pytest.raises(Exception, match="something else"):
        run(convnet, images, targets, MethodCall("mine", fail))


def test_the_limit_ends_with_its_block():
    rule = pass_size(32, 32, CPU)
    with at_most(3):
        assert pass_size(32, 32, CPU) == 3
    assert pass_size(32, 32, CPU) == rule
    with at_most(None):
        assert pass_size(32, 32, CPU) == rule
