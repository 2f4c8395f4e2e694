"""A worker's memory: what is freed is used again, and given back between jobs."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from roarline.execution.allocator import give_back_freed_memory, keep_freed_memory

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(megabytes * 2**17)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20

known = keep_freed_memory() if sys.argv[1] == "keeps" else True
first, again = faults(200), faults(200)
kept = resident()
give_back_freed_memory()
print(known, again, kept, resident())
"""


def _run(how: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again_without_new_pages_and_given_back_when_told() -> None:
    known, again, kept, left = _run("keeps")
    if known == "False":
        pytest.skip("needs glibc")
    assert int(again) < 1000  # 200 MiB are 51,200 pages of 4 KiB
    assert int(kept) > 200
    assert int(left) < int(kept) - 150


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_left_alone_every_large_block_is_mapped_anew() -> None:
    """Why the worker asks: were this to change, it would not have to."""
    _, again, kept, _ = _run("as it is")
    assert int(again) > 90  # 200 MiB: 100 huge pages, or 51,200 small ones
    assert int(kept) < 200
