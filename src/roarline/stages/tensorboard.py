"""A training's curve for TensorBoard, beside the artifact: event files bear times, and would change its digest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from roarline.errors import UserInputError
from roarline.stages.job import Job
from roarline.training import processes
from roarline.training.loop import Told, told_nobody

_SPLITS = ("train_", "validation_")


@contextmanager
def told_to_tensorboard(job: Job) -> Iterator[Told]:
    """What writes each epoch's row of the curve, where ``runtime.tensorboard`` asks for it.

    Terms and scores are written as ``loss/train``, ``loss/validation``, ``accuracy/train`` and so on; a training that
    is resumed goes on in the same folder.

    Raises:
        UserInputError: The package tensorboard is not there.
    """
    folder = job.local.get("tensorboard")
    if folder is None or processes.rank() > 0:
        yield told_nobody
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserInputError(
            "runtime.tensorboard needs the package tensorboard: pip install 'roarline[tensorboard]'"
        ) from error
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", job.label)
    writer = SummaryWriter(str(Path(folder) / f"{name}-{job.key[:8]}"))
    try:
        yield lambda row: _write(writer, row)
    finally:
        writer.close()


def _write(writer: object, row: Mapping[str, float | None]) -> None:
    for name, value in row.items():
        if value is not None and name != "epoch":
            split = next((split for split in _SPLITS if name.startswith(split)), None)
            tag = f"{name.removeprefix(split)}/{split.rstrip('_')}" if split else name
            writer.add_scalar(tag, value, row["epoch"])  # type: ignore[attr-defined]
    writer.flush()  # type: ignore[attr-defined]
