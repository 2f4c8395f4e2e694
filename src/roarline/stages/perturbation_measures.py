"""The metrics of evaluate-perturbation that are no curve over ranks: a number and an outcome a row, in named columns.

The untouched image goes through the network once for all of them, and metrics that need the same altered images share
the passes. Shapes: B rows, C channels, H × W px, V columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from roarline.data.loading import normalise
from roarline.evaluation.infidelity import infidelity, noise_weights, perturb, square_weights
from roarline.evaluation.information_curve import area_under_information, as_pixels, compressed_sizes
from roarline.evaluation.outcomes import Judged, judged
from roarline.evaluation.pixel_sets import draw_pixel_sets, relevance_of, set_correlation
from roarline.imaging.ranking import removal_count
from roarline.imaging.removal import remove, replace
from roarline.stages.measured_rows import Column, Measure, MeasuredRows
from roarline.stages.own_metrics import OwnMetric, find_metrics, measure

_BLOCK = 10  # draws from one generator; divides the usual numbers of them


def find_measures(parameters: Mapping[str, Any]) -> list[Measure]:
    """The measures that a job's parameters ask for, the user's own last; see ``noisy_maps`` for those of methods."""
    metrics = set(parameters["metrics"])
    measures: list[Measure] = []
    if metrics & {"aic", "sic"}:  # first, since its untouched images serve all
        measures.append(InformationCurves(parameters["information_curve"], metrics))
    measures += pixel_set_measures(parameters, metrics)
    if "infidelity" in metrics:
        measures += [Infidelity(parameters["infidelity"], kind) for kind in parameters["infidelity"]["perturbations"]]
    return [*measures, *(OwnMeasure(metric) for metric in find_metrics(parameters.get("own_metrics", [])))]


def measure_rows(measures: Sequence[Measure], rows: MeasuredRows) -> tuple[np.ndarray, np.ndarray]:
    """Float64 values and uint8 outcomes, [B, V] each, of all columns."""
    found = [column for measured in measures for column in measured(rows)]
    if not found:
        return np.empty((len(rows.images), 0)), np.empty((len(rows.images), 0), dtype=np.uint8)
    values, outcomes = ([getattr(one, name).cpu().numpy() for one in found] for name in ("values", "outcomes"))
    return np.stack(values, axis=1), np.stack(outcomes, axis=1)


class OwnMeasure:
    """A metric of the user's own."""

    reads_ranks, passes = False, 0

    def __init__(self, metric: OwnMetric) -> None:
        self.metric, self.columns = metric, [(metric.name, "")]

    def __call__(self, rows: MeasuredRows) -> list[Judged]:
        model, seed = rows.network.as_built, rows.network.seed
        values = measure(self.metric, model, rows.images, rows.targets, rows.maps, rows.sample_ids, seed)
        return [judged(torch.from_numpy(values))]


@dataclass(frozen=True)
class _SetColumn:
    """One column of correlations: sets of so large a share of the pixels, the first ``subsets`` of them."""

    column: Column
    fraction: float
    subsets: int
    fill: str


def pixel_set_measures(parameters: Mapping[str, Any], metrics: set[str]) -> list[Measure]:
    """``sensitivity_n`` and ``faithfulness_correlation``: sets of one fill and number share their random orders."""
    wanted = []
    if "sensitivity_n" in metrics:
        own = parameters["sensitivity_n"]
        wanted += [
            _SetColumn(("sensitivity_n", f"removed_fraction={fraction:.12g}"), fraction, own["subsets"], own["fill"])
            for fraction in own["fractions"]
        ]
    if "faithfulness_correlation" in metrics:
        own = parameters["faithfulness_correlation"]
        wanted.append(_SetColumn(("faithfulness_correlation", ""), own["fraction"], own["subsets"], own["fill"]))
    most: dict[tuple[str, float], int] = {}
    for one in wanted:
        most[one.fill, one.fraction] = max(one.subsets, most.get((one.fill, one.fraction), 0))
    families: dict[tuple[str, int], list[_SetColumn]] = {}
    for one in wanted:
        families.setdefault((one.fill, most[one.fill, one.fraction]), []).append(one)
    return [PixelSets(columns, subsets, fill) for (fill, subsets), columns in families.items()]


class PixelSets:
    """Random pixel sets of some sizes, each removed on its own."""

    reads_ranks = False

    def __init__(self, wanted: Sequence[_SetColumn], subsets: int, fill: str) -> None:
        self.wanted, self.subsets, self.fill = wanted, subsets, fill
        self.columns = [one.column for one in wanted]
        self.fractions = sorted({one.fraction for one in wanted})
        self.passes = subsets * len(self.fractions)

    def __call__(self, rows: MeasuredRows) -> list[Judged]:
        height, width = rows.images.shape[2:]
        sizes = [max(1, removal_count(fraction, height * width)) for fraction in self.fractions]
        sets = rows.network.draws(
            rows,
            "pixel sets",
            lambda generator: draw_pixel_sets(generator, _BLOCK, sizes, height, width),
            _BLOCK * len(sizes),
        )
        fill = rows.network.fill(rows.images, self.fill)
        relevance = torch.empty(len(rows.images), self.passes, dtype=torch.float64, device=rows.images.device)

        def alter(row: int, first: int, last: int) -> Tensor:
            masks = sets(row, first, last)
            relevance[row, first:last] = relevance_of(masks, rows.maps[row])
            return replace(rows.images[row : row + 1], masks, _of_row(fill, row))

        after = rows.network.scores(rows.network.outputs(rows, self.passes, alter))
        found = []
        for one in self.wanted:
            chosen = slice(self.fractions.index(one.fraction), one.subsets * len(sizes), len(sizes))
            found.append(set_correlation(relevance[:, chosen], rows.before, after[:, chosen]))
        return found


class Infidelity:
    """Perturbations of one kind."""

    reads_ranks = False

    def __init__(self, settings: Mapping[str, Any], kind: str) -> None:
        self.settings, self.kind, self.passes = settings, kind, settings["samples"]
        self.columns = [("infidelity", kind)]

    def __call__(self, rows: MeasuredRows) -> list[Judged]:
        height, width = rows.images.shape[2:]
        sides = [max(1, round(side * min(height, width))) for side in self.settings["sides"]]

        def draw(generator: torch.Generator) -> Tensor:
            if self.kind == "square":
                return square_weights(generator, _BLOCK, height, width, sides)
            return noise_weights(generator, _BLOCK, height, width, self.settings["noise"])

        weights = rows.network.draws(rows, f"infidelity {self.kind}", draw, _BLOCK)
        fill = rows.network.fill(rows.images, self.settings["fill"])
        relevance = torch.empty(len(rows.images), self.passes, dtype=torch.float64, device=rows.images.device)

        def alter(row: int, first: int, last: int) -> Tensor:
            drawn = weights(row, first, last)
            relevance[row, first:last] = relevance_of(drawn, rows.maps[row])
            return perturb(rows.images[row : row + 1], drawn, _of_row(fill, row))

        after = rows.network.scores(rows.network.outputs(rows, self.passes, alter))
        return [infidelity(relevance, rows.before, after, normalise=self.settings["normalise"])]


class InformationCurves:
    """The most relevant pixels sharp on a blurred image: aic and sic."""

    reads_ranks = True

    def __init__(self, settings: Mapping[str, Any], metrics: set[str]) -> None:
        self.settings, self.passes = settings, 1 + len(settings["fractions"])
        self.columns: list[Column] = [(name, "") for name in ("aic", "sic") if name in metrics]

    def __call__(self, rows: MeasuredRows) -> list[Judged]:
        if rows.ranks is None:
            raise ValueError("information curves need ranks")
        card, ranks = rows.network.card, rows.ranks
        blurred_pixels = as_pixels(rows.network.fill(rows.images, "blur"), card.mean, card.std)
        blurred = normalise(blurred_pixels, card.mean, card.std)  # what is compressed is what the network sees
        pixels = ranks.shape[1] * ranks.shape[2]
        shares = [0.0, *self.settings["fractions"]]
        hidden = torch.tensor([pixels - removal_count(share, pixels) for share in shares], device=ranks.device)

        def alter(row: int, first: int, last: int) -> Tensor:
            one = slice(row, row + 1)
            counts = hidden[first:last]
            return remove(rows.images[one], ranks[one], counts, blurred[one], order="least_relevant_first")

        partly, whole = rows.network.outputs(rows, self.passes, alter), rows.untouched
        with rows.network.timed("compression"):
            sizes = self._sizes(rows, blurred_pixels.cpu(), hidden.cpu()).to(ranks.device)
        probabilities = torch.cat([partly.probabilities, whole.probabilities], dim=1)
        right = torch.cat([partly.right, whole.right], dim=1).double().masked_fill(probabilities.isnan(), torch.nan)
        return [
            area_under_information(
                sizes,
                right if metric == "aic" else probabilities,
                whole.probabilities[:, 0],
                least_probability=self.settings["least_probability"],
                monotone=self.settings["monotone"],
            )
            for metric, _ in self.columns
        ]

    def _sizes(self, rows: MeasuredRows, blurred: Tensor, hidden: Tensor) -> Tensor:
        """float64 [B, S + 2], bytes of the blurred, the partly sharp and the whole images."""
        ranks = rows.ranks.cpu() if rows.ranks is not None else torch.empty(0)
        found = []
        with ThreadPoolExecutor(rows.network.threads) as executor:
            for row in range(len(ranks)):
                one = slice(row, row + 1)
                partly = remove(rows.pixels[one], ranks[one], hidden, blurred[one], order="least_relevant_first")
                images = torch.cat([partly, rows.pixels[one]]).contiguous().numpy()
                found.append(compressed_sizes(images, self.settings["compression"], executor))
        return torch.stack(found)


def _of_row(fill: Tensor, row: int) -> Tensor:
    return fill if len(fill) == 1 else fill[row : row + 1]
