"""The picture of `roarline explain`: its panels, the scale of its colours, what it refuses."""

import numpy as np
import pytest
from PIL import Image

from roarline.errors import UserInputError
from roarline.report.explanation import Explanation, draw


def explanation(map_HW):
    grey = np.full((*map_HW.shape, 3), 128, dtype=np.uint8)
    return Explanation(
        title="photo.png: class 1, 90 %", subtitle="mine on net", method="mine", picture=grey, map_HW=map_HW,
        masked=grey, kept_fraction=0.2,
    )  # fmt: skip


def colours(path):
    """Colours of the picture that are neither grey nor nearly so."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    return pixels[np.ptp(pixels, axis=1) > 60]


def test_signed_maps_are_blue_and_red_around_zero(tmp_path):
    ramp = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    draw(explanation(ramp), tmp_path / "a.png")
    seen = colours(tmp_path / "a.png")
    red, blue = (seen[:, 0] > seen[:, 2] + 60).sum(), (seen[:, 2] > seen[:, 0] + 60).sum()
    assert min(red, blue) > 0.7 * max(red, blue)


def test_a_map_without_negative_values_uses_the_sequential_scale(tmp_path):
    draw(explanation(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), tmp_path / "a.png")
    seen = colours(tmp_path / "a.png")
    assert ((seen[:, 1] > 200) & (seen[:, 2] < 80)).any()  # the scale's yellow end


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-30])
def test_constant_maps_are_drawn(tmp_path, value):
    draw(explanation(np.full((8, 12), value, dtype=np.float32)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_same_explanation_gives_the_same_bytes(tmp_path):
    ramp = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    for name in ("a.png", "b.png"):
        draw(explanation(ramp), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    flat = explanation(np.ones((4, 4), dtype=np.float32))
    draw(Explanation(**{**vars(flat), "title": "$x_$ and $"}), tmp_path / "a.png")


def test_other_formats_are_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(UserInputError, match=r"ends in \.png"):
        draw(explanation(np.ones((4, 4), dtype=np.float32)), tmp_path / "a.jpeg")
