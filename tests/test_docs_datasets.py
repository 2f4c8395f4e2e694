"""docs/datasets.md names every data set and shows only settings that are valid."""

from __future__ import annotations

import re

import pytest
import yaml

from roarline.config.datasets import DATASETS
from roarline.config.experiment import Data
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_its_layout_there(name: str) -> None:
    table = PAGE.partition("| data set | layout")[2].partition("\n\n")[0]
    assert f"`{name}`" in table


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_shown_is_valid(shown: str) -> None:
    data = Data.model_validate(yaml.safe_load(shown)["data"])
    DATASETS[data.dataset].params.model_validate(data.params)


def test_something_is_shown() -> None:
    assert len(SHOWN) >= 8
