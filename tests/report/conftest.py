"""One fabricated report for all tests that only look at it."""

from __future__ import annotations

import pytest

from roarline.artifacts.store import Artifact, Store
from tests.report.make_experiment import Recipe, conflict, make, run_report


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """What the report is of."""
    return conflict()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Artifact:
    """The artifact."""
    store = Store(tmp_path_factory.mktemp("report") / "artifacts")
    return run_report(store, make(store, recipe))
