"""Stage evaluate-idsds: does a map rank patches as their deletion does, for a network that knows deleted patches?"""

from __future__ import annotations

import numpy as np
import torch

from roarline.artifacts.store import Writer
from roarline.errors import UserInputError
from roarline.evaluation.single_deletion import deletion_drops, single_deletion_score
from roarline.imaging.patches import patch_sums
from roarline.stages.job import Context, Job
from roarline.stages.surrogate_scores import Batch, Scored, measure_rows, write_columns

STAGE = "evaluate-idsds"


def run(job: Job, context: Context, writer: Writer) -> None:
    """Write ``scores.parquet``: the rank correlation of every row.

    Raises:
        UserInputError: Images have fewer pixels along a side than the grid has patches.
        (else as ``measure_rows``)
    """
    parameters = job.parameters
    grid: int = parameters["grid"]

    def measure(batch: Batch) -> np.ndarray:
        """float64 [B, 2 · P]: what each patch's deletion costs, then the map's sum in it."""
        drops = deletion_drops(batch.score_of(parameters["score"]), batch.images, batch.fill, grid)
        flat = batch.maps.flatten(1)
        constant = (flat.amin(1) == flat.amax(1))[:, None]  # patches that differ by a pixel would give it an order
        sums = torch.where(constant, 0.0, patch_sums(batch.maps, grid))
        return torch.cat([drops, sums], dim=1).cpu().numpy()

    def width(size: tuple[int, int]) -> int:
        if grid > min(size):
            raise UserInputError(f"{STAGE}: grid is {grid}, images are {size[0]}×{size[1]} px; lower it")
        return 2 * grid**2

    rows, values = measure_rows(job, context, writer, width, measure)
    scores, statuses = single_deletion_score(values[:, : grid**2], values[:, grid**2 :])
    write_columns(writer.out, rows, [Scored("idsds", "", scores, statuses)])
