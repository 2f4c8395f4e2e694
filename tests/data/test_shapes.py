"""The drawn shapes: everything that is said of an image is true of its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import f_oneway

from roarline.config.dataset_params import ShapesParams
from roarline.data.shapes import SHAPES, VISIBLE_SHARE, Drawing, read
from roarline.errors import DataError

EXACT_AREA = {  # in units of the radius squared
    "circle": np.pi,
    "square": 2.0,
    "triangle": 3 * np.sqrt(3) / 4,
    "star": 5 * 0.42 * np.sin(np.pi / 5),
    "cross": 2 * (2 * 0.28) * (2 * 0.96) - (2 * 0.28) ** 2,
    "ring": np.pi * (1 - 0.3),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_has_the_area_of_its_formula_and_lies_in_the_unit_circle(kind: str) -> None:
    steps = 1000
    side = (np.arange(steps) + 0.5) / steps * 2.2 - 1.1
    u, v = np.broadcast_to(side[None, :], (steps, steps)), np.broadcast_to(side[:, None], (steps, steps))
    inside = SHAPES[kind](u, v)
    assert inside.mean() * 2.2**2 == pytest.approx(EXACT_AREA[kind], rel=5e-3)
    assert np.hypot(u, v)[inside].max() <= 1 + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**62), st.integers(16, 48), st.integers(1, 2), st.integers(0, 3))
def test_labels_boxes_and_segmentation_agree(seed: int, size_px: int, fewest: int, more: int) -> None:
    params = ShapesParams(size_px=size_px, train=4, test=2, min_shapes=fewest, max_shapes=fewest + more)
    raw = read(None, params, seed)
    raw.check()
    masks = raw.segmentation[np.arange(6)]
    for row, mask in enumerate(masks):
        present = set(np.unique(mask).tolist()) - {0}
        labels = np.flatnonzero(raw.labels[row]) if raw.multi_label else raw.labels[row : row + 1]
        assert present == {int(label) + 1 for label in labels}
        boxes = raw.boxes[raw.boxes[:, 0] == row]
        assert fewest <= len(boxes) <= fewest + more
        for label in present:
            ys, xs = np.nonzero(mask == label)
            of_class = boxes[boxes[:, 1] == label - 1]
            assert (of_class[:, 2].min(), of_class[:, 3].min()) == (xs.min(), ys.min())
            assert (of_class[:, 4].max(), of_class[:, 5].max()) == (xs.max(), ys.max())


def test_the_box_of_a_single_shape_is_the_extent_of_its_segmentation() -> None:
    raw = read(None, ShapesParams(train=30, test=10, max_shapes=1), 3)
    assert not raw.multi_label
    assert raw.labels.shape == (40,)
    assert len(raw.boxes) == 40
    for (row, label, x0, y0, x1, y1), mask in zip(raw.boxes, raw.segmentation[np.arange(40)], strict=True):
        assert raw.labels[row] == label
        seen = np.zeros_like(mask, dtype=bool)
        seen[y0 : y1 + 1, x0 : x1 + 1] = mask[y0 : y1 + 1, x0 : x1 + 1] == label + 1
        assert np.array_equal(seen, mask > 0)
        for edge in (seen[y0, x0 : x1 + 1], seen[y1, x0 : x1 + 1], seen[y0 : y1 + 1, x0], seen[y0 : y1 + 1, x1]):
            assert edge.any()


def test_what_others_hide_leaves_the_promised_share() -> None:
    drawing, hidden = Drawing(ShapesParams(min_shapes=4, max_shapes=5), 0), 0
    for row in range(100):
        layout = drawing.layout(row)
        for number, full_px in enumerate(layout.full_px, start=1):
            seen = np.count_nonzero(layout.owner == number)
            assert seen >= VISIBLE_SHARE * full_px
            hidden += seen < full_px
    assert hidden > 50  # the images do have occlusion


def test_an_image_depends_on_seed_split_and_index_only() -> None:
    few, many = (read(None, ShapesParams(train=train, test=3), 5) for train in (4, 9))
    assert np.array_equal(few.images[np.arange(4)], many.images[np.arange(4)])
    assert np.array_equal(few.images[np.arange(4, 7)], many.images[np.arange(9, 12)])
    assert np.array_equal(few.segmentation[np.arange(4, 7)], many.segmentation[np.arange(9, 12)])
    assert few.sample_ids[4:] == many.sample_ids[9:] == ["test/000000", "test/000001", "test/000002"]
    assert not np.array_equal(few.images[np.arange(3)], few.images[np.arange(4, 7)])
    assert not np.array_equal(
        few.images[np.arange(4)], read(None, ShapesParams(train=4, test=3), 6).images[np.arange(4)]
    )


def test_without_noise_each_shape_has_one_colour_far_from_the_background() -> None:
    drawing = Drawing(ShapesParams(noise=0.0, max_shapes=1), 1)
    for row in range(20):
        image, seen = drawing.image(row).astype(int), drawing.layout(row).owner == 1
        inside, outside = np.unique(image[:, seen], axis=1), np.unique(image[:, ~seen], axis=1)
        assert inside.shape[1] == outside.shape[1] == 1
        assert np.abs(inside - outside).max() >= 0.4 * 255 - 1


def test_colour_says_nothing_about_the_class() -> None:
    drawing = Drawing(ShapesParams(noise=0.0, max_shapes=1), 2)
    colours: dict[int, list[np.ndarray]] = {kind: [] for kind in range(len(SHAPES))}
    for row in range(600):
        layout = drawing.layout(row)
        colours[layout.kinds[0]].append(drawing.image(row)[:, layout.owner == 1][:, 0])
    for channel in range(3):
        assert f_oneway(*([colour[channel] for colour in of_kind] for of_kind in colours.values())).pvalue > 1e-3


def test_more_shapes_than_fit_are_an_error() -> None:
    with pytest.raises(DataError, match="40 shapes don't fit into 16×16 px"):
        read(None, ShapesParams(size_px=16, train=1, test=1, min_shapes=40, max_shapes=40), 0)


def test_fewest_above_most_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValidationError, match="min_shapes 2 is above max_shapes 1"):
        ShapesParams(min_shapes=2, max_shapes=1)
