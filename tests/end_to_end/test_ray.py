"""Runs on a Ray cluster of several nodes on this machine, each a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.ray_demo import Cluster, cluster
from tests.end_to_end.conftest import TINY, Program

pytestmark = [
    pytest.mark.slow,  # a head alone takes ten seconds to start
    pytest.mark.skipif(sys.platform != "linux", reason="nodes are killed as Linux process groups"),
]
GRID = TINY.replace("fractions: [0.5], modes: [roar], repeats: 2", "fractions: [0.3, 0.7], modes: [roar], repeats: 3")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    with cluster() as made:
        made.add(1)
        made.add(1)
        yield made


def start(program: Program, nodes: Cluster, config: str, stage: str = "run") -> subprocess.Popen[str]:
    """Start a run, or a stage, on the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.environment.items():
            patch.setenv(name, value)
        return program.start(stage, config, "--executor", "ray", "--address", nodes.address)


def made(program: Program) -> int:
    """How many artifacts are whole."""
    return len(list((program.folder / "artifacts").glob("[!.]*/*/manifest.json")))


def wait_for(program: Program, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many artifacts are whole."""
    end = time.monotonic() + 200
    while made(program) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_job_goes_to_a_node_and_comes_back(program: Program) -> None:
    with cluster() as node:
        node.add(1)
        process = start(program, node, program.config(), stage="prepare-data")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "prepare-data: 1 artifact, 1 job made" in out
    assert err == ""
    assert made(program) == 1


@pytest.mark.timeout(600)
def test_two_nodes_make_what_one_machine_makes_and_say_little(
    program: Program, undisturbed: Program, nodes: Cluster
) -> None:
    process = start(program, nodes, program.config())
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    assert program.digests() == undisturbed.digests()
    assert all(line.startswith("[") for line in err.splitlines()), err  # Ray itself says nothing
    assert "27 made" in out
    again = start(program, nodes, "tiny.yaml")
    assert "27 cached (100%)" in again.communicate(timeout=60)[0]


@pytest.mark.timeout(900)
def test_a_node_that_is_killed_midway_loses_nothing(
    program: Program, tmp_path_factory: pytest.TempPathFactory, nodes: Cluster
) -> None:
    calm = Program(tmp_path_factory.mktemp("calm"))
    calm("run", calm.config(GRID), "--set", "runtime.workers=2")
    victim = nodes.add(1)
    process = start(program, nodes, program.config(GRID))
    wait_for(program, 16, process)
    before = program.digests()
    nodes.kill(victim)
    nodes.nodes.remove(victim)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    assert len(err) < 5000, err  # nor does a lost node make Ray say much
    assert program.digests() == calm.digests()
    assert before.items() <= program.digests().items()


@pytest.mark.timeout(600)
def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(
    program: Program, undisturbed: Program, nodes: Cluster
) -> None:
    process = start(program, nodes, program.config())
    wait_for(program, 8, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped; what was finished is kept" in err
    assert "Traceback" not in err
    kept = program.digests()
    assert len(kept) >= 8
    out, err = start(program, nodes, "tiny.yaml").communicate(timeout=400)
    assert f"{len(kept)} cached" in out, out + err
    assert program.digests() == undisturbed.digests()


@pytest.mark.timeout(300)
def test_a_node_with_another_working_folder_is_refused(nodes: Cluster, tmp_path: Path) -> None:
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from roarline.artifacts.shared_storage import marked\n"
        "from roarline.execution import ray_cluster as r\n"
        "with r.connected(sys.argv[1]) as ray, marked(Path(sys.argv[2])) as marker:\n"
        "    r.check_nodes(ray, replace(r.Surroundings.here(marker), folder='/no/such'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, nodes.address, str(tmp_path)],
        env=nodes.environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert "UserInputError: node " in done.stderr
    assert "/no/such, where roarline was started, is not there" in done.stderr
