"""`roarline list`: what it says of every method, and of what other installed packages offer."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from roarline.config.component import Params
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS, UNBOUNDED
from roarline.execution.catalogue import describe, show
from roarline.execution.parameters import describe_fields, in_words, in_yaml
from roarline.stages import STAGES


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_source_cost_and_each_parameter_with_default_and_meaning(name):
    component = METHODS[name]
    lines = describe(name, component).splitlines()
    assert lines[0] == f"{name}: {component.summary}"
    assert f"    source: {component.source}" in lines
    assert component.source
    assert any(line.startswith(f"    cost an image: {component.passes}") for line in lines)
    assert component.passes
    for field in component.params.model_fields:
        assert any(re.match(rf"    {field}[ .].*\((.*, )?(default .*|required)\): \S", line) for line in lines), field


@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_a_layer_says_that_it_needs_one(name):
    component = METHODS[name]
    assert component.needs_layer == ("layer" in component.params.model_fields)
    assert component.needs_layer == ("; needs a layer" in describe(name, component))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_unit_range_direction_needs_source_and_cost(name):
    component = METRICS[name]
    low, high = component.range
    words = describe(name, component)
    assert words.startswith(f"{name}: {component.summary}\n    source: {component.source}\n")
    assert component.summary
    assert component.source
    assert component.stage in STAGES
    assert set(component.needs) <= {"network", "gradients", "ground_truth", "segmentation", "boxes"}
    # What costs no pass needs no network, and the other way round; retraining needs networks of its own.
    retrained = component.stage == "evaluate-roar"
    assert (component.passes.split(",")[0] != "none") == ("network" in component.needs) or retrained
    assert (low is None and high is None) == (name in UNBOUNDED)
    assert low is None or high is None or low < high
    assert component.unit in ("", "%", "px")
    better = {True: "higher is better", False: "lower is better", None: "no direction"}[component.higher_is_better]
    from_to = f"from {'−∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
    needs = {"network": "network", "gradients": "gradients where", "ground_truth": "ground truth", "boxes": "boxes"}
    said = (better, f"unit {component.unit or 'none'}", f"stage {component.stage}", from_to, "needs maps")
    assert all(part in words for part in (*said, f"cost: {component.passes} a row"))
    (line,) = (line for line in words.splitlines() if "needs maps" in line)
    assert all((part in line) == (need in component.needs) for need, part in needs.items())


class Inner(Params):
    depth: int = Field(2, ge=1, le=8, description="how deep")


class Settings(Params):
    """All kinds of fields."""

    kind: Literal["mean", "max"] = Field("mean", description="which")
    rule: str = Field("middle", pattern="^(middle|left)$", description="where")
    many: list[float] = Field([0.1, 0.5], description="of them")
    some: Annotated[float | Literal["blur"] | None, "said"] = Field(None, gt=0, description="or none")
    needed: bool = Field(description="yes or no")
    inner: Inner = Inner()


def test_types_limits_and_defaults_are_said_as_one_writes_them_in_yaml():
    assert describe_fields(Settings) == [
        "kind (mean | max, default mean): which",
        "rule (middle | left, default middle): where",
        "many (list of float, default [0.1, 0.5]): of them",
        "some (float | blur | null, > 0, default null): or none",
        "needed (bool, required): yes or no",
        "inner.depth (int, ≥ 1, ≤ 8, default 2): how deep",
    ]


@pytest.mark.parametrize(("value", "said"), [(None, "null"), (True, "true"), ("a", "a"), ([1, None], "[1, null]")])
def test_values_in_yaml(value, said):
    assert in_yaml(value) == said


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (int, "int"),
        (str | None, "str | null"),
        (tuple[int, ...], "list of int"),
        (Literal[1, "x"], "1 | x"),
        (dict[str, int], "mapping"),
    ],
)
def test_types_in_words(annotation, said):
    assert in_words(annotation) == said


METHOD = '''
"""A package."""
import torch

def sharp(model, images, targets, *, knob: int = 3, mode: "str | None" = None, **rest):
    """Sharpness of the image, whatever the network.

    More about it.
    """

class Blunt:
    """Bluntness"""
    def __call__(self, model, images, targets, amount, power=2.0): ...

blunt = Blunt()
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with three methods, one of which can't be imported."""
    (tmp_path / "other_methods.py").write_text(METHOD)
    (tmp_path / "broken_methods.py").write_text("import a_module_that_is_not_there")
    info = tmp_path / "other_methods-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-methods\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(
        "[roarline.methods]\nsharp = other_methods:sharp\nblunt = other_methods:blunt\nbroken = broken_methods:gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_methods_of_other_packages_are_listed_with_path_defaults_and_first_line(site, capsys):
    show("methods")
    shown = capsys.readouterr().out
    assert (
        "sharp: Sharpness of the image, whatever the network\n"
        "    from other-methods 1.5, other_methods.sharp\n"
        "    knob (int, default 3)\n"
        "    mode (str | None, default null)\n\n"
    ) in shown
    assert (
        "blunt: Bluntness\n    from other-methods 1.5, other_methods.blunt\n    amount (required)\n"
        "    power (default 2.0)\n\n"
    ) in shown


def test_one_that_cannot_be_imported_says_why_and_hides_nothing_else(site, capsys):
    show("methods")
    shown = capsys.readouterr().out
    assert "broken: can't be used\n" in shown
    assert "a_module_that_is_not_there" in shown
    assert shown.index("broken: ") > shown.index("gradcam: ")
    assert "also: any callable by its dotted path" in shown


def test_one_that_bears_the_name_of_our_own_is_said_not_to_be_used(site, capsys):
    names = site / "other_methods-1.5.dist-info" / "entry_points.txt"
    names.write_text("[roarline.methods]\ngradient = other_methods:sharp\nblunt = other_methods:blunt\n")
    show("methods")
    theirs, others = capsys.readouterr().out.split("gradient: Sharpness of the image")[1].split("\n\n", 1)
    assert "\n    not used: roarline's own of this name comes first" in theirs
    assert "not used" not in others


def test_what_makes_variants_of_any_method_is_listed_with_defaults(capsys):
    show("methods")
    shown = capsys.readouterr().out.split("of any of them, beside params:\n")[1]
    assert "    sign (signed | positive | absolute | squared | null, default null): how values are read" in shown
    assert "    channels (sum | mean | max | max_abs | none | null, default null): reduction" in shown
    assert "    smooth.kind (mean | squared | variance, default mean): " in shown
    assert "    smooth.samples (int, ≥ 1, default 25): noisy copies an image" in shown
    assert "    filter.kind (blur | max, required): " in shown
    assert "    filter.window_px (int | null, ≥ 3, default null): " in shown


def test_the_tables_own_lines_import_no_torch():
    code = (
        "import sys; from roarline.execution.catalogue import TABLES, show;"
        "[show(kind) for kind in TABLES];"
        "sys.exit('torch imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
