"""Run one job in this process: take the right to make the artifact, compute, record how it came to be."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import roarline
from roarline.artifacts.store import Writer
from roarline.errors import JobError, RoarlineError
from roarline.execution.plan import import_stage
from roarline.execution.stacks import stacked
from roarline.stages.job import Context, Job


def run_job(
    job: Job, context: Context, on_wait: Callable[[], None] | None = None, on_begin: Callable[[], None] | None = None
) -> bool:
    """Make one artifact.

    Args:
        job: What to make.
        context: Where.
        on_wait: Called once when another process is making the same artifact and this one waits for it.
        on_begin: Called once where it is made now, before any of it; jobs of a stack don't tell.

    Returns:
        True where it was made now, False where it existed or another process made it meanwhile.

    Raises:
        RoarlineError: The job failed; what resumable stages finished is kept for the next try.
    """
    if job.shard_of is not None and context.store.exists(*job.shard_of):
        return False
    if stacked([job]):
        outcome = run_stack([job], context, on_wait)[job.key]
        if isinstance(outcome, RoarlineError):
            raise outcome
        return outcome
    inputs = context.inputs(job)
    with context.store.writer(
        job.stage, job.stage_version, job.key, job.label, job.parameters, inputs, on_wait=on_wait
    ) as writer:
        if writer is None:
            return False
        if on_begin:
            on_begin()
        record = _Record(context.device)
        with _numerics(job, context.device):
            import_stage(job.stage)(job, context, writer)
        writer.provenance = {**record.of(job), **writer.provenance}
    for shard in job.shards.values():
        context.store.drop(*shard)
    return True


def run_stack(
    jobs: Sequence[Job], context: Context, on_wait: Callable[[], None] | None = None
) -> dict[str, bool | RoarlineError]:
    """Make the artifacts of several jobs in one go, where their stage knows how.

    Args:
        jobs: Of one stack, see ``stacks.in_stacks``.
        context: Where.
        on_wait: See ``run_job``.

    Returns:
        Key to True where it was made now, False where it existed, or why this one failed though others did not.

    Raises:
        RoarlineError: All that were to be made failed; nothing of them was published.
    """
    outcomes: dict[str, bool | RoarlineError] = {}
    with ExitStack() as rights:
        held: list[tuple[Job, Writer, ExitStack]] = []
        for job in sorted(jobs, key=lambda job: job.key):  # one order for all, or two processes wait for each other
            own = rights.enter_context(ExitStack())
            try:
                inputs = context.inputs(job)
            except RoarlineError as error:
                outcomes[job.key] = error
                continue
            writer = own.enter_context(
                context.store.writer(
                    job.stage, job.stage_version, job.key, job.label, job.parameters, inputs, on_wait=on_wait
                )
            )
            if writer is None:
                outcomes[job.key] = False
            else:
                held.append((job, writer, own))
        if not held:
            return outcomes
        record = _Record(context.device)
        place = {job.key: index for index, job in enumerate(jobs)}
        held.sort(key=lambda one: place[one[0].key])
        with _numerics(held[0][0], context.device):
            failed = import_stage(held[0][0].stage, stacked=True)([(job, writer) for job, writer, _ in held], context)
        for job, writer, own in held:
            outcomes[job.key] = _published(job, writer, own, failed.get(job.key), record.of(job, len(held)))
    return outcomes


def _published(
    job: Job, writer: Writer, right: ExitStack, error: RoarlineError | None, provenance: Mapping[str, Any]
) -> bool | RoarlineError:
    """Publish one artifact of a stack, or give up the right to it."""
    writer.provenance = {**provenance, **writer.provenance}
    if error is not None:
        right.__exit__(type(error), error, error.__traceback__)
        return error
    try:
        right.close()
    except RoarlineError as raised:
        return raised
    return True


def follow_job(job: Job, context: Context) -> None:
    """Compute what another process makes an artifact of, for its sake: both train one network, and only it writes."""
    context.inputs(job)
    with tempfile.TemporaryDirectory(prefix="roarline-") as scratch, _numerics(job, context.device):
        writer = Writer(Path(scratch), context.store.work(job.stage, job.key) / "parts")
        import_stage(job.stage)(job, context, writer)


@contextlib.contextmanager
def _numerics(job: Job, device: str) -> Any:
    """The job's thread count and, on a CPU, deterministic algorithms; as before afterwards. The GPU stays the job's."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    dtype, matmul = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(device == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device.startswith("cuda"):
        # What names no device takes this one; and before a process has used a GPU there is no peak to reset.
        torch.cuda.set_device(torch.device(device).index or 0)
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    except torch.OutOfMemoryError as error:  # where no stage could do with less
        if device.startswith("cuda"):
            torch.cuda.empty_cache()  # for the jobs that share it
        raise JobError(
            f"{device} has too little memory for {job.label} ({str(error).splitlines()[0]}); let fewer jobs share it "
            "(runtime.workers, runtime.gpus_per_job), lower batch_size or the images' size, or set runtime.device: cpu"
        ) from error
    finally:
        torch.set_default_dtype(dtype)  # a user's method may have changed it for the whole process
        torch.set_float32_matmul_precision(matmul)
        torch.set_grad_enabled(True)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


class _Record:
    """How an artifact comes to be, from here on."""

    def __init__(self, device: str) -> None:
        self.device, self.started, self._clock = device, datetime.now().astimezone(), time.perf_counter()
        _reset_peak_memory()

    def of(self, job: Job, together: int = 1) -> dict[str, Any]:
        """Provenance of a job that was made with ``together - 1`` others: its duration is its share of theirs."""
        return {
            **_versions(self.device),
            "seed": job.parameters.get("seed"),
            "started": self.started.isoformat(timespec="seconds"),
            **_processes(),
            "duration_s": round((time.perf_counter() - self._clock) / together, 3),
            "peak_memory_mb": round(_peak_memory_mb(), 1),
            **_peak_device_memory(self.device),
        }


def _processes() -> dict[str, int]:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {"processes": torch.distributed.get_world_size()} if together else {}


@lru_cache(maxsize=8)
def _versions(device: str) -> dict[str, Any]:
    return {
        "roarline": roarline.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
        "captum": version("captum"),
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _cpu_name(),
        "platform": platform.system() + " " + platform.machine(),
    }


def _git_commit() -> str | None:
    """Commit of the source tree that this code runs from; an image, which has none, says it in ROARLINE_GIT_COMMIT."""
    if "ROARLINE_GIT_COMMIT" in os.environ:
        return os.environ["ROARLINE_GIT_COMMIT"] or None
    here = Path(roarline.__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:  # installed inside some other tree
        return None
    return _git(here.parent, "rev-parse", "--short=12", "HEAD")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return f"CPU, {found.group(1).strip()}"
    return f"CPU, {platform.processor() or platform.machine()}"


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found.group(1)) / 1024
    scale = 1024 if os.uname().sysname == "Linux" else 1024 * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _peak_device_memory(device: str) -> dict[str, Any]:
    if not device.startswith("cuda"):
        return {}
    return {"peak_device_memory_mb": round(torch.cuda.max_memory_allocated(device) / 2**20, 1)}
