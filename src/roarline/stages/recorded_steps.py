"""Whether a stage lets a training record its steps."""

from __future__ import annotations

from roarline.models.passes import is_published
from roarline.stages.job import Job


def may_record(job: Job, arch: str) -> bool:
    """False where ``runtime.record_steps`` says so, and for a user's own network.

    Of a network of ours, torchvision's or timm's it is known that a training step is the same each time; another may
    count its steps, or skip a layer by a draw on the CPU, and a recording would do forever what it did once.
    """
    return bool(job.local.get("record_steps", True)) and is_published(arch)
