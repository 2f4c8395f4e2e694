"""Every line of every table: its parameters make sense, its implementation exists, its name is documented."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from roarline.config.component import Component
from roarline.config.datasets import DATASETS
from roarline.config.experiment import Experiment
from roarline.config.explainers import EXPLAINERS
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS
from roarline.config.models import MODELS
from roarline.stages import STAGES

_TABLES: tuple[tuple[str, Mapping[str, Component]], ...] = (
    ("method", METHODS), ("explainer", EXPLAINERS), ("dataset", DATASETS), ("model", MODELS), ("metric", METRICS),
)  # fmt: skip
COMPONENTS = [
    pytest.param(component, id=f"{kind}-{name}") for kind, table in _TABLES for name, component in table.items()
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


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for info in model.model_fields.values():
        for inner in models_in(info.annotation):
            yield from sections(inner)


@pytest.mark.parametrize("section", sorted({*sections(Experiment)}, key=lambda model: model.__name__))
def test_every_key_of_the_configuration_says_what_it_is(section: type[BaseModel]) -> None:
    """A key that holds a section is explained by that section."""
    assert section.__doc__
    for name, info in section.model_fields.items():
        assert info.description or any(inner.__doc__ for inner in models_in(info.annotation)), f"{section}.{name}"


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_parameter_of_a_component_says_what_it_is(component: Component) -> None:
    for section in sections(component.params):
        for name, info in section.model_fields.items():
            assert info.description or any(inner.__doc__ for inner in models_in(info.annotation)), f"{section}.{name}"


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_is_written_for_no_value_is_null_as_yaml_has_it(component: Component) -> None:
    """``none`` is a word, which a number refuses; it stands in a description only where it may be written."""
    for section in sections(component.params):
        for name, info in section.model_fields.items():
            if type(None) in get_args(info.annotation) and "none" not in str(info.annotation):
                assert "none:" not in str(info.description), f"{section}.{name}"


@pytest.mark.parametrize("component", COMPONENTS)
def test_defaults_that_are_listed_are_those_of_a_component_without_a_word(component: Component) -> None:
    """`roarline list` reads them off each section's type, and a section of which one key is given keeps the others."""
    for section in sections(component.params):
        for name, info in section.model_fields.items():
            if isinstance(info.default, BaseModel):
                assert info.annotation is type(info.default), f"{section}.{name}"
                assert info.default == type(info.default)(), f"{section}.{name}"
