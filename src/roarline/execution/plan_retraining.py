"""Jobs that train networks anew: the cells of evaluate-roar. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roarline.config.experiment import Method
from roarline.execution.plan_maps import sign, splits
from roarline.execution.planned import Plan, as_json
from roarline.stages.job import Job


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
    training = (roar.training or experiment.train_cls) if roar else None
    if roar is None or training is None:  # the latter is refused by Experiment
        return
    shared = {
        "model": {key: value for key, value in model.items() if key != "weights"},
        "training": training.model_dump(mode="json", exclude={"threads"}),
        "normalization": as_json(experiment.data.normalization),
        "engine": roar.engine,
        "seed": experiment.seed,
        "threads": roar.threads,
    }

    def cell(method: Method | None, mode: str, fraction: float, repeat: int, *, probe: bool) -> Cell:
        parameters: dict[str, Any] = {
            **shared,
            "repeat": repeat,
            "probe": probe,
            "mode": mode,
            "removed_fraction": fraction,
        }
        inputs = {"dataset": dataset}
        if method is not None:
            parameters |= {
                "sign": sign(method),
                "ties": roar.ties,
                "merge_normalization": method.merge_normalization or roar.merge_normalization,
                "compat": roar.compat,
            }
            if not probe:  # the probe sees no pixels, so that nothing is filled
                parameters["fill"] = roar.fill
            inputs |= {f"maps_{split}": maps[method.name, split] for split in splits(experiment)}
        name = method.name if method else "nothing removed"
        label = f"evaluate-roar {name} {mode} {fraction:g} #{repeat}{' probe' if probe else ''}"
        job = plan.add("evaluate-roar", label, parameters, inputs, local={"root": experiment.data.root})
        return Cell(method.name if method else None, mode, fraction, repeat, probe, job)

    for repeat in range(roar.repeats):
        yield cell(None, "reference", 0.0, repeat, probe=False)
    for probe, repeats in ((False, roar.repeats), (True, roar.probe_repeats)):
        for method in experiment.methods:
            for mode in roar.modes:
                for fraction in roar.fractions:
                    for repeat in range(repeats):
                        yield cell(method, mode, fraction, repeat, probe=probe)
