"""What several test files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from roarline.artifacts.store import Store

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile(
    "roarline", deadline=None, derandomize=True
)  # a busy machine is no failure; the same examples each time
settings.load_profile("roarline")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty artifact store."""
    return Store(tmp_path / "artifacts")


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(0)
