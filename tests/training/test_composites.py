"""Composites: the tiles stand where the original puts them, and draws keep what they promise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roarline.errors import DataError
from roarline.training.composites import Companions, composites, placed
from tests.golden_cases import case


def test_composites_equal_those_of_consistent_interpretations():
    arrays, _ = case("s2_composite")
    images = torch.from_numpy(arrays["in_images_low"])
    negatives = images[torch.from_numpy(arrays["in_negatives_in_draw_order"])]
    ours = composites(images[:1].expand(4, -1, -1, -1), negatives, torch.arange(4))
    assert torch.equal(ours, torch.from_numpy(arrays["out_composite_low"]))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_a_placed_map_lies_where_its_image_lies_in_the_composite(rows, height, width):
    quadrants = torch.arange(rows) % 4
    maps = torch.rand(rows, height, width, generator=torch.Generator().manual_seed(rows)) + 1
    nothing = torch.zeros(rows, 3, 1, height, width)
    assert torch.equal(placed(maps, quadrants), composites(maps[:, None], nothing, quadrants)[:, 0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_negatives_are_of_other_classes_each_class_as_likely_whatever_its_size():
    labels = torch.tensor([0] * 5 + [3] * 90 + [7] * 5)  # classes without an image between them
    drawn = Companions(labels).draw(generator())
    of_negatives = labels[drawn.negatives_N3]
    assert not bool((of_negatives == labels[:, None]).any())
    of_big = of_negatives[labels == 3].flatten()  # 270 draws, of which a half each is expected: 4 σ are 33
    assert abs(int((of_big == 0).sum()) - 135) < 34
    assert torch.equal(drawn.targets_N, labels)
    assert set(drawn.quadrants_N.tolist()) == {0, 1, 2, 3}


def test_two_negatives_may_share_a_class():
    drawn = Companions(torch.tensor([0, 0, 0, 1, 1, 1])).draw(generator())
    assert drawn.negatives_N3.shape == (6, 3)  # of one other class only


def test_draws_follow_the_generator_alone():
    companions = Companions(torch.arange(40) % 4)
    first, second, other = companions.draw(generator(1)), companions.draw(generator(1)), companions.draw(generator(2))
    assert torch.equal(first.negatives_N3, second.negatives_N3)
    assert torch.equal(first.quadrants_N, second.quadrants_N)
    assert not torch.equal(first.negatives_N3, other.negatives_N3)


def several_labels() -> torch.Tensor:
    labels = (torch.rand(200, 5, generator=generator(3)) < 0.3).float()
    labels[:10] = 0
    return labels


def test_of_several_labels_the_target_is_shown_and_its_negatives_are_three_that_show_something_else():
    labels = several_labels()
    drawn = Companions(labels).draw(generator())
    shows_something = labels.any(1)
    assert torch.equal(drawn.targets_N >= 0, shows_something)
    for row in torch.nonzero(shows_something)[:, 0].tolist():
        target, negatives = int(drawn.targets_N[row]), drawn.negatives_N3[row]
        assert labels[row, target] == 1
        assert len(set(negatives.tolist())) == 3
        assert bool(shows_something[negatives].all())
        assert not bool(labels[negatives, target].any())


def test_targets_are_drawn_by_the_number_of_objects():
    labels = torch.tensor([[1.0, 1.0, 0.0]] * 2000 + [[0.0, 0.0, 1.0]] * 3)
    objects = torch.tensor([[1.0, 4.0, 0.0]] * 2000 + [[0.0, 0.0, 2.0]] * 3)
    share = float((Companions(labels, objects).draw(generator()).targets_N[:2000] == 1).double().mean())
    assert share == pytest.approx(0.8, abs=0.036)  # 4 σ of 2000 draws


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), "2 classes or more"),
        (torch.tensor([[1.0, 1.0]] * 5 + [[1.0, 0.0], [0.0, 0.0]])[:5], "not each other's classes"),
    ],
)
def test_images_that_all_show_the_same_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        Companions(labels)


def test_where_negatives_are_few_they_stand_more_than_once_and_a_class_without_any_is_no_target():
    # everything shows class 0; class 1 is missing in two images
    labels = torch.tensor([[1.0, 1.0]] * 6 + [[1.0, 0.0]] * 2)
    drawn = Companions(labels).draw(generator())
    assert drawn.targets_N.tolist() == [1] * 6 + [-1] * 2
    assert set(drawn.negatives_N3[:6].flatten().tolist()) == {6, 7}
