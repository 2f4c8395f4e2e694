"""`roarline list`: the tables of components, in words. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from roarline.config.component import (
    Component,
    DatasetComponent,
    MapFilter,
    MethodComponent,
    MetricComponent,
    Smooth,
)
from roarline.config.datasets import DATASETS
from roarline.config.experiment import Method
from roarline.config.explainers import EXPLAINERS, ExplainerComponent
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS, UNBOUNDED
from roarline.config.models import MODELS
from roarline.config.wording import suggest
from roarline.errors import UserInputError
from roarline.execution.parameters import describe_fields, describe_offered

TABLES: dict[str, Mapping[str, Component]] = {
    "methods": METHODS,
    "explainers": EXPLAINERS,
    "metrics": METRICS,
    "datasets": DATASETS,
    "models": MODELS,
}
_ALSO = {
    "methods": "also: any callable by its dotted path, e.g. method: my_package.my_module.my_method",
    "metrics": "also: any callable (model, images, targets, maps, **params) → [B] by its dotted path, in "
    "evaluate-perturbation",
    "datasets": "also: any callable by its dotted path that returns a roarline.data.raw.RawDataset",
    "models": "also: torchvision:NAME, timm:NAME, or any callable by its dotted path that returns an nn.Module",
}
_NEEDS = {"ground_truth": "ground truth", "gradients": "gradients where the method takes them (it is called again)"}


def show(kind: str) -> None:
    """Print one table.

    Raises:
        UserInputError: There is no such table.
    """
    if kind not in TABLES:
        raise UserInputError(f"list {kind!r}: no such table{suggest(kind, list(TABLES))}")
    print("\n\n".join(describe(name, component) for name, component in TABLES[kind].items()))
    for point in entry_points(group=f"roarline.{kind}"):
        print(f"\n{describe_offered(point)}")
        if point.name in TABLES[kind]:
            print("    not used: roarline's own of this name comes first; its dotted path can be named")
    if kind in _ALSO:
        print(f"\n{_ALSO[kind]}")
    if kind == "methods":
        print("\n" + "\n".join(["of any of them, beside params:", *(f"    {line}" for line in _composition())]))


def _composition() -> list[str]:
    """What makes variants of a method, at its entry in a configuration."""
    keys = [line for line in describe_fields(Method) if line.split(" ")[0] in ("channels", "sign")]
    return [*keys, *describe_fields(Smooth, "smooth."), *describe_fields(MapFilter, "filter.")]


def describe(name: str, component: Component) -> str:
    """A few lines about one component."""
    lines = [f"{name}: {component.summary}"]
    if component.source:
        lines.append(f"    source: {component.source}")
    if isinstance(component, MethodComponent):
        layer = "; needs a layer" if component.needs_layer else ""
        lines.append(f"    cost an image: {component.passes}{layer}")
        lines.append(f"    channels: {component.channels}, sign: {component.sign} (defaults)")
        if component.baseline:
            lines.append("    rides along in every table, for comparison")
    if isinstance(component, ExplainerComponent):
        drawn = "one mask for all classes" if component.one_mask else "one mask a class"
        lines.append(f"    draws {drawn}; trained by train-explainer")
    if isinstance(component, MetricComponent):
        better = {True: "higher is better", False: "lower is better", None: "no direction"}[component.higher_is_better]
        lines.append(f"    {better}; unit {component.unit or 'none'}; stage {component.stage}")
        low, high = (
            ("−∞" if component.range[0] is None else f"{component.range[0]:g}"),
            ("∞" if component.range[1] is None else f"{component.range[1]:g}"),
        )
        why = f" ({UNBOUNDED[name]})" if name in UNBOUNDED else ""
        needs = ", ".join(_NEEDS.get(need, need) for need in ("maps", *component.needs))
        lines.append(f"    from {low} to {high}{why}; needs {needs}")
        lines.append(f"    cost: {component.passes} a row")
    if isinstance(component, DatasetComponent) and component.ground_truth:
        lines.append(f"    ground truth: {', '.join(component.ground_truth)}")
    lines += [f"    {line}" for line in describe_fields(component.params)]
    return "\n".join(lines)
