"""cases: the test images on which one method scores best and worst in one metric, with the objects drawn in.

Shapes: M scored rows, each an (image, target) pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from roarline.artifacts.dataset import DATASET_FILE, DatasetFile
from roarline.artifacts.files import make_output_folder
from roarline.artifacts.maps import MAPS_FILE, MapsFile
from roarline.artifacts.score_table import ScoreTable, read_ground_truths, read_scores
from roarline.artifacts.store import Artifact
from roarline.artifacts.tables import SCORES_FILE
from roarline.config.component import Sign
from roarline.config.wording import suggest
from roarline.data.loading import ImageReader, normalise
from roarline.errors import UserInputError
from roarline.report.case_sheet import Block, Case, check_output, draw_cases
from roarline.report.gallery import plane
from roarline.report.pictures import as_picture, is_signed, overlay
from roarline.seeds import derive_seed
from roarline.stages.ground_truth import Objects

_FEWEST = 2


@dataclass(frozen=True)
class Question:
    """What the cases are chosen by.

    Attributes:
        setting: Of the metric, as the table of scores has it; None: the metric's first.
        higher_is_better: None: the metric has no direction; then the highest stand above the lowest.
    """

    method: str
    metric: str
    setting: str | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class Look:
    """How the picture is made.

    Attributes:
        sign: How the method's maps are read.
        count: Cases of each kind; fewer where a case would stand in both.
        seed: Of the draw among cases that score alike.
        data_root: Folder of the raw images, where they are not packed.
    """

    title: str
    sign: Sign
    count: int
    seed: int
    data_root: str | None = None


def draw_best_and_worst(
    dataset: Artifact, maps: Artifact, scores: Artifact, question: Question, look: Look, output: Path
) -> tuple[int, int]:
    """Draw the best and the worst cases in one picture.

    Args:
        dataset: The ``dataset`` artifact.
        maps: The method's ``maps`` artifact of the test split.
        scores: The method's ``scores`` artifact.
        output: Picture to write, .png or .jpg.

    Returns:
        (cases of each kind, rows that have no score).

    Raises:
        UserInputError: The metric has no score for each row, or fewer than two rows have one.
    """
    check_output(output)
    table, setting = _scored(scores, question)
    values = table.columns[question.metric, setting].values
    lower_is_better = question.higher_is_better is False
    chosen = choose_cases(values, look.count, derive_seed(look.seed, "cases"), lower_is_better=lower_is_better)
    names = ("highest", "lowest") if question.higher_is_better is None else ("best", "worst")
    make_output_folder(output.parent)
    with (
        DatasetFile(dataset.file(DATASET_FILE)) as data,
        MapsFile(maps.file(MAPS_FILE)) as file,
        ImageReader(data, look.data_root) as reader,
    ):
        kind: Any = read_ground_truths(scores.file(SCORES_FILE)).get(question.metric)
        objects = Objects(data, (file.shape[-2], file.shape[-1]), kind)
        sources = _Sources(data, file, reader, objects, look.sign)
        blocks = []
        for name, rows in zip(names, chosen, strict=True):
            cases = [
                sources.case(table.sample_ids[row], int(table.targets[row]), float(values[row]))
                for row in rows.tolist()
            ]
            blocks.append(Block(_heading(name, rows, values), cases))
    title = f"{look.title}: {question.method}, {question.metric} {setting}".rstrip()
    draw_cases(title, blocks, output)
    return len(chosen[0]), int(np.isnan(values).sum())


def choose_cases(
    values_M: np.ndarray, count: int, seed: int, *, lower_is_better: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the best and with the worst values.

    Args:
        values_M: float [M], NaN where a row has none: it is never chosen.
        count: Of each kind; half of the rows at most, so that none is both.
        seed: Of the draw among equal values.

    Returns:
        (best, worst), int64, each from its end: the very best and the very worst first.

    Raises:
        UserInputError: Fewer than two rows have a value.
    """
    scored = np.flatnonzero(~np.isnan(values_M))
    if len(scored) < _FEWEST:
        raise UserInputError(
            f"cases: {len(scored)} of {len(values_M)} rows have a score, the best and the worst need {_FEWEST}"
        )
    drawn = scored[np.random.default_rng(seed).permutation(len(scored))]
    towards_best = values_M[drawn] if lower_is_better else -values_M[drawn]
    order = drawn[np.argsort(towards_best, kind="stable")].astype(np.int64)
    taken = min(count, len(order) // 2)
    return order[:taken], order[::-1][:taken]


def _scored(scores: Artifact, question: Question) -> tuple[ScoreTable, str]:
    """The table that has the metric, and which of its settings is meant."""
    table = read_scores(scores.file(SCORES_FILE)) if SCORES_FILE in scores.manifest.files else None
    columns = list(table.columns) if table else []
    settings = [setting for metric, setting in columns if metric == question.metric]
    if table is None or not settings:
        known = ", ".join(dict.fromkeys(metric for metric, _ in columns)) or "no metric"
        raise UserInputError(
            f"cases: {question.metric} has no score for each row of {question.method}; {known} has"
            " (scores of the whole data set, such as max_box_acc's, have no best case)"
        )
    setting = settings[0] if question.setting is None else question.setting
    if setting not in settings:
        raise UserInputError(f"cases: {question.metric} has no setting {setting!r}{suggest(setting, settings)}")
    return table, setting


def _heading(name: str, rows: np.ndarray, values_M: np.ndarray) -> str:
    """Which rows these are, and how many more score as the first of them."""
    shown, scored = values_M[rows], int((~np.isnan(values_M)).sum())
    alike = int((values_M == shown[0]).sum())
    words = f"the {len(rows)} {name} of {scored:,}: {shown[0]:.3g} to {shown[-1]:.3g}"
    return f"{words}; {alike:,} rows have {shown[0]:.3g}, these are a draw" if alike > len(rows) else words


@dataclass(frozen=True)
class _Sources:
    """Where images, maps and objects come from."""

    data: DatasetFile
    maps: MapsFile
    images: ImageReader
    objects: Objects
    sign: Sign

    def case(self, sample_id: str, target: int, value: float) -> Case:
        """What is drawn of one row."""
        data, drawn = self.data, self.objects.by_segmentation
        row = data.sample_ids.index(sample_id)
        own = next(r for r in self.maps.rows_for([sample_id])[0] if int(self.maps.targets[r]) == target)
        map_HW = plane(self.maps.maps([own])[0], self.sign)
        picture = as_picture(normalise(self.images.read([row]), [0.0], [1.0])[0].numpy())
        truth = self.objects.of(np.array([row]), np.array([target]), torch.device("cpu"))
        highest = np.argwhere(map_HW == map_HW.max())
        return Case(
            picture=picture,
            overlay=overlay(picture, map_HW, signed=is_signed(map_HW)),
            boxes=np.empty((0, 4), dtype=np.int64) if drawn else truth.boxes[0],
            outline=(truth.masks & truth.valid)[0].numpy() if drawn else None,
            peak=(int(highest[0][1]), int(highest[0][0])) if len(highest) == 1 else None,
            caption=f"{value:.3g}\n{self._words(row, target)}",
        )

    def _words(self, row: int, target: int) -> str:
        labels, names = self.data.labels[row], self.data.class_names
        own = [names[label] for label in (np.flatnonzero(labels) if self.data.multi_label else [int(labels)])]
        words = ", ".join(own) or "no label"
        return words if own == [names[target]] else f"{words}\nmap of: {names[target]}"
