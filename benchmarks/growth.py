"""What each stage costs as the number of images grows: time an image and memory must stay flat.

A small network on drawn images, by the stages' own jobs with all they read, check and publish. "Bare" is no network
here but the time at a tenth of the images, ten times: an efficiency of 1 is linear, below it an image costs more the
more there are. The first line of a stage has nothing to be compared with, and holds what comes once. Peak memory is
what a stage takes beyond what its process had before; a note tells how much more of it an image costs, which can't be
nothing, as tables of scores have a row for each image. Each number of images has a process of its own.
"""

from __future__ import annotations

import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Measurement, Options

GOAL = 0.9
STAGES = (
    "prepare-data", "extract-attribution-maps", "evaluate-perturbation", "evaluate-localization", "aggregate-scores",
)  # fmt: skip
MOST_KIB_AN_IMAGE = dict.fromkeys(STAGES, 3.0) | {"aggregate-scores": 8.0}
"""Sample ids, scores and points of curves; aggregate-scores holds those of three methods together."""
_COUNTS, _QUICK_COUNTS = (100, 1_000, 10_000), (20, 40)
_SIDE_PX = 16
_TURNS = 2


@dataclass(frozen=True)
class Cost:
    """What a stage took: seconds of each turn, and MiB beyond what its process had before."""

    seconds: list[float]
    memory_mib: float


def measure(options: Options) -> Iterator[Measurement]:
    """A line for each stage and number of images, on the CPU or GPU that was asked for."""
    counts = _QUICK_COUNTS if options.quick else _COUNTS
    costs: dict[int, dict[str, Cost]] = {}
    for count in counts:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            costs[count] = alone.submit(costs_of, count, options).result()
    for stage in STAGES:
        for fewer, count in zip((counts[0], *counts), counts, strict=False):
            found, before = costs[count][stage], costs[fewer][stage]
            times = count // fewer
            judged = count == counts[-1] and not options.quick
            note, holds = memory_note(stage, found.memory_mib - before.memory_mib, count - fewer)
            yield Measurement(
                hot_path=f"growth, {stage}",
                network="small_cnn",
                setting=f"{count} images of {_SIDE_PX} px",
                images=count,
                passes=count,
                pass_kind="image",
                bare_choice=f"{times} × {fewer} images" if times > 1 else "",
                goal=GOAL if judged else None,
                ours_s=found.seconds,
                bare_s=[times * seconds for seconds in before.seconds],
                peak_memory_mib=found.memory_mib,
                note=note if judged else "",
                holds=holds or not judged,
            )


def memory_note(stage: str, more_mib: float, more_images: int) -> tuple[str, bool]:
    """What an image costs in memory, in words, and whether that is as little as is asked for.

    Args:
        stage: One of ``STAGES``.
        more_mib: Beyond what fewer images took.
        more_images: How many more there were.
    """
    kib, most = more_mib * 1024 / max(1, more_images), MOST_KIB_AN_IMAGE[stage]
    return f"{kib:.1f} KiB of memory for each of {more_images} more images, at most {most:g} asked for", kib <= most


def costs_of(count: int, options: Options) -> dict[str, Cost]:
    """Run every stage, in this process; imports what a worker imports before anything is timed."""
    import torch

    from roarline.artifacts.store import Store
    from roarline.config.experiment import Experiment
    from roarline.execution.allocator import give_back_freed_memory, keep_freed_memory
    from roarline.execution.plan import build_plan, import_stage
    from roarline.execution.run_job import run_job
    from roarline.stages.job import Context

    keep_freed_memory()
    torch.set_num_threads(options.threads)
    plan = build_plan(Experiment.model_validate(experiment(count, options.threads)))
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for stage in ("prepare-data", "train-cls", *STAGES[1:]):
            import_stage(stage)
            seconds, memory_mib = [], 0.0
            for turn in range(1 if options.quick else _TURNS):
                jobs = plan.of(stage)
                for job in jobs:
                    store.drop(job.stage, job.key)
                give_back_freed_memory()
                before, start = _resident_mib(), time.perf_counter()
                for job in jobs:
                    run_job(job, Context(store, options.device))
                seconds.append(time.perf_counter() - start)
                if turn == 0:
                    peaks = [store.open(job.stage, job.key).manifest.provenance["peak_memory_mb"] for job in jobs]
                    memory_mib = max(peaks) - before
            costs[stage] = Cost(seconds, memory_mib)
    return costs


def experiment(count: int, threads: int) -> dict[str, Any]:
    """A configuration with so many test images."""
    return {
        "name": "growth",
        "data": {"dataset": "shapes", "params": {"size_px": _SIDE_PX, "train": 200, "test": count, "max_shapes": 1}},
        "model": {"arch": "small_cnn", "params": {"width": 8}},
        "train-cls": {"epochs": 1, "threads": threads},
        "attribution": {
            "methods": [{"name": "gradient"}, {"name": "gradcam", "params": {"layer": "conv3"}}, {"name": "random"}],
            "baselines": [],
            "threads": threads,
        },
        "evaluate-perturbation": {"metrics": ["morf", "lerf", "insertion"], "steps": 8, "threads": threads},
        "evaluate-localization": {
            "metrics": ["pointing_game", "relevance_mass_accuracy", "max_box_acc"],
            "threads": threads,
        },
        "aggregate-scores": {"resamples": 500},
    }


def _resident_mib() -> float:
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found.group(1)) / 1024 if found else 0.0
