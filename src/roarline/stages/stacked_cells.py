"""Cells of evaluate-roar whose networks are trained as one stack; each becomes an artifact of its own.

A stack that is interrupted starts again: it has no checkpoint, as it is chosen for networks that train in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from roarline.artifacts.keys import short
from roarline.artifacts.store import Writer
from roarline.errors import RoarlineError
from roarline.models.stacking import StackedNetworks
from roarline.stages.evaluate_roar import Cell
from roarline.stages.job import Context, Job
from roarline.stages.splits import resident_bytes
from roarline.training.evaluate import Evaluation
from roarline.training.evaluate_stacked import evaluate_stack
from roarline.training.stacked import Member, fit_stack

_FLOAT_BYTES = 4


def run(jobs: Sequence[tuple[Job, Writer]], context: Context) -> dict[str, RoarlineError]:
    """Make the ``retraining`` artifacts of some cells, as many at a time as fit the device; see ``RunStack``.

    Raises:
        RoarlineError: None of them can be made: the network can't be stacked, or the device has too little memory.
    """
    failed: dict[str, RoarlineError] = {}
    waiting = list(jobs)
    while waiting:
        with ExitStack() as files:
            cells: list[tuple[Cell, Writer]] = []
            most = 1
            while waiting and len(cells) < most:
                job, writer = waiting.pop(0)
                try:
                    cell = Cell(job, context, files)
                except RoarlineError as error:
                    failed[job.key] = error
                    continue
                cells.append((cell, writer))
                most = max(1, resident_bytes(context.device) // _bytes_of(cell))
            if cells:
                failed |= _train(cells, context)
    return failed


def _bytes_of(cell: Cell) -> int:
    """Memory of a cell's own images: each cell of a stack has others."""
    images = sum(len(found) for found in cell.images.values())
    return max(1, images * 3 * cell.image_size[0] * cell.image_size[1] * _FLOAT_BYTES)


def _train(cells: Sequence[tuple[Cell, Writer]], context: Context) -> dict[str, RoarlineError]:
    """Train one stack; note in each artifact's provenance which cells shared it."""
    first = cells[0][0]
    networks = [cell.network() for cell, _ in cells]
    stack = StackedNetworks(networks, first.image_size)
    members = [
        Member(cell.splits["train"], cell.splits.get("validation"), cell.seed("batches")) for cell, _ in cells
    ]  # fmt: skip
    fit_stack(
        stack, members, first.settings, record=first.record,
        progress=lambda done, total: context.progress(done, total, "steps of a stack"),
    )  # fmt: skip
    tests = evaluate_stack(stack, [cell.splits["test"] for cell, _ in cells], precision=first.settings.precision)
    shared = [short(cell.job.key) for cell, _ in cells]
    failed: dict[str, RoarlineError] = {}
    for (cell, writer), model, member, test in zip(cells, networks, members, tests, strict=True):
        problem = member.failed or (None if isinstance(test, Evaluation) else test)
        if problem is not None:
            failed[cell.job.key] = problem
            continue
        assert isinstance(test, Evaluation)
        model.load_state_dict(member.best_state)
        cell.write(writer, model, member.trained, test)
        writer.provenance |= {"engine": "stacked", "stack": shared}
    return failed
