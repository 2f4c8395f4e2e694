"""Mean curves with an interval at every point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

from roarline.report.panels import Line


def mean_line(
    name: str, fractions: np.ndarray, curves_MS: np.ndarray, sample_ids: Sequence[str], confidence: float
) -> Line | None:
    """The mean of all rows' curves, with Student intervals that take the rows of one image as one draw.

    The table's intervals are bootstrapped; here thousands of points need one each, and for means over images the two
    agree to the width of a line.

    Args:
        name: Of the line.
        fractions: float [S], the x axis.
        curves_MS: float [M, S]; rows with a value that is not finite have failed and are left out.
        sample_ids: [M]; rows of one image (its targets) belong together.
        confidence: Of the interval, e.g. 0.95.

    Returns:
        The line, without an interval where only one image is left; None where no row is.

    Source: the ratio estimator's variance, Cochran 1977, Sampling Techniques, section 6.3 (large samples).
    """
    kept = np.isfinite(curves_MS).all(axis=1)
    if not kept.any():
        return None
    values = curves_MS[kept].astype(np.float64)
    _, cluster = np.unique(np.asarray(sample_ids)[kept], return_inverse=True)
    sizes = np.bincount(cluster).astype(np.float64)
    sums = np.zeros((len(sizes), values.shape[1]))
    np.add.at(sums, cluster, values)
    mean = sums.sum(axis=0) / sizes.sum()
    x, y = tuple(fractions.astype(float).tolist()), tuple(mean.tolist())
    if len(sizes) < 2:
        return Line(name, x, y, (None,) * len(x), (None,) * len(x))
    residuals = sums - mean * sizes[:, None]
    error = np.sqrt((residuals**2).sum(axis=0) * len(sizes) / (len(sizes) - 1)) / sizes.sum()
    half = error * student_t.ppf((1 + confidence) / 2, len(sizes) - 1)
    return Line(name, x, y, tuple((mean - half).tolist()), tuple((mean + half).tolist()))
