"""Starts a Ray cluster of two nodes on this machine, runs an experiment on it, compares it with a local run, stops it.

    python scripts/ray_demo.py configs/digits.yaml [words for `roarline run` …]

Its artifacts lie in artifacts/ray-demo, apart from those of a local run, so that everything is made anew. Digests are
compared with what `roarline run` has left in artifacts/, key by key.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from roarline.artifacts.store import Store

FOLDER = Path("artifacts") / "ray-demo"
_STARTED, _STARTED_IN_S, _STOPPED_IN_S = "Ray runtime started", 120.0, 40.0


def main(words: list[str]) -> int:
    """Run the demo; the exit code is that of `roarline run`, or 1 where digests differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config")
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    given, others = parser.parse_known_args(words)
    with cluster() as nodes:
        nodes.add(given.cpus)
        nodes.add(given.cpus)
        print(f"a Ray cluster of two nodes is up at {nodes.address}", flush=True)
        run = [_program("roarline"), "run", given.config, "--executor", "ray", "--address", nodes.address]
        run += ["--set", f"runtime.artifacts={FOLDER}", "--set", "runtime.device=cpu", *others]
        code = subprocess.run(run, env=nodes.environment, check=False).returncode
    return code or compare(FOLDER, FOLDER.parent)


@dataclass
class Cluster:
    """Nodes on this machine, each a process group of its own; nobody without its token gets in.

    Attributes:
        folder: Of logs and sockets.
        nodes: The processes, the head's first.
    """

    folder: Path
    port: int
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """What other nodes and drivers connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of nodes and drivers."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def add(self, cpus: int) -> subprocess.Popen[bytes]:
        """Start a node, the head where there is none yet, and wait until it is up."""
        words = [_program("ray"), "start", "--block", f"--num-cpus={cpus}", "--num-gpus=0"]
        words += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"]
        if self.nodes:
            words += [f"--address={self.address}"]
        else:
            words += ["--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
        path = self.folder / f"node-{len(self.nodes)}.log"
        with path.open("wb") as log:
            node = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        self.nodes.append(node)
        end = time.monotonic() + _STARTED_IN_S
        while _STARTED not in path.read_text():
            if node.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"a node of the Ray cluster did not start:\n{path.read_text()}")
            time.sleep(0.1)
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a node as if its machine had gone: every process of it, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        """End all nodes in good order, the head last."""
        for node in reversed(self.nodes):
            node.terminate()
        for node in reversed(self.nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(_STOPPED_IN_S)
            self.kill(node)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster without nodes yet, stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of its sockets may not be long
    nodes = Cluster(folder, port)
    try:
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def compare(ours: Path, others: Path) -> int:
    """Compare the digests of artifacts that both folders hold; says how many, and returns 1 where some differ."""
    mine, theirs = ({a.manifest.key: a for a in Store(root).artifacts()} for root in (ours, others))
    both = mine.keys() & theirs.keys()
    different = sorted(mine[key].manifest.label for key in both if mine[key].digest != theirs[key].digest)
    if not both:
        print(f"nothing to compare with in {others}: `roarline run` there first")
    else:
        print(f"{len(both) - len(different)} of {len(both)} artifacts have the digests of those in {others}")
    for label in different:
        print(f"  differs: {label}")
    return 1 if different else 0


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
