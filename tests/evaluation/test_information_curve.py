"""Information curves: the authors' rule in plain loops, best and worst curves, statuses, sizes of files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.interpolate import interp1d
from torch import Tensor

from roarline.evaluation.information_curve import area_under_information, as_pixels, compressed_sizes
from roarline.evaluation.outcomes import OUTCOMES


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def area(sizes: list[float], scores: list[float], least: float = 0.0, *, monotone: bool = True) -> tuple[float, str]:
    found = area_under_information(
        torch.tensor([sizes]), torch.tensor([scores]), torch.tensor([scores[-1]]), least_probability=least,
        monotone=monotone,
    )  # fmt: skip
    return found.values.item(), OUTCOMES[int(found.outcomes[0])]


def published(sizes: np.ndarray, scores: np.ndarray, *, monotone: bool) -> float:
    """The rule of the authors' code, an image at a time, sampled a hundred times as finely."""
    points, best = [], 0.0
    for size, score in zip(sizes[1:-1], scores[1:-1], strict=True):
        information = np.clip((size - sizes[0]) / (sizes[-1] - sizes[0]), 0, 1)
        performance = np.clip((score - scores[0]) / (scores[-1] - scores[0]), 0, 1)
        best = max(best, performance)
        points.append((information, best if monotone else performance))
    x, y = zip(*points, (0.0, 0.0), (1.0, 1.0), strict=True)
    where = np.linspace(0, 1, 100_001)
    return float(np.trapezoid(interp1d(x, y)(where), where))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.booleans())
def test_as_the_authors_code(seed: int, monotone: bool) -> None:
    generator = np.random.default_rng(seed)
    sizes, scores = generator.integers(100, 200, 9).astype(float), generator.random(9)
    sizes[[0, -1]], scores[[0, -1]] = (110, 190), (scores.min() / 2, scores.max())
    found, status = area(sizes.tolist(), scores.tolist(), monotone=monotone)
    assert status == "ok"
    # Vertical steps are smeared over 1e-5 of the axis by sampling; float32 scores.
    assert found == pytest.approx(published(sizes, scores, monotone=monotone), abs=1e-4)


def test_best_and_worst() -> None:
    early, late = area([0, 1, 500, 1000], [0, 1, 1, 1])[0], area([0, 500, 999, 1000], [0, 0, 0, 1])[0]
    assert early == pytest.approx(1, abs=1e-3)
    assert late == pytest.approx(0, abs=1e-3)
    assert area([0, 250, 500, 1000], [0, 0.25, 0.5, 1])[0] == pytest.approx(0.5)


def test_monotone_curves_never_fall() -> None:
    falls = ([0.0, 50.0, 75.0, 100.0], [0.0, 1.0, 0.0, 1.0])
    assert area(*falls)[0] == pytest.approx(0.25 + 0.5)
    assert area(*falls, monotone=False)[0] == pytest.approx(0.25 + 0.125 + 0.125)


def test_what_lies_beyond_the_ends_is_cut_off() -> None:
    inside = area([10, 10, 90, 90], [0.2, 0.2, 0.8, 0.8])
    assert area([10, 5, 120, 90], [0.2, 0.0, 0.9, 0.8]) == inside


def test_rows_whose_ends_cannot_be_told_apart_fail() -> None:
    assert (
        area([10, 20, 30], [0.5, 0.6, 0.5])[1]
        == "the classifier says no more of the whole image than of the blurred one"
    )
    assert area([30, 20, 30], [0.1, 0.6, 0.5])[1] == "the blurred image takes as many bytes as the whole one"
    assert area([10, 20, 30], [0.1, torch.nan, 0.5])[1] == "the classifier's output is NaN or infinite"
    assert area([10, 20, 30], [0.1, 0.3, 0.5], least=0.6)[1] == "the target's probability on the whole image is too low"
    assert area([10, 20, 30], [0.1, 0.3, 0.5], least=0.5)[1] == "ok"


def images(count: int, channels: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (count, channels, 20, 24), dtype=np.uint8)
    noise[0] = 77
    return noise


@pytest.mark.parametrize("compression", ["webp", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_takes_its_bytes_and_one_colour_hardly_any(
    compression: str, channels: int, executor: ThreadPoolExecutor
) -> None:
    flat, *noisy = compressed_sizes(images(4, channels), compression, executor).tolist()  # type: ignore[arg-type]
    assert flat < 200
    assert min(noisy) >= channels * 20 * 24  # noise can't be compressed without loss
    assert flat == compressed_sizes(images(1, channels), compression, executor).item()  # type: ignore[arg-type]


def test_webp_is_written_without_loss(executor: ThreadPoolExecutor) -> None:
    picture = images(2, 3)[1]
    file = io.BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(file, format="webp", lossless=True, quality=100)
    assert compressed_sizes(picture[None], "webp", executor).item() == len(file.getvalue())
    np.testing.assert_array_equal(np.asarray(Image.open(file)), picture.transpose(1, 2, 0))


def test_pixels_come_back_from_the_normalisation() -> None:
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(-1, 3, -1, -1)
    shift, scale = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    normalised: Tensor = (pixels / 255 - shift) / scale
    assert torch.equal(as_pixels(normalised, mean, std), pixels)
    assert as_pixels(normalised + 100, mean, std).amin() == 255
