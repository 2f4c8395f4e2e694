"""ROAD's noisy linear imputation, of many images and fractions at once, against solvers of one system after the other.

Half of the maps are smooth as a CAM is, half as fine as a gradient's; both orders, nine fractions. "Bare" is no
network: it is a sparse direct solve for each image and fraction, by scipy with the matrix assembled at once, and by
pytorch-grad-cam's imputer. Those take a second a mask, so that each turn times a random draw of the masks, another one
each time; ours does all of them in every turn.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from benchmarks.harness import Measurement, Options, timed
from benchmarks.localization import random_maps
from roarline.imaging.imputation import impute
from roarline.imaging.ranking import rank_pixels, removal_count
from roarline.imaging.removal import Order, removal_mask

GOAL = 3.0
SAME = 1e-3  # of the pixel range
_FRACTIONS = tuple(tenths / 10 for tenths in range(1, 10))
_ORDERS: tuple[Order, ...] = ("most_relevant_first", "least_relevant_first")
_STEPS = [(dy, dx) for dy, dx in itertools.product((-1, 0, 1), repeat=2) if (dy, dx) != (0, 0)]
_MASKS_A_TURN = 18


def measure(options: Options) -> Iterator[Measurement]:
    """One measurement for each of the two other solvers; results are compared on the masks that they solve."""
    count = 2 if options.quick else 16
    images, masks = masked_images(count, options.input_px)
    images, masks = images.to(options.device), masks.to(options.device)
    solvers = {"scipy": direct_solve, "pytorch-grad-cam": grad_cam_solve}
    goals = {"scipy": None, "pytorch-grad-cam": GOAL}
    measurements = {
        name: Measurement(
            "imputation",
            name,
            f"{count} images × {len(_FRACTIONS)} fractions × {len(_ORDERS)} orders, {options.input_px} px",
            count,
            len(masks),
            "imputed image",
            "one at a time",
            goal,
        )
        for name, goal in goals.items()
    }
    ours = impute(images, masks)
    chosen = np.random.default_rng(0).permutation(len(masks))
    for turn in range(options.turns):
        seconds = timed(lambda: impute(images, masks), options.device)
        some = chosen[turn * _MASKS_A_TURN : (turn + 1) * _MASKS_A_TURN]
        for name, solve in solvers.items():
            cpu = [(images[index].cpu(), masks[index].cpu()) for index in some]
            found: list[Tensor] = []
            theirs = timed(lambda solve=solve, cpu=cpu, found=found: found.extend(solve(*one) for one in cpu), "cpu")
            worst = max((ours[index].cpu() - one).abs().max().item() for index, one in zip(some, found, strict=True))
            if worst > SAME:
                raise SystemExit(
                    f"imputation differs from {name}'s by {worst:.1e} of the pixel range, expected {SAME:g}"
                )
            measurements[name].ours_s.append(seconds)
            measurements[name].bare_s.append(theirs * len(masks) / len(some))
            measurements[
                name
            ].bare_choice = f"one at a time, {len(some)} of them a turn; largest difference {worst:.0e}"
    yield from measurements.values()


def masked_images(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Images [N, 3, side, side] in [0, 1] and masks [N, side, side], True where removed; N = 18 · count."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    images = (0.7 * images + 0.3 * torch.rand(count, 3, side, side, generator=generator)).clamp(0, 1)
    ranks = rank_pixels(torch.from_numpy(np.stack(random_maps(count, side))), list(range(count)))
    masks = [
        removal_mask(ranks, removal_count(fraction, side * side), order) for order in _ORDERS for fraction in _FRACTIONS
    ]
    return images.repeat(len(masks), 1, 1, 1), torch.cat(masks)


def direct_solve(image_CHW: Tensor, mask_HW: Tensor) -> Tensor:
    """One image by a sparse direct solve in float64, its matrix assembled from arrays."""
    unknown, pixels = mask_HW.numpy(), image_CHW.double().numpy()
    height, width = unknown.shape
    number = np.full((height + 2, width + 2), -2)
    number[1:-1, 1:-1] = np.where(unknown, np.cumsum(unknown).reshape(height, width) - 1, -1)
    values = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
    own = np.arange(unknown.sum())
    degree, right = np.zeros(len(own)), np.zeros((len(own), len(pixels)))
    rows, columns, weights = [own], [own], []
    for dy, dx in _STEPS:
        weight = 2.0 if 0 in (dy, dx) else 1.0
        window = np.s_[1 + dy : height + 1 + dy, 1 + dx : width + 1 + dx]
        other = number[window][unknown]
        degree += weight * (other > -2)
        right += weight * np.where(other == -1, values[(slice(None), *window)][:, unknown], 0).T
        rows.append(own[other >= 0])
        columns.append(other[other >= 0])
        weights.append(np.full(int((other >= 0).sum()), -weight))
    matrix = csc_matrix(
        (np.concatenate([degree, *weights]), (np.concatenate(rows), np.concatenate(columns))), shape=(len(own),) * 2
    )
    filled = pixels.copy()
    filled[:, unknown] = spsolve(matrix, right).T
    return torch.from_numpy(filled).float()


def grad_cam_solve(image_CHW: Tensor, mask_HW: Tensor) -> Tensor:
    """One image by pytorch-grad-cam's imputer, without noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it gives numpy functions tensors
        filled: Tensor = NoisyLinearImputer(noise=0.0)(image_CHW, (~mask_HW).float())
    return filled
