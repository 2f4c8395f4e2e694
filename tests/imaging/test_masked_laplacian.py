"""The solver of masked Laplacians: against scipy's direct sparse solve, dense matrices, and mathematics.

Errors are of pixels in [0, 1]. The solver promises an error of about its tolerance; 1e-5 is what it must hold.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from roarline.imaging.imputation import ITERATIONS, TOLERANCE
from roarline.imaging.masked_laplacian import neighbour_sums, solve
from tests.golden_cases import case

_WEIGHTS = {
    (dy, dx): 2 if 0 in (dy, dx) else 1 for dy, dx in itertools.product((-1, 0, 1), repeat=2) if (dy, dx) != (0, 0)
}


def system(unknown_HW: np.ndarray) -> tuple[csc_matrix, np.ndarray]:
    """The matrix, straight from the equation, and the numbers of the unknown pixels."""
    height, width = unknown_HW.shape
    number = np.full((height + 2, width + 2), -2)  # -2 outside, -1 known
    number[1:-1, 1:-1] = np.where(unknown_HW, np.cumsum(unknown_HW).reshape(height, width) - 1, -1)
    own = number[1:-1, 1:-1][unknown_HW]
    rows, columns, values, degree = [], [], [], np.zeros(len(own))
    for (dy, dx), weight in _WEIGHTS.items():
        other = number[1 + dy : height + 1 + dy, 1 + dx : width + 1 + dx][unknown_HW]
        degree += weight * (other > -2)
        rows.append(own[other >= 0])
        columns.append(other[other >= 0])
        values.append(np.full((other >= 0).sum(), -float(weight)))
    matrix = csc_matrix(
        (np.concatenate([*values, degree]), (np.concatenate([*rows, own]), np.concatenate([*columns, own]))),
        shape=(len(own), len(own)),
    )
    return matrix, own


def right_hand_side(image_HW: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    known = torch.from_numpy(image_HW * ~unknown_HW)
    return np.asarray(neighbour_sums(known.double()).numpy() * unknown_HW)


def direct(image_HW: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    """scipy's solution, 0 at known pixels."""
    matrix, _ = system(unknown_HW)
    solution = np.zeros(unknown_HW.shape)
    solution[unknown_HW] = spsolve(matrix, right_hand_side(image_HW, unknown_HW)[unknown_HW])
    return solution


def solved(images: np.ndarray, masks: np.ndarray, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Ours, [N, H, W] and the estimated errors [N]."""
    rhs = np.stack([right_hand_side(image, mask) for image, mask in zip(images, masks, strict=True)])
    unknown = torch.from_numpy(masks)[:, None].to(dtype)
    found, error = solve(torch.from_numpy(rhs)[:, None].to(dtype), unknown, tolerance=TOLERANCE, iterations=ITERATIONS)
    return found[:, 0], error[:, 0]


def holes(side: int) -> dict[str, np.ndarray]:
    """Masks of which some are hard: large, thin, scattered, with one known pixel left in a corner."""
    generator = np.random.default_rng(0)
    smooth = ndimage.zoom(generator.random((7, 7)), side / 7, order=1)[:side, :side]
    fine = ndimage.gaussian_filter(np.abs(generator.standard_normal((side, side))), 1.0)
    border = np.ones((side, side), dtype=bool)
    border[:, 0] = False
    two = np.ones((side, side), dtype=bool)
    two[side // 20, side // 20] = two[-side // 10, -side // 20] = False
    lattice = np.ones((side, side), dtype=bool)
    lattice[8::17, 8::17] = False
    maze = np.ones((side, side), dtype=bool)
    maze[:, ::9] = False
    maze[:4, ::18] = maze[-4:, 9::18] = True
    return {
        "a CAM's 90 %": smooth < np.quantile(smooth, 0.9),
        "a CAM's 99 %": smooth < np.quantile(smooth, 0.99),
        "a gradient's 90 %": fine < np.quantile(fine, 0.9),
        "all but a side": border,
        "all but two pixels": two,
        "all but a lattice": lattice,
        "a maze": maze,
    }


def picture(side: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    image = sum(ndimage.gaussian_filter(generator.standard_normal((side, side)), sigma) * sigma for sigma in (1, 4, 12))
    image = (image - image.min()) / (image.max() - image.min())
    return np.asarray(image - image.mean())  # as imputation centres it


@pytest.mark.parametrize("name", ["a CAM's 90 %", "a CAM's 99 %"])
def test_large_smooth_holes_at_224_px_converge(name: str) -> None:
    """peers.md: plain conjugate gradients stop at a small residual with errors up to 0.14."""
    image, mask = picture(224), holes(224)[name]
    found, error = solved(image[None], mask[None])
    assert error.max() <= TOLERANCE
    np.testing.assert_allclose(found[0].numpy(), direct(image, mask), atol=1e-5, rtol=0)


def test_hard_holes_converge_within_the_iterations() -> None:
    masks = holes(100)
    image = picture(100)
    found, error = solved(np.stack([image] * len(masks)), np.stack(list(masks.values())))
    assert error.max() <= TOLERANCE
    for row, mask in enumerate(masks.values()):
        np.testing.assert_allclose(found[row].numpy(), direct(image, mask), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_mask_of_any_size_is_solved_as_a_dense_matrix_would_be(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 13), st.integers(1, 13)))
    mask = data.draw(arrays(bool, shape))
    if mask.all():
        mask[data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))] = False
    image = np.random.default_rng(0).random(shape)
    found, error = solved(image[None], mask[None], torch.float64)
    assert error.max() <= TOLERANCE
    if mask.any():
        matrix, _ = system(mask)
        expected = np.linalg.solve(matrix.toarray(), right_hand_side(image, mask)[mask])
        np.testing.assert_allclose(found[0].numpy()[mask], expected, atol=1e-5, rtol=0)
    assert (found[0].numpy()[~mask] == 0).all()


def test_the_matrix_is_road_evaluations() -> None:
    """Theirs is -1/12 of ours: weights that add up to 1, and the other sign."""
    golden, _ = case("s5_noisy_linear")
    unknown = golden["in_masks"][3] == 0  # border
    matrix, _ = system(unknown)
    np.testing.assert_allclose(matrix.toarray() / -12, golden["out_A_border"], atol=1e-15)
    units = np.zeros((len(golden["out_A_border"]), *unknown.shape))
    units[:, unknown] = np.eye(len(units))
    degree = neighbour_sums(torch.ones(unknown.shape, dtype=torch.float64))
    applied = degree * torch.from_numpy(units) - neighbour_sums(torch.from_numpy(units))
    np.testing.assert_allclose(applied.numpy()[:, unknown] / -12, golden["out_A_border"], atol=1e-15)


def test_a_system_does_not_depend_on_the_others_in_its_batch() -> None:
    """Done systems wait for the others: the same numbers, but for the order of sums over larger tensors."""
    masks, image = np.stack(list(holes(60).values())), picture(60)
    together, _ = solved(np.stack([image] * len(masks)), masks)
    for row in range(len(masks)):
        alone, _ = solved(image[None], masks[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-7, rtol=0)


def test_the_estimated_error_is_close_to_the_error() -> None:
    """What the preconditioner makes of the residual is within a factor of 5 of the error, for every hard hole."""
    masks, image = holes(60), picture(60)
    for mask in masks.values():
        rhs = torch.from_numpy(right_hand_side(image, mask))[None, None]
        unknown, exact = torch.from_numpy(mask)[None, None].double(), direct(image, mask)
        for iterations in (3, 6):
            found, error = solve(rhs, unknown, tolerance=0.0, iterations=iterations)
            assert np.abs(found[0, 0].numpy() - exact).max() < 5 * error.item()


def test_a_solution_keeps_between_the_known_values() -> None:
    """Each unknown is a weighted mean of its neighbours, so that nothing lies outside the rim's range."""
    image, mask = picture(60), holes(60)["a CAM's 90 %"]
    found, _ = solved(image[None], mask[None], torch.float64)
    known = image[~mask]
    assert found[0].numpy()[mask].min() > known.min() - 1e-5
    assert found[0].numpy()[mask].max() < known.max() + 1e-5
