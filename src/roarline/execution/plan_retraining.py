"""Jobs that train networks anew: the cells of evaluate-roar. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roarline.config.experiment import Method
from roarline.config.retraining import RECURSIVE, EvaluateRoar
from roarline.execution.engines import engine_of, stack_size
from roarline.execution.plan_maps import add_maps, sign, splits
from roarline.execution.planned import Plan, as_json
from roarline.execution.stacks import SIZE, STACKED
from roarline.stages.job import Job

STAGE = "evaluate-roar"
EVERYTHING = "everything_removed"
_OF_ALL_METHODS = {"reference": "nothing removed", EVERYTHING: "everything removed"}


@dataclass(frozen=True)
class Cell:
    """One retraining: where it stands in the grid, and its job."""

    method: str | None
    mode: str
    removed_fraction: float
    repeat: int
    probe: bool
    job: Job

    @property
    def place(self) -> dict[str, Any]:
        """Its place, for tables."""
        return {
            "method": self.method,
            "mode": self.mode,
            "removed_fraction": self.removed_fraction,
            "repeat": self.repeat,
            "probe": self.probe,
        }


def add_cells(
    plan: Plan, model: Mapping[str, Any], dataset: Job, maps: Mapping[tuple[str, str], Job]
) -> Iterator[Cell]:
    """Plan the grid of evaluate-roar; nothing where the experiment has no such section.

    Args:
        model: The network's parameters.
        maps: (method, split) to the job of its maps.
    """
    experiment = plan.experiment
    roar = experiment.evaluate_roar
    own = experiment.train_cls.plain if experiment.train_cls else None
    training = (roar.training or own) if roar else None
    if roar is None or training is None:  # the latter is refused by Experiment
        return
    shared = {
        "model": {key: value for key, value in model.items() if key != "weights"},
        "training": training.model_dump(mode="json", exclude={"threads"}),
        "normalization": as_json(experiment.data.normalization),
        "engine": engine_of(experiment),
        "seed": experiment.seed,
        "threads": roar.threads,
    }
    grid = _Grid(plan, roar, shared, dataset)
    given = {
        method.name: {f"maps_{split}": maps[method.name, split] for split in splits(experiment)}
        for method in experiment.methods
    }
    plain = [mode for mode in roar.modes if mode != RECURSIVE]
    for repeat in range(roar.repeats):
        yield grid.cell(None, "reference", 0.0, repeat, {})
    for probe, repeats in ((False, roar.repeats), (True, roar.probe_repeats)):
        for method in experiment.methods:
            for mode in plain:
                for fraction in roar.fractions:
                    for repeat in range(repeats):
                        yield grid.cell(method, mode, fraction, repeat, given[method.name], probe=probe)
    if RECURSIVE in roar.modes:
        for repeat in range(roar.repeats):
            yield grid.cell(None, EVERYTHING, 1.0, repeat, {})
        for method in experiment.methods:
            for repeat in range(roar.repeats):
                yield from grid.recursion(method, repeat, given[method.name], probe=repeat < roar.probe_repeats)


@dataclass(frozen=True)
class _Grid:
    plan: Plan
    roar: EvaluateRoar
    shared: Mapping[str, Any]
    dataset: Job

    def cell(
        self,
        method: Method | None,
        mode: str,
        fraction: float,
        repeat: int,
        inputs: Mapping[str, Job],
        *,
        probe: bool = False,
    ) -> Cell:
        """Plan one retraining."""
        roar = self.roar
        parameters: dict[str, Any] = {
            **self.shared,
            "repeat": repeat,
            "probe": probe,
            "mode": mode,
            "removed_fraction": fraction,
        }
        if method is not None:
            parameters |= {
                "sign": sign(method),
                "ties": roar.ties,
                "merge_normalization": method.merge_normalization or roar.merge_normalization,
                "compat": roar.compat,
            }
        if mode != "reference" and not probe:  # the probe sees no pixels, so that nothing is filled
            parameters["fill"] = as_json(roar.fill)
        name = method.name if method else _OF_ALL_METHODS[mode]
        label = f"{STAGE} {name} {mode} {fraction:g} #{repeat}{' probe' if probe else ''}"
        local: dict[str, Any] = {"root": self.plan.experiment.data.root}
        if parameters["engine"] == STACKED:
            local[SIZE] = stack_size(self.plan.experiment)
        job = self.plan.add(STAGE, label, parameters, {"dataset": self.dataset, **inputs}, local=local)
        return Cell(method.name if method else None, mode, fraction, repeat, probe, job)

    def recursion(self, method: Method, repeat: int, given: Mapping[str, Job], *, probe: bool) -> Iterator[Cell]:
        """Plan a chain of retrainings by rising fraction: each by maps of the network before, the first by given ones.

        Args:
            given: ``maps_<split>`` to the job of the classifier's own maps.
            probe: True where each retraining's masks are probed for leakage.
        """
        inputs = dict(given)
        for fraction in sorted(self.roar.fractions):
            cell = self.cell(method, RECURSIVE, fraction, repeat, inputs)
            yield cell
            if probe:
                yield self.cell(method, RECURSIVE, fraction, repeat, {"cell": cell.job}, probe=True)
            if fraction < max(self.roar.fractions):
                inputs = {**self._maps_by(cell, method), "former": cell.job}

    def _maps_by(self, cell: Cell, method: Method) -> dict[str, Job]:
        """The maps that a retrained network makes of what it was trained and tested on."""
        of = f"{cell.mode} {cell.removed_fraction:g} #{cell.repeat}"
        return {
            f"maps_{split}": add_maps(
                self.plan,
                method,
                split,
                self.dataset,
                cell.job,
                removed_fill=as_json(self.roar.fill),
                of=of,
                asked_by=STAGE,
            )
            for split in splits(self.plan.experiment)
        }
