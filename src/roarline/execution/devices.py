"""Which devices the workers get. Imports torch only where a GPU may be there."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from roarline.config.experiment import Runtime
from roarline.errors import UserInputError
from roarline.execution.local import available_cpus


def worker_devices(runtime: Runtime) -> tuple[list[str], int | None]:
    """Devices of the workers, and how many CPU threads their jobs may use together (None: no limit).

    ``auto`` takes every GPU, one worker each; without one, CPU workers while their jobs' threads fit the cores.

    Raises:
        UserInputError: A GPU was asked for and there is none.
    """
    device = runtime.device
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        if runtime.workers == "auto":
            return ["cpu"] * available_cpus(), available_cpus()
        return ["cpu"] * runtime.workers, None
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        if device == "auto":
            return worker_devices(runtime.model_copy(update={"device": "cpu"}))
        raise UserInputError(
            f"runtime.device is {device!r}, but torch {torch.__version__} sees no CUDA device; use cpu or auto"
        )
    gpus = [f"cuda:{index}" for index in range(count)]
    if found := re.fullmatch(r"cuda:(\d+)", device):
        if int(found.group(1)) >= count:
            raise UserInputError(f"runtime.device is {device!r}, but there are {count} CUDA devices (from cuda:0)")
        gpus = [device]
    workers = len(gpus) if runtime.workers == "auto" else runtime.workers
    return [gpus[index % len(gpus)] for index in range(workers)], None


def parse_device(name: str) -> Runtime:
    """A runtime with one worker on the device of that name.

    Raises:
        UserInputError: It is no device's name.
    """
    try:
        return Runtime(device=name, workers=1)
    except ValidationError as error:
        raise UserInputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error


def on_gpu(runtime: Runtime) -> bool:
    """True where jobs will run on a GPU as far as can be told without torch: it is asked for, or a driver is there."""
    return runtime.device.startswith("cuda") or (runtime.device == "auto" and _may_have_gpu())


def _may_have_gpu() -> bool:
    return any(
        Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/proc/driver/nvidia/version")
    )
