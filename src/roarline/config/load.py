"""YAML to a typed experiment: every error at once, each with file, line, key path and the nearest valid name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from roarline.config.component import NoParams, Params, locate
from roarline.config.datasets import DATASETS
from roarline.config.experiment import Experiment
from roarline.config.methods import METHODS
from roarline.config.metrics import METRICS
from roarline.config.models import MODELS
from roarline.config.overrides import SafeLoader, override, unaliased
from roarline.errors import ConfigError, UserInputError

Path_ = tuple[str | int, ...]
_NOT_JSON = "holds a date, bytes, NaN or infinity: expected JSON's types, finite"


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check one YAML file.

    Args:
        path: The file.
        overrides: ``key.path=value`` words; the value is YAML; list items are named by index or by ``name``.

    Raises:
        ConfigError: Lists every error that was found.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(str(path), [str(p) for p in path.parent.glob("*.y*ml")], n=1, cutoff=0.4)
        raise ConfigError(f"{path}: no such file{f'; did you mean {near[0]}?' if near else ''}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read as UTF-8 text: {error}") from error
    try:
        node = yaml.compose(text, Loader=SafeLoader)
        data = yaml.load(text, Loader=SafeLoader)  # noqa: S506 - derives from yaml.SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    lines = _Lines(path, node)
    try:
        data = unaliased(data)
    except RecursionError as error:
        raise ConfigError(f"{path}: an anchor holds itself") from error
    data.pop("anchors", None)  # a place for &anchors that are used elsewhere
    problems: list[tuple[int, str]] = lines.duplicates()
    for word in overrides:
        override(data, word)
    experiment = None
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        problems += [lines.problem(_clean(e["loc"], data), _say(e, data)) for e in error.errors()]
    problems += [lines.problem(where, what) for where, what in _component_errors(data)]
    if problems or experiment is None:
        text = "\n".join(line for _, line in sorted(set(problems)))
        raise ConfigError(f"{len(set(problems))} problem{'s' if len(set(problems)) > 1 else ''} in {path}:\n{text}")
    return experiment


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of an error message: the nearest known name, and all of them where they are few."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(known)})" if known else hint


def parse_params(kind: str, name: str, params_type: type[Params], params: dict[str, Any]) -> Params:
    """Check a component's parameters against its type.

    Raises:
        UserInputError: Names each wrong parameter.
    """
    try:
        return params_type.model_validate(params)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {_say(e, params, params_type)}" for e in error.errors())
        raise UserInputError(f"{kind} {name!r}: {said}") from error


class _Lines:
    """Which line a key path stands on."""

    def __init__(self, path: Path, root: yaml.Node | None) -> None:
        self.path, self.root = path, root

    def problem(self, where: Path_, what: str) -> tuple[int, str]:
        line = self.line(where)
        return line, f"  {self.path}:{line}: {'.'.join(map(str, where)) or '(top level)'}: {what}"

    def line(self, where: Path_) -> int:
        node, line = self.root, 1
        for part in where:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return line

    def duplicates(self) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        seen_nodes: set[int] = set()

        def walk(node: yaml.Node | None, where: Path_) -> None:
            if node is None or id(node) in seen_nodes:
                return
            seen_nodes.add(id(node))
            if isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, value in node.value:
                    if key.value in seen and key.value != "<<":
                        line = key.start_mark.line + 1
                        found.append(
                            (
                                line,
                                f"  {self.path}:{line}: {'.'.join(map(str, (*where, key.value)))}: stands twice",
                            )
                        )
                    seen.add(key.value)
                    walk(value, (*where, key.value))
            elif isinstance(node, yaml.SequenceNode):
                for index, item in enumerate(node.value):
                    walk(item, (*where, index))

        walk(self.root, ())
        return found


def _clean(location: Sequence[str | int], data: Any) -> Path_:
    """Drop the parts of pydantic's location that name union branches rather than keys."""
    where: list[str | int] = []
    for part in location:
        if isinstance(data, dict) and part not in data and where and isinstance(part, str) and part[:1].isupper():
            continue
        if isinstance(data, (str, int, float)):
            continue
        where.append(part)
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = None
    return tuple(where)


def _say(error: Any, data: Any, model: type[BaseModel] = Experiment) -> str:
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{suggest(str(error['loc'][-1]), _fields_at(error['loc'][:-1], model))}"
    if kind == "missing":
        return "is required but missing"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context.get("expected", ""))
        return f"is {given!r}, expected one of {context.get('expected')}{suggest(str(given), known) if known else ''}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message if isinstance(given, (dict, list)) or kind == "value_error" else f"is {given!r}: {message}"


def _fields_at(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        for name, info in getattr(current, "model_fields", {}).items():
            if part in (name, info.alias):
                current = _model_in(info.annotation)
                break
    return [info.alias or name for name, info in getattr(current, "model_fields", {}).items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg)) is not None), None)


def _component_errors(data: dict[str, Any]) -> list[tuple[Path_, str]]:
    """Check names and parameters of components, on the raw mapping, so that they are reported with the rest."""
    found: list[tuple[Path_, str]] = []

    def check(
        kind: str,
        where: Path_,
        block: Any,
        key: str,
        table: Any,
        free: Sequence[str] = (),
        fallback: str = "",
    ) -> None:
        if not isinstance(block, dict):
            return
        named_by = key if block.get(key) is not None else fallback
        name = block.get(named_by) if named_by else None
        if not isinstance(name, str):
            return
        params = block.get("params") or {}
        if name not in table and not _is_json(params):
            found.append(((*where, "params"), _NOT_JSON))
        if name in table:
            if isinstance(params, dict):
                try:
                    table[name].params.model_validate(params)
                except ValidationError as error:
                    found.extend(
                        (
                            (*where, "params", *e["loc"]),
                            _say(e, params, table[name].params) + _whose(kind, name, table[name].params),
                        )
                        for e in error.errors()
                    )
            return
        if any(name.startswith(prefix) for prefix in free):
            return
        try:
            locate(name, f"roarline.{kind}s")
        except UserInputError as error:
            hint = "" if "." in name else suggest(name, list(table))
            found.append(
                (
                    (*where, named_by),
                    (f"no {kind} is named {name!r}" if "." not in name else str(error)) + hint,
                )
            )

    check("dataset", ("data",), data.get("data"), "dataset", DATASETS)
    check("model", ("model",), data.get("model"), "arch", MODELS, free=("torchvision:", "timm:"))
    attribution = data.get("attribution")
    methods = attribution.get("methods") if isinstance(attribution, dict) else None
    for index, block in enumerate(methods if isinstance(methods, list) else []):
        check("method", ("attribution", "methods", index), block, "method", METHODS, fallback="name")
    perturbation = data.get("evaluate-perturbation")
    metrics = perturbation.get("metrics") if isinstance(perturbation, dict) else None
    for index, metric in enumerate(metrics if isinstance(metrics, list) else []):
        found += _metric_errors(("evaluate-perturbation", "metrics", index), metric)
    return found


def _metric_errors(where: Path_, metric: Any) -> list[tuple[Path_, str]]:
    """What is wrong with one entry of evaluate-perturbation.metrics: a name, or a mapping."""
    known = [name for name, entry in METRICS.items() if entry.stage == "evaluate-perturbation"]
    if isinstance(metric, str):
        if metric in METRICS and metric not in known:
            return [(where, f"{metric!r} is computed by {METRICS[metric].stage}{suggest('', known)}")]
        return [] if metric in known else _own_metric_errors(where, metric, known)
    if not isinstance(metric, dict):
        return []
    for key in ("name", "metric"):
        if metric.get(key) in METRICS:
            return [((*where, key), f"{metric[key]!r} is roarline's own: it stands in the list as a bare name")]
    found = []
    if not _is_json(metric.get("params") or {}):
        found.append(((*where, "params"), _NOT_JSON))
    key = "metric" if metric.get("metric") is not None else "name"
    if isinstance(metric.get(key), str):
        found += _own_metric_errors((*where, key), metric[key], known)
    return found


def _own_metric_errors(where: Path_, path: str, known: Sequence[str]) -> list[tuple[Path_, str]]:
    try:
        locate(path, "roarline.metrics")
    except UserInputError as error:
        said = str(error) if "." in path else f"no metric is named {path!r}{suggest(path, known)}"
        return [(where, said)]
    return []


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _whose(kind: str, name: str, params: type[Params]) -> str:
    if params is NoParams:
        return f" ({kind} {name!r} has no parameters)"
    return ""
