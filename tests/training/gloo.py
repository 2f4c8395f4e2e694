"""Work that several processes do together, started for a test; gloo joins them."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, multiprocessing

Work = Callable[[int], dict[str, Tensor]]
"""A function of a module, from this process's rank to what it found."""


def in_processes(work: Work, count: int, folder: Path) -> list[dict[str, Tensor]]:
    """What each of ``count`` processes found, the first one's first."""
    # One of them imports, the others are its copies.
    multiprocessing.get_context("forkserver").set_forkserver_preload([work.__module__])
    multiprocessing.start_processes(_one, (work, count, str(folder)), nprocs=count, start_method="forkserver")
    return [load_file(folder / f"{rank}.safetensors") for rank in range(count)]


def _one(rank: int, work: Work, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    try:
        found = work(rank)
        save_file({name: value.contiguous() for name, value in found.items()}, f"{folder}/{rank}.safetensors")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
