"""Masked scores: every (image, mask) once, in full passes, whatever the batch, the layout and the shared images."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from roarline.attribution.masked import (
    _tiles,
    baseline_image,
    distinct_images,
    masked_class_scores,
    masked_target_scores,
    memory_format_of,
    score_classes,
)
from roarline.errors import MethodError
from roarline.imaging.smoothing import gaussian_blur
from roarline.models.passes import at_most


class Watched(nn.Module):
    """A network that keeps what it is given."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.inputs = inner, []

    def forward(self, images):
        self.inputs.append(images.clone())
        return self.inner(images)


@pytest.fixture
def watched(convnet):
    return Watched(convnet).eval()


def random_masks(count, images=4, seed=3):
    drawn = torch.rand(images, count, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn, lambda rows, copies: drawn[rows, copies]


@given(images=st.integers(1, 9), count=st.integers(1, 70), size=st.integers(1, 17))
def test_tiles_hold_every_image_under_every_mask_once(images, count, size):
    found, passes = [], 0
    for copies, groups in _tiles(images, count, size):
        for rows in groups:
            pairs = [(row, copy) for row in range(images)[rows] for copy in range(count)[copies]]
            assert 0 < len(pairs) <= size
            found += pairs
            passes += 1
    assert len(found) == images * count
    assert set(found) == {(row, copy) for row in range(images) for copy in range(count)}
    # No image takes more passes than it needs, and images share one where there is room for two.
    assert passes <= images * math.ceil(count / size)
    assert count * 2 > size or passes <= math.ceil(images / (size // count))


@pytest.mark.parametrize("score", ["logit", "softmax", "sigmoid"])
def test_scores_are_those_of_each_masked_image_alone(convnet, images, targets, score):
    convnet.eval()
    drawn, masks = random_masks(5)
    fill = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
    found = masked_target_scores(convnet, images, targets, 5, masks, fill, score)
    functions = {"logit": lambda x: x, "softmax": lambda x: x.softmax(1), "sigmoid": torch.sigmoid}
    for row in range(4):
        for copy in range(5):
            altered = drawn[row, copy] * images[row] + (1 - drawn[row, copy]) * 0.3
            expected = functions[score](convnet(altered[None]))[0, targets[row]].detach()
            torch.testing.assert_close(found[row, copy], expected)


def test_masks_of_0_and_1_put_exactly_the_fill_and_exactly_the_image(watched, images, targets):
    binary = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    fill = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    masked_target_scores(watched, images, targets, 3, lambda rows, copies: binary[rows, copies].double(), fill)
    seen = torch.cat(watched.inputs).reshape(4, 3, 3, 8, 8)
    assert torch.equal(seen, torch.where(binary[:, :, None], images[:, None], fill[:, None]))


def test_rows_of_the_same_image_go_through_the_network_once(watched, images, targets):
    drawn, masks = random_masks(6)
    four = images[[0, 1, 0, 0]]
    fill = four.mean(dim=(2, 3), keepdim=True)
    expected = masked_target_scores(
        watched, four, targets, 6, lambda rows, copies: drawn[[0, 1, 0, 0]][rows, copies], fill
    )
    assert sum(len(inputs) for inputs in watched.inputs) == 24
    watched.inputs.clear()
    found = masked_target_scores(watched, four, targets, 6, masks, fill, image_index=[7, 2, 7, 7])
    assert sum(len(inputs) for inputs in watched.inputs) == 12
    torch.testing.assert_close(found, expected)


@given(index=st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_distinct_images_name_first_rows_and_give_each_row_a_place_of_its_own(index):
    rows, image, slot = distinct_images(index, len(index))
    assert [index[row] for row in rows] == list(dict.fromkeys(index))
    assert all(index.index(index[row]) == row for row in rows)
    assert [index[rows[i]] for i in image] == index
    assert len(set(zip(image, slot, strict=True))) == len(index)


def test_without_an_index_every_row_is_an_image_of_its_own():
    assert distinct_images(None, 3) == ([0, 1, 2], [0, 1, 2], [0, 0, 0])


def test_shared_masks_are_made_once_however_many_images(convnet, images, targets):
    convnet.eval()
    drawn, _ = random_masks(10, images=1)
    asked = []

    def masks(rows, copies):
        asked.append((rows, copies))
        return drawn[:, copies]

    fill = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    with at_most(4):
        found = masked_target_scores(convnet, images, targets, 10, masks, fill, shared=True)
    assert [rows for rows, _ in asked] == [slice(0, 1)] * 3
    assert sorted(copy for _, copies in asked for copy in range(10)[copies]) == list(range(10))
    own = masked_target_scores(convnet, images, targets, 10, lambda rows, copies: drawn[:, copies], fill)
    torch.testing.assert_close(found, own)


def test_no_pass_is_larger_than_the_limit_whatever_the_number_of_masks(watched, images, targets):
    """Memory doesn't grow with the number of masks: only their scores do."""
    for count in (3, 40):
        watched.inputs.clear()
        with at_most(8):
            masked_target_scores(watched, images, targets, count, random_masks(count)[1], images[:1] * 0)
        assert max(len(inputs) for inputs in watched.inputs) <= 8
        assert len(watched.inputs) == math.ceil(count / 8) * 4 // (2 if count == 3 else 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_network_sees_the_memory_format_of_the_images(convnet, images, targets, memory_format):
    formats = []
    convnet.eval().register_forward_pre_hook(lambda module, args: formats.append(memory_format_of(args[0])))
    laid_out = images.contiguous(memory_format=memory_format)
    for index in (None, [0, 1, 0, 2]):
        masked_target_scores(convnet, laid_out, targets, 3, random_masks(3)[1], images[:1] * 0, image_index=index)
    assert set(formats) == {memory_format}


def test_a_network_that_writes_into_its_input_spoils_nothing(convnet, images, targets):
    convnet.eval()
    masks = random_masks(20)[1]
    expected = masked_target_scores(convnet, images, targets, 20, masks, images[:1] * 0)
    before = images.clone()

    def overwrite(module, args, output):
        args[0].zero_()

    convnet.register_forward_hook(overwrite)
    with at_most(4):
        found = masked_target_scores(convnet, images, targets, 20, masks, images[:1] * 0)
    torch.testing.assert_close(found, expected)
    assert torch.equal(images, before)


def test_all_classes_scores_hold_every_targets_scores(convnet, images, targets):
    convnet.eval()
    _, masks = random_masks(7)
    fill = images[:1] * 0
    every = masked_class_scores(convnet, images, 7, masks, fill, "softmax")
    assert every.shape == (4, 7, 5)
    torch.testing.assert_close(every.sum(dim=2), torch.ones(4, 7, dtype=torch.float64))
    mine = masked_target_scores(convnet, images, targets, 7, masks, fill, "softmax")
    torch.testing.assert_close(every[torch.arange(4), :, targets], mine)


def test_log_odds_are_those_of_the_softmax_probability():
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    torch.testing.assert_close(score_classes(logits, "log_odds"), torch.logit(logits.softmax(1)))


def test_log_odds_tell_apart_what_probabilities_round_to_0_and_1():
    logits = torch.tensor([[240.0, 0.0, 1.0], [241.0, 0.0, 1.0]])
    assert logits.softmax(1)[:, 0].unique().numel() == 1
    odds = score_classes(logits, "log_odds")
    assert odds[1, 0] > odds[0, 0]
    assert odds.isfinite().all()


def test_baselines():
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert baseline_image(0.25, images).tolist() == [[[[0.25]]]]
    assert baseline_image(1, images).dtype == torch.float64
    torch.testing.assert_close(baseline_image("image_mean", images)[1, 2, 0, 0], images[1, 2].mean())
    torch.testing.assert_close(baseline_image("blur", images), gaussian_blur(images, 0.8))


def test_unknown_scores_and_baselines_are_refused_by_name():
    with pytest.raises(MethodError, match=r"'probability'.*logit, softmax"):
        score_classes(torch.zeros(1, 2), "probability")
    with pytest.raises(MethodError, match=r"'black'.*image_mean"):
        baseline_image("black", torch.zeros(1, 3, 4, 4))


def test_nothing_is_recorded_for_a_backward_pass(convnet, images, targets):
    convnet.eval()
    assert torch.is_grad_enabled()
    found = masked_target_scores(convnet, images, targets, 3, random_masks(3)[1], images[:1] * 0)
    assert not found.requires_grad
    assert not found.is_inference()
    assert not masked_class_scores(convnet, images, 3, random_masks(3)[1], images[:1] * 0, "logit").is_inference()
    assert torch.is_grad_enabled()
