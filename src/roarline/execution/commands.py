"""What the commands of the program do. Imports no torch before there is work that needs it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from roarline.artifacts.files import read_json
from roarline.artifacts.keys import short
from roarline.artifacts.store import Artifact, Store
from roarline.artifacts.tables import read_csv
from roarline.config.component import Sign
from roarline.config.experiment import MaskReading
from roarline.config.overrides import read_value
from roarline.errors import ArtifactError, DataError, UserInputError
from roarline.execution.devices import parse_device, worker_devices
from roarline.execution.experiment_view import write_view
from roarline.execution.leaderboard import leaderboard
from roarline.execution.plan import Plan
from roarline.execution.plan_view import in_bytes, size_on_disk
from roarline.execution.prepared import load, obtain_data, run_jobs
from roarline.execution.run import RunResult, equal_failures
from roarline.execution.shards import shards_of, whole_key
from roarline.stages import STAGES
from roarline.stages.job import Job


def run(config: Path, overrides: Sequence[str]) -> None:
    """`roarline run`."""
    plan, store = load(config, overrides)
    plan = obtain_data(plan)
    result = run_jobs(plan, store)
    folder = write_view(plan, store)
    print(leaderboard(read_csv(folder / "scores.csv"), plan.experiment.aggregate_scores.confidence))
    total = result.made + result.cached
    print(
        f"\n{total} jobs: {result.cached} cached ({result.cached / total:.0%}), "
        f"{result.made} made in {result.seconds:.1f} s"
    )
    print(f"scores: {folder / 'scores.csv'}\nreport: {folder / 'report' / 'index.html'}")


def run_stage(config: Path, overrides: Sequence[str], stage: str, *, only: bool) -> None:
    """`roarline <stage>`."""
    plan, store = load(config, overrides)
    shared = int(os.environ.get("WORLD_SIZE", "1")) > 1  # torchrun says so to each of its processes
    if shared and plan.pending:
        raise DataError(plan.pending)
    plan = obtain_data(plan)
    jobs = plan.of(stage)
    if not jobs:
        raise UserInputError(f"{config} asks for no {stage}: it has no section {stage!r}")
    if only:
        own = {job.key for job in jobs}
        missing = [
            (input_stage, key)
            for job in jobs
            if not store.exists(job.stage, job.key)
            for input_stage, key in job.inputs.values()
            if key not in own and not store.exists(input_stage, key)
        ]
        if missing:
            stages = [name for name in STAGES if name in {input_stage for input_stage, _ in missing}]
            raise UserInputError(f"{stage} reads what isn't there yet; run first: {', '.join(stages)}")
    result = _run_shared(plan, store, stage) if shared else run_jobs(plan, store, stage)
    if result is None:  # the first process says how it went
        return
    folder = write_view(plan, store)
    print(
        f"{stage}: {len(jobs)} artifact{'s' if len(jobs) > 1 else ''}, "
        f"{result.made} job{'' if result.made == 1 else 's'} made in {result.seconds:.1f} s"
    )
    for job in jobs[:10]:
        print(f"  {store.path(job.stage, job.key)}  {job.label}")
    if len(jobs) > 10:
        print(f"  … and {len(jobs) - 10} more; `roarline plan {config}` lists all")
    if stage == "report":
        print(f"report: {folder / 'report' / 'index.html'}")


def _run_shared(plan: Plan, store: Store, stage: str) -> RunResult | None:
    from roarline.execution.together import run_together

    return run_together(plan, store, stage)


def show_status(config: Path, overrides: Sequence[str]) -> None:
    """`roarline status`."""
    plan, store = load(config, overrides)
    shards = plan.experiment.runtime.shards
    states = {job.key: _state(store, job, shards) for job in plan.jobs}
    for stage in STAGES:
        jobs = plan.of(stage)
        if not jobs:
            continue
        counts = Counter(states[job.key][0] for job in jobs)
        print(
            f"{stage:<26} " + ", ".join(f"{counts[s]} {s}" for s in ("done", "running", "failed", "to do") if counts[s])
        )
        for job in jobs:
            if states[job.key][0] == "running":
                print(f"    running: {job.label}")
        for line in equal_failures((job, states[job.key][1]) for job in jobs if states[job.key][0] == "failed"):
            print(f"    failed: {line.splitlines()[0]}")
        waits = {
            name
            for job in jobs
            if states[job.key][0] == "to do"
            for name, key in job.inputs.values()
            if states[key][0] != "done"
        }
        if waits:
            print(f"    waiting on {', '.join(name for name in STAGES if name in waits)}")
    if plan.pending:
        print(f"pending: {plan.pending}")


def verify(artifact: str | None, root: Path) -> None:
    """`roarline verify`.

    Raises:
        ArtifactError: Something is damaged; names each file.
    """
    store = _store(root) if artifact is None else None
    chosen = list(store.artifacts()) if store else [find_artifact(str(artifact), root)]
    problems: list[str] = []
    for item in chosen:
        found = item.problems()
        problems += found
        if found or artifact is not None:
            print(f"{'DAMAGED' if found else 'good'}  {item.path}")
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ArtifactError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''}:\n{listed}\n"
            "delete the damaged folders and run again"
        )
    print(f"{len(chosen)} artifact{'s' if len(chosen) != 1 else ''} good")


def gc(root: Path, *, yes: bool) -> None:
    """`roarline gc`."""
    import typer

    store = _store(root)
    kept: set[str] = set()
    for path in sorted(root.glob("experiments/*/experiment.json")):
        try:
            kept |= {short(job["key"]) for job in read_json(path)["jobs"]}
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: damaged; run its experiment again, or delete it, before gc") from error
    if any(store.is_running(*path.stem.rsplit("-", 1)) for path in root.glob(".locks/*.lock")):
        raise UserInputError(f"{root}: a run is at work there; drop what is unused when it has ended")
    unused = [item for item in store.artifacts() if item.path.name not in kept and not _is_awaited(item, kept)]
    left_over = [path for path in sorted(root.glob(".work/*/*")) if not store.is_running(path.parent.name, path.name)]
    if not unused and not left_over:
        print("nothing to drop: every artifact belongs to an experiment under " + str(root / "experiments"))
        return
    for path in [item.path for item in unused] + left_over:
        print(f"{in_bytes(size_on_disk(path)):>9}  {path}")
    total = sum(size_on_disk(item.path) for item in unused) + sum(size_on_disk(path) for path in left_over)
    question = f"Drop {len(unused)} artifacts and {len(left_over)} unfinished ones ({in_bytes(total)})?"
    if not yes and not typer.confirm(question):
        print("nothing dropped")
        return
    for path in [item.path for item in unused] + left_over:
        shutil.rmtree(path)
    print(f"dropped {in_bytes(total)}")


def _is_awaited(item: Artifact, kept: set[str]) -> bool:
    """True for a shard whose whole a kept experiment has yet to join."""
    whole = whole_key(item.manifest)
    return whole is not None and short(whole) in kept and not item.store.exists(item.manifest.stage, whole)


def explain(
    image: Path,
    classifier: str,
    method: str | None,
    target: str | None,
    params: Sequence[str],
    weights: Path | None,
    output: Path,
    device: str,
    root: Path,
    *,
    explainer: str | None = None,
    batched: bool = True,
) -> None:
    """`roarline explain`."""
    from roarline.stages import explain as stage

    device = worker_devices(parse_device(device))[0][0]
    if not classifier.startswith("torchvision:"):
        classifier = str(find_artifact(classifier, root).path)
    result = stage.explain(
        image,
        classifier,
        method,
        store=Store(root),
        explainer=None if explainer is None else str(find_artifact(explainer, root).path),
        target=target,
        params=_params(params),
        batched=batched,
        weights=weights,
        output=output,
        device=device,
    )
    print(result.summary)
    print(f"picture: {output}")


def export(
    artifact: str, output: Path, limit: int, kept_fraction: float, data_root: Path | None, root: Path,
    sign: str | None = None, mask: str | None = None,
) -> None:  # fmt: skip
    """`roarline export`.

    Raises:
        UserInputError: There is no such sign or reading of masks, or no such artifact.
    """
    from roarline.stages import export as stage

    for name, given, known in (("sign", sign, get_args(Sign)), ("mask", mask, get_args(MaskReading))):
        if given is not None and given not in known:
            raise UserInputError(f"--{name} {given}: expected one of {', '.join(known)}")
    for line in stage.export(
        find_artifact(artifact, root), output, limit=limit, kept_fraction=kept_fraction, data_root=data_root,
        sign=cast("Sign | None", sign), reading=mask,
    ):  # fmt: skip
        print(line)


def find_artifact(name: str, root: Path) -> Artifact:
    """An artifact by folder, by ``stage/key`` or by the start of its key.

    Raises:
        UserInputError: There is none, or several.
    """
    folder = Path(name)
    if (folder / "manifest.json").is_file():
        return Artifact(Store(folder.resolve().parent.parent), folder.resolve())
    store = _store(root)
    stage, _, key = name.rpartition("/")
    found = (
        [a for a in store.artifacts() if a.path.name.startswith(key[:16]) and stage in ("", a.path.parent.name)]
        if key
        else []
    )
    if len(found) != 1:
        what = "no artifact" if not found else f"{len(found)} artifacts"
        raise UserInputError(
            f"{name!r}: {what} of that name under {root}; give its folder, e.g. {root}/train-cls/0123456789abcdef"
        )
    return found[0]


def _store(root: Path) -> Store:
    if not root.is_dir():
        raise UserInputError(f"{root}: no such artifact folder; run from the project's folder, or give --artifacts")
    return Store(root)


def _state(store: Store, job: Job, shards: int) -> tuple[str, str]:
    """State of a job, or of the shards that it is cut into, and why it failed."""
    if store.exists(job.stage, job.key):
        return "done", ""
    pieces = [job, *shards_of(job, shards)]
    if any(store.is_running(piece.stage, piece.key) for piece in pieces):
        return "running", ""
    failures = [store.failure(piece.stage, piece.key) for piece in pieces]
    return next((("failed", failure) for failure in failures if failure is not None), ("to do", ""))


def _params(words: Sequence[str]) -> dict[str, Any]:
    params = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserInputError(f"--param {word!r}: expected name=value")
        params[name] = read_value(text, f"--param {word!r}")
    return params
