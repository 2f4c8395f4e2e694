"""Every line of every table: its parameters make sense, its implementation exists, its name is documented."""

from __future__ import annotations

import subprocess
import sys

import pytest

from roarline.config.component import Component
from roarline.config.datasets import DATASETS
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS
from roarline.config.models import MODELS
from roarline.stages import STAGES

COMPONENTS = [
    pytest.param(component, id=f"{kind}-{name}")
    for kind, table in (("method", METHODS), ("dataset", DATASETS), ("model", MODELS), ("metric", METRICS))
    for name, component in table.items()
]


@pytest.mark.parametrize("component", COMPONENTS)
def test_component_loads_and_says_what_it_is(component: Component) -> None:
    assert callable(component.load())
    assert component.summary
    assert component.params.__doc__


@pytest.mark.parametrize("stage", STAGES)
def test_stage_loads(stage: str) -> None:
    from roarline.execution.plan import import_stage

    assert callable(import_stage(stage))


@pytest.mark.parametrize("name", DATASETS)
def test_dataset_has_a_fingerprint(name: str) -> None:
    from roarline.config.component import load_object

    assert callable(load_object(DATASETS[name].fingerprint))


def test_config_and_plan_import_no_torch() -> None:
    code = (
        "import sys, roarline.cli, roarline.data.fingerprint;"
        "import roarline.execution.commands, roarline.execution.catalogue;"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib', 'torchvision', 'captum'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
