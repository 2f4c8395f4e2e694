"""Which numbers evaluate-sanity measures of a row, under which settings they stand, and what follows from them.

Settings: ``layer=3 conv1, ssim`` after the third layer in order lost its weights (independent: of the third layer);
``all randomised, ssim``; ``mean over layers, ssim``; ``above chance, ssim``, how much higher the similarity is than
that of the same two maps displaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from roarline.artifacts.tables import SCORES_FILE, write_score_table
from roarline.config.sanity import DATA_RANDOMISATION
from roarline.stages.scored_rows import Rows

CASCADING, INDEPENDENT, SMOOTH = "cascading_randomisation", "independent_randomisation", "smooth_randomisation"
EFFICIENT, RANDOM_LOGIT = "efficient_randomisation", "random_logit"
ONCE = (RANDOM_LOGIT, DATA_RANDOMISATION)
"""Metrics that compare a map with one other map."""

OK, UNUSABLE, ONE_CLASS, SILENT = range(4)
STATUSES = (
    "ok",
    "NaN or infinite values in a map",
    "the classifier has one class only",
    "constant map, entropy 0",
)
_CHANCE = "chance"

Place = tuple[str, str]
Columns = dict[Place, np.ndarray]


class Layout:
    """The measured columns: (metric, setting) each, in a fixed order.

    Args:
        metrics: In the order of the table.
        similarities: At least one.
        layers: Names in the order in which they lose their weights; none where no metric asks.
    """

    def __init__(self, metrics: Sequence[str], similarities: Sequence[str], layers: Sequence[str] = ()) -> None:
        self.metrics, self.similarities, self.layers = list(metrics), list(similarities), list(layers)
        self._width = len(str(len(layers)))
        self.columns: list[Place] = []
        for metric in metrics:
            if metric in (CASCADING, INDEPENDENT, SMOOTH):
                self.columns += [place for number in range(len(layers)) for place in self.at_layer(metric, number)]
            if metric in (CASCADING, SMOOTH, *ONCE):
                self.columns += self.chance(metric)
            if metric in ONCE:
                self.columns += self.once(metric)
            if metric == EFFICIENT:
                self.columns.append((EFFICIENT, ""))
        self._number = {place: number for number, place in enumerate(self.columns)}

    def number(self, place: Place) -> int:
        """The number of a column."""
        return self._number[place]

    def at_layer(self, metric: str, layer: int) -> list[Place]:
        """One column a similarity, for the layer of this number, from 0."""
        head = f"layer={layer + 1:0{self._width}d} {self.layers[layer]}"
        return [(metric, f"{head}, {similarity}") for similarity in self.similarities]

    def once(self, metric: str) -> list[Place]:
        """One column a similarity."""
        return [(metric, similarity) for similarity in self.similarities]

    def chance(self, metric: str) -> list[Place]:
        """The similarity of displaced maps, one column a similarity; measured, and not in the scores."""
        return [(metric, f"{_CHANCE}, {similarity}") for similarity in self.similarities]

    def scores(self, values: np.ndarray, codes: np.ndarray) -> tuple[Columns, Columns]:
        """What stands in the score table: values and codes of each (metric, setting).

        Args:
            values: float64 [M, columns].
            codes: Numbers of statuses [M, columns]; a score fails where one that it is made of does.
        """
        found, failed = Columns(), Columns()

        def put(metric: str, setting: str, value: np.ndarray, *of: int) -> None:
            found[metric, setting], failed[metric, setting] = value, codes[:, list(of)].max(axis=1)

        for metric in self.metrics:
            if metric == EFFICIENT:
                number = self.number((EFFICIENT, ""))
                put(EFFICIENT, "", values[:, number], number)
                continue
            for place, similarity in enumerate(self.similarities):
                if metric in ONCE:
                    last = self.number(self.once(metric)[place])
                    put(metric, similarity, values[:, last], last)
                else:
                    layers = [self.number(self.at_layer(metric, n)[place]) for n in range(len(self.layers))]
                    for number in layers:
                        put(metric, self.columns[number][1], values[:, number], number)
                    put(metric, f"mean over layers, {similarity}", values[:, layers].mean(axis=1), *layers)
                    last = layers[-1]
                if metric in (CASCADING, SMOOTH):
                    put(metric, f"all randomised, {similarity}", values[:, last], last)
                if metric != INDEPENDENT:
                    chance = self.number(self.chance(metric)[place])
                    above = values[:, last] - values[:, chance]
                    put(metric, f"above chance, {similarity}", above, last, chance)
        return found, failed


def write_scores(folder: Path, rows: Rows, layout: Layout, measured: Mapping[str, np.ndarray]) -> None:
    """Write ``scores.parquet``: a row for each metric, setting and row, failures too.

    Args:
        measured: ``values`` and ``codes``, [M, columns] each.
    """
    values, codes = layout.scores(measured["values"], measured["codes"].astype(np.int64))
    columns = (
        (metric, setting, column, [STATUSES[code] for code in codes[metric, setting].tolist()])
        for (metric, setting), column in values.items()
    )
    write_score_table(folder / SCORES_FILE, rows.sample_ids, rows.targets, columns)
