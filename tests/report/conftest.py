"""One fabricated report for all tests that only look at it."""

from __future__ import annotations

import pytest

from roarline.artifacts.store import Artifact, Store
from tests.report.make_experiment import Recipe, make, run_report


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The default experiment, with a conflict between MoRF and ROAR that the leakage probe explains."""
    return Recipe(
        scores={
            "roar_accuracy": {"integrated_gradients": 0.8, "gradient": 0.62, "sobel": 0.65, "random": 0.68},
            "morf": {"integrated_gradients": 0.1, "gradient": 0.3, "sobel": 0.35, "random": 0.4},
        },
        verdicts={
            ("roar_accuracy", "integrated_gradients"): "worse",
            ("morf", "integrated_gradients"): "better",
            ("morf", "gradient"): "better",
        },
        leakage={"integrated_gradients": 0.75},
    )


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Artifact:
    """The artifact of the default experiment's report."""
    store = Store(tmp_path_factory.mktemp("report") / "artifacts")
    return run_report(store, make(store, recipe))
