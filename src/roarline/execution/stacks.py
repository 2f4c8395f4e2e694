"""Jobs that one worker makes in one go: cells of a grid whose networks are trained as a stack. Imports no torch.

Which cells share a stack is no part of any key. On CPUs, where sums must come out alike with any number of workers, it
follows from the jobs alone; on GPUs stacks are no larger than lets every worker have one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from roarline.artifacts.keys import canonical_json
from roarline.config.retraining import RECURSIVE
from roarline.stages.job import Job

STACKED = "stacked"
SIZE = "stack"
"""In ``Job.local``: how many jobs a stack may have at most; see ``engines.stack_size``."""

_SHARED = ("model", "training", "normalization", "engine", "seed", "threads")


def in_stacks(jobs: Iterable[Job], workers: int = 1) -> list[tuple[Job, ...]]:
    """Put jobs that may be made together into stacks, in the order in which they come.

    Cells of recursive ROAR read what cells of a smaller fraction leave behind: a stack of them holds one fraction, and
    their probes are stacks of their own, so that no stack waits for itself.

    Args:
        workers: Jobs of one kind are put into at least so many stacks, if there are as many jobs.

    Returns:
        Every job once; a job that is made alone is a stack of one. A stack stands where its first job stood.
    """
    jobs = list(jobs)
    kinds = {job.key: _kind(job) for job in jobs if int(job.local.get(SIZE, 1)) > 1}
    counts = Counter(kinds.values())
    found: list[list[Job]] = []
    filling: dict[str, list[Job]] = {}
    for job in jobs:
        kind = kinds.get(job.key)
        if kind is None:
            found.append([job])
            continue
        stack = filling.get(kind)
        if stack is None or len(stack) >= min(int(job.local[SIZE]), math.ceil(counts[kind] / workers)):
            found.append(stack := [])
            filling[kind] = stack
        stack.append(job)
    return [tuple(stack) for stack in found]


def stacked(jobs: Sequence[Job]) -> bool:
    """True where the jobs are made by their stage's way of making several, which may be one."""
    return jobs[0].parameters.get("engine") == STACKED


def mates(jobs: Sequence[Job], workers: int = 1) -> dict[str, tuple[Job, ...]]:
    """Each job's key to its stack, see ``in_stacks``."""
    return {job.key: stack for stack in in_stacks(jobs, workers) for job in stack}


def _kind(job: Job) -> str:
    """What jobs of one stack have in common, as a text."""
    parameters = job.parameters
    level: list[Any] = []
    if parameters.get("mode") == RECURSIVE:
        level = [parameters["removed_fraction"], parameters["probe"]]
    shared = {name: parameters.get(name) for name in _SHARED}
    return canonical_json([job.stage, job.stage_version, job.inputs.get("dataset"), shared, level])
