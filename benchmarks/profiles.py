"""Where the time of a hot path goes: torch's table of what took longest, and how much of the time the GPU computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

_ROWS, _NAME_WIDTH = 25, 70


def profiled(run: Callable[[], object], device: str) -> str:
    """Run once, watched; watching makes what the host does slower than it is.

    Args:
        run: The hot path.
        device: ``cpu`` or a GPU's name.
    """
    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as seen:
        start = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    sort_by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    table = seen.key_averages().table(
        sort_by=sort_by, row_limit=_ROWS, max_name_column_width=_NAME_WIDTH, top_level_events_only=False
    )
    if not on_gpu:
        return str(table)
    spans = (
        (event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation  # which span gaps, too
    )
    busy_s = covered(spans) / 1e6
    return f"{table}\nThe GPU computed or copied in {busy_s:.2f} of {seconds:.2f} s: {busy_s / seconds:.0%}."


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of the spans (start, end) lasts: kernels may run side by side."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
