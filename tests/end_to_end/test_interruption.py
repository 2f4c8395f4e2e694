"""kill -9 at random instants, each followed by a rerun: the same digests as an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Program

REPOSITORY = Path(__file__).parents[2]


def children(pid: int) -> list[int]:
    """Processes whose parent is pid."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def interrupt(program: Program, config: str, rng: random.Random, *, kills: int, longest_s: float, run_s: float) -> None:
    """Kill the program, or everything, at random instants until that was done often enough, then let it end.

    Some runs lose a worker before they are killed, and the last one, which goes on to its end.

    Args:
        longest_s: The latest instant.
        run_s: A whole run takes less, on a busy machine too.
    """
    done = 0
    while done < kills:
        process = program.start("run", config, "--set", "runtime.workers=2")
        time.sleep(rng.uniform(0.3, longest_s))
        if process.poll() is not None:  # finished before the instant came: start again from nothing
            process.communicate()
            assert process.returncode == 0
            shutil.rmtree(program.folder / "artifacts")
            continue
        done += 1
        victim = rng.choice(["program", "worker", "all"])
        if victim == "worker":
            kill_a_worker(process.pid, rng)
            time.sleep(rng.uniform(0.3, longest_s))
        if victim == "program":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    process = program.start("run", config, "--set", "runtime.workers=2")
    time.sleep(rng.uniform(0.3, longest_s))
    kill_a_worker(process.pid, rng)
    said = process.communicate(timeout=run_s)
    assert process.returncode == 0, said


def kill_a_worker(pid: int, rng: random.Random) -> None:
    """Kill one of a program's workers, where it has any."""
    workers = children(pid)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)


@pytest.mark.timeout(900)
def test_twenty_kills_leave_the_digests_of_an_undisturbed_run(program: Program, undisturbed: Program) -> None:
    interrupt(program, program.config(), random.Random(20), kills=20, longest_s=6.0, run_s=240)
    assert program.digests() == undisturbed.digests()
    assert " artifacts good" in program("verify")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_twenty_kills_of_the_demo(program: Program, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = (REPOSITORY / "configs" / "digits.yaml").read_text()
    text = text.replace(
        "  repeats: 3", "  repeats: 3\n  engine: single"
    )  # stacks may round differently once some are made
    calm = Program(tmp_path_factory.mktemp("calm"))
    calm("run", calm.config(text), timeout=1800)
    interrupt(program, program.config(text), random.Random(21), kills=20, longest_s=25.0, run_s=1800)
    assert program.digests() == calm.digests()


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(program: Program) -> None:
    stage, config = "extract-attribution-maps", program.config()
    process = program.start(stage, config)
    made = program.folder / "artifacts"
    while len(list(made.glob("[!.]*/*/manifest.json"))) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped; what was finished is kept" in said
    assert "Traceback" not in said
    kept = program.digests()
    assert len(kept) >= 4
    assert f"{11 - len(kept)} jobs made" in program(
        stage, config
    )  # a data set, a classifier, three methods, three splits
    assert kept.items() <= program.digests().items()
