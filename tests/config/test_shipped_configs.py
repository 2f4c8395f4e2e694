"""The experiments that come with the project: each is sound, and the one that claims everything has everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from roarline.config.load import load_experiment
from roarline.config.metrics import METRICS
from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))
_WITH_RETRAINING = {"evaluate-roar", "evaluate-f-fidelity", "evaluate-idsds"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_experiment_is_sound(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.description or experiment.name.startswith("gallery")


def test_shapes_everything_has_every_metric_and_six_methods() -> None:
    experiment = load_experiment(REPOSITORY / "configs" / "shapes_everything.yaml")
    sections = {
        "evaluate-perturbation": experiment.evaluate_perturbation,
        "evaluate-localization": experiment.evaluate_localization,
        "evaluate-sanity": experiment.evaluate_sanity,
    }
    for stage, section in sections.items():
        assert section is not None
        assert set(section.metrics) == {name for name, metric in METRICS.items() if metric.stage == stage}, stage
    assert {metric.stage for metric in METRICS.values()} == {*sections, *_WITH_RETRAINING}
    assert experiment.evaluate_roar is not None
    assert set(experiment.evaluate_roar.modes) == {"roar", "kar", "recursive_roar"}
    assert experiment.evaluate_f_fidelity is not None
    assert experiment.evaluate_idsds is not None
    assert len(experiment.attribution.methods) == 6
