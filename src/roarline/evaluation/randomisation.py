"""What is left of a map when the network, its labels or the class are others: similarity, chance, rise of entropy.

Shapes: B rows, H × W px, S similarities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.evaluation.similarity import (
    Normalisation,
    average_ranks,
    correlation,
    hog_cell_px,
    hog_features,
    joint_range,
    normalised,
    ssim,
)
from roarline.imaging.reduction import Sign, apply_sign

SIGNED, ABSOLUTE, SSIM, HOG = "spearman", "spearman_abs", "ssim", "hog"
_CORRELATIONS = (SIGNED, ABSOLUTE)


@dataclass(frozen=True)
class Planes:
    """Maps as the similarities see them, [B, H, W] each.

    Attributes:
        signed: As the method gave them.
        magnitude: Their absolute values.
        read: As pixels are ranked by them.
    """

    signed: Tensor
    magnitude: Tensor
    read: Tensor

    @staticmethod
    def of(maps: Tensor, sign: Sign) -> Planes:
        """From maps [B, H, W], or [B, C, H, W], of which a pixel counts as its largest channel."""
        planes = [maps, maps.abs(), apply_sign(maps, sign)]
        return Planes(*(plane.amax(dim=1) if plane.ndim == 4 else plane for plane in planes))

    @property
    def finite(self) -> Tensor:
        """bool [B]: no value is NaN or infinite."""
        return torch.isfinite(self.signed).all(dim=(1, 2))

    @property
    def constant(self) -> Tensor:
        """bool [B]: all pixels are read as the same value."""
        return self.read.amax(dim=(1, 2)) == self.read.amin(dim=(1, 2))

    def without(self, bad_B: Tensor) -> Planes:
        """With 0 everywhere in some rows."""
        mask = bad_B[:, None, None]
        return Planes(*(plane.masked_fill(mask, 0.0) for plane in (self.signed, self.magnitude, self.read)))

    def displaced(self, seeds: Sequence[int]) -> Planes:
        """Each map moved by a random number of rows and columns; what leaves on one side enters on the other.

        Args:
            seeds: One a row.
        """
        rows, height, width = self.signed.shape
        down, right = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            down.append(torch.randint(height, (), generator=generator))
            right.append(torch.randint(width, (), generator=generator))
        device = self.signed.device
        y = (torch.arange(height) - torch.stack(down)[:, None]).remainder(height).to(device)
        x = (torch.arange(width) - torch.stack(right)[:, None]).remainder(width).to(device)
        row = torch.arange(rows, device=device)[:, None, None]
        return Planes(*(plane[row, y[:, :, None], x[:, None, :]] for plane in (self.signed, self.magnitude, self.read)))


class Reference:
    """The maps that others are compared with; what only they need is computed once.

    Args:
        planes: Finite.
        similarities: Some of ``ssim``, ``spearman``, ``spearman_abs`` and ``hog``.
        normalisation: Of both maps before SSIM and HOG.
        window_px: SSIM's window; smaller where the maps are.
    """

    def __init__(
        self,
        planes: Planes,
        similarities: Sequence[str],
        normalisation: Normalisation = "second_moment",
        window_px: int = 7,
    ) -> None:
        self.planes, self.similarities, self.normalisation = planes, list(similarities), normalisation
        height, width = planes.read.shape[1:]
        side = min(height, width)
        self.window_px = min(window_px, side if side % 2 else side - 1)
        self.cell_px = hog_cell_px(height, width)
        self._features = {name: self._feature(name, planes) for name in self.similarities}

    def similarity(self, others: Planes) -> Tensor:
        """float64 [B, S] in [-1, 1].

        A map that didn't change has a similarity of exactly 1 to itself, also where it is constant; a constant map's
        correlation with another one is 0, since it says nothing that the other could share.
        """
        same = (self.planes.signed == others.signed).all(dim=(1, 2)) & (self.planes.read == others.read).all(dim=(1, 2))
        columns = [self._compare(name, self._features[name], self._feature(name, others)) for name in self.similarities]
        return torch.stack([column.masked_fill(same, 1.0) for column in columns], dim=1)

    def chance(self, others: Planes, seeds: Sequence[Sequence[int]]) -> Tensor:
        """The similarity that the same two maps have where neither knows where the other lies.

        Others are moved over the image at random, which keeps their values, their smoothness and their shapes. Of
        rank correlations the mean over all displacements is exactly 0, so that none is drawn; a constant map has 0.

        Args:
            seeds: For each draw one a row.

        Returns:
            float64 [B, S], means over the draws.

        Source: random toroidal shifts, Lotwick and Silverman 1982, Journal of the Royal Statistical Society B 44.
        """
        shape = (len(others.read), len(self.similarities))
        total = torch.zeros(shape, dtype=torch.float64, device=others.read.device)
        drawn = [place for place, name in enumerate(self.similarities) if name not in _CORRELATIONS]
        if not drawn:
            return total
        for draw in seeds:
            moved = others.displaced(draw)
            for place in drawn:
                name = self.similarities[place]
                total[:, place] += self._compare(name, self._features[name], self._feature(name, moved))
        silent = self.planes.constant | others.constant
        return (total / len(seeds)).masked_fill(silent[:, None], 0.0)

    def _feature(self, name: str, planes: Planes) -> Tensor:
        if name in _CORRELATIONS:
            return average_ranks((planes.signed if name == SIGNED else planes.magnitude).flatten(1))
        values = normalised(planes.read, self.normalisation)
        return values if name == SSIM else hog_features(values, self.cell_px)

    def _compare(self, name: str, first: Tensor, second: Tensor) -> Tensor:
        if name == SSIM:
            return ssim(first, second, joint_range(first, second), window_px=self.window_px)
        return correlation(first, second)


def histogram_entropy(maps_BHW: Tensor, *, bins: int = 100) -> Tensor:
    """Entropy, in nats, of the histogram of each map's values between its lowest and highest one.

    Args:
        maps_BHW: Finite.
        bins: Of equal width.

    Returns:
        float64 [B] in [0, log bins]; 0 for a constant map.

    Source: Hedström et al. 2024, arXiv 2405.02383, section 3; bins as ``numpy.histogram`` cuts them.
    """
    values = maps_BHW.flatten(1).double()
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    steps = torch.arange(bins + 1, dtype=torch.float64, device=values.device)
    edges = low + steps * ((high - low) / bins)
    place = torch.searchsorted(edges[:, 1:-1].contiguous(), values, right=True)
    counts = torch.zeros((len(values), bins), dtype=torch.float64, device=values.device)
    counts.scatter_add_(1, place, torch.ones_like(values))
    shares = counts / values.shape[1]
    return -torch.xlogy(shares, shares).sum(dim=1)


def relative_rise(before_B: Tensor, after_B: Tensor) -> Tensor:
    """How much higher something became, as a share of what it was: [B]; NaN where it was 0.

    Source: Hedström et al. 2024, arXiv 2405.02383, the score of Efficient MPRT.
    """
    return torch.where(before_B > 0, (after_B - before_B) / before_B.where(before_B > 0, 1.0), torch.nan)
