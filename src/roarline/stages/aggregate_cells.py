"""What aggregate-scores reads from retrained networks: a column of right and wrong predictions for each cell.

Shapes: R repeats, M test images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from roarline.artifacts.retraining import PREDICTIONS_FILE, read_correct
from roarline.artifacts.store import Artifact
from roarline.errors import ArtifactError
from roarline.evaluation.relative_area import area_terms, summarise_areas
from roarline.evaluation.summary import Column, Summary, mean_over_settings

REFERENCE = "(nothing removed)"
FRACTION = "removed_fraction="
EVERYTHING = "everything_removed"
_REFERENCE, _WITH_AREA = "reference", ("roar", "recursive_roar")

Place = tuple[str | None, str, float, bool]
"""Method (None: networks that all methods share), mode, removed fraction, probe."""


@dataclass(frozen=True)
class Grid:
    """All retrained networks of an experiment.

    Attributes:
        sample_ids: [M], in rising order.
        cells: Place to repeat to how right each prediction is, float64 [M] in [0, 1], images in one order.
    """

    sample_ids: list[str]
    cells: dict[Place, dict[int, Tensor]]


def read_grid(cells: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, Artifact]) -> Grid:
    """Read the predictions of every network.

    Args:
        cells: Role of the input to the cell's place in the grid.

    Raises:
        ArtifactError: A file is damaged, or networks were tested on different images.
    """
    found: dict[Place, dict[int, Tensor]] = {}
    ids: list[str] = []
    for role, place in cells.items():
        path = inputs[role].file(PREDICTIONS_FILE)
        sample_ids, correct = read_correct(path)
        order = sorted(range(len(sample_ids)), key=sample_ids.__getitem__)
        sorted_ids = [sample_ids[row] for row in order]
        ids = ids or sorted_ids
        if sorted_ids != ids:
            raise ArtifactError(f"{path}: tested on other images than the first network of the grid")
        key = (place["method"], place["mode"], float(place["removed_fraction"]), bool(place["probe"]))
        found.setdefault(key, {})[int(place["repeat"])] = torch.from_numpy(correct[order])
    return Grid(ids, found)


def cell_columns(grid: Grid) -> tuple[list[Column], Tensor]:
    """The columns of all retrained networks, and the image of each row: every image is a cluster."""
    modes = list(dict.fromkeys(mode for method, mode, _, _ in grid.cells if method is not None))
    columns: dict[tuple[str, str], list[Column]] = {}
    for (method, mode, fraction, probe), repeats in grid.cells.items():
        if mode == EVERYTHING:  # the end that all curves share: it counts in areas alone
            continue
        values, numbers = torch.stack([repeats[repeat] for repeat in sorted(repeats)]), tuple(sorted(repeats))
        for metric in [_metric(mode, probe)] if method is not None else [_metric(mode, False) for mode in modes]:
            name, setting = method or REFERENCE, f"{FRACTION}{fraction:.12g}"
            column = Column(name, metric, setting, values, numbers, ranked=method is not None)
            columns.setdefault((name, metric), []).append(column)
    found = [column for group in columns.values() for column in [*group, *means_over_fractions(group)]]
    return found, torch.arange(len(grid.sample_ids))


def area_rows(grid: Grid, *, baseline: str | None, confidence: float, resamples: int, seed: int) -> list[Summary]:
    """Areas between the curves of random removal and of each method, where it is known what is left in the end.

    Args:
        baseline: Name of the random baseline; without one there is nothing to compare with.
    """
    ends = {0.0: (None, _REFERENCE, 0.0, False), 1.0: (None, EVERYTHING, 1.0, False)}
    if baseline is None or ends[1.0] not in grid.cells:
        return []
    rows: list[Summary] = []
    for mode in _WITH_AREA:
        of_mode = [place for place in grid.cells if place[1] == mode and not place[3]]
        methods = [name for name in dict.fromkeys(place[0] for place in of_mode) if name is not None]
        if baseline not in methods:
            continue
        curves = {
            method: dict(sorted((ends | {place[2]: place for place in of_mode if place[0] == method}).items()))
            for method in methods
        }
        used = [grid.cells[place] for curve in curves.values() for place in curve.values()]
        repeats = sorted(set.intersection(*(set(cell) for cell in used)))
        scores = {
            method: torch.stack(
                [torch.stack([grid.cells[place][repeat] for repeat in repeats]) for place in curve.values()]
            )
            for method, curve in curves.items()
        }
        terms = {method: area_terms(list(curves[method]), scores[method], scores[baseline]) for method in methods}
        rows += summarise_areas(
            f"{mode}_relative_area", terms, baseline=baseline, confidence=confidence, resamples=resamples, seed=seed
        )
    return rows


def means_over_fractions(columns: Sequence[Column]) -> Iterator[Column]:
    """For each metric that has several fractions, the mean over them."""
    for metric in dict.fromkeys(column.metric for column in columns):
        group = [c for c in columns if c.metric == metric and c.setting.startswith(FRACTION)]
        if len(group) > 1:
            yield mean_over_settings(group)


def _metric(mode: str, probe: bool) -> str:
    return f"{mode}_{'leakage' if probe else 'accuracy'}"
