"""A connection to a Ray cluster, and whether its nodes can run jobs. Imports Ray only where it is used."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from types import ModuleType

from roarline.artifacts.shared_storage import answered
from roarline.errors import UserInputError
from roarline.execution.ray_worker import Surroundings, problem_here

# Read when Ray is imported. It would print what nodes write, count its users, and warn of how it hides GPUs.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "(?s).*",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def import_ray() -> ModuleType:
    """Ray, told to be quiet.

    Raises:
        UserInputError: It is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UserInputError(
            "runtime.executor is 'ray', but Ray is not installed: pip install 'roarline[ray]', here and on every node"
        ) from error
    return ray


def check_nodes(ray: ModuleType, surroundings: Surroundings) -> None:
    """Ask every node whether it sees the artifact folder, the working folder and the same versions.

    Raises:
        UserInputError: Some can't run jobs; names each and says why.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    ask = ray.remote(problem_here)
    asked = {
        name: ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)
        ).remote(surroundings, name)
        for name in nodes
    }
    problems = []
    for name, answer in asked.items():
        try:
            problem = ray.get(answer)
        except ray.exceptions.RayError as error:
            if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == name):
                continue  # lost meanwhile
            problem = f"roarline can't be started there ({reason_of(error)}): install it as here"
        if problem is None and not answered(surroundings.marker, name):
            problem = f"what it writes to {surroundings.marker.root} is not seen here: that must be shared storage"
        if problem is not None:
            problems.append(f"node {nodes[name]['NodeManagerAddress']}: {problem}")
    if problems:
        raise UserInputError("\n".join(sorted(problems)))


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected to a cluster; a connection that was there before is used, and left."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(
            address=address,
            namespace=f"roarline-{secrets.token_hex(4)}",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserInputError(
            f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}): start one with `ray start --head`, join it "
            "from the other machines, and run roarline on one of its nodes"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def reason_of(error: BaseException) -> str:
    """The sentence of Ray's message that says most."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("\t", " "))]
    return (lines[-1] if lines else type(error).__name__).partition(". ")[0].rstrip(".")
