"""What can be set, in the words of YAML: parameters of a table's line, and of a function of another package."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from roarline.config.component import load_object
from roarline.errors import UserInputError

_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_CHOICE = re.compile(r"\^\(([\w|]+)\)\$")
_GIVEN = 3  # model, images and targets come from roarline


def describe_fields(params: type[BaseModel], prefix: str = "") -> list[str]:
    """A line for each key: its name, type, limits, default and description; sections' keys behind a dot."""
    lines = []
    for name, info in params.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            lines += describe_fields(info.annotation, f"{prefix}{name}.")
            continue
        default = (
            "required" if info.is_required() else f"default {in_yaml(info.get_default(call_default_factory=True))}"
        )
        said = f": {info.description}" if info.description else ""
        lines.append(f"{prefix}{name} ({_kind_and_limits(info)}, {default}){said}")
    return lines


def describe_offered(point: EntryPoint) -> str:
    """A few lines about what another installed package offers; imports it.

    The first line of its docstring, where it comes from, and the keyword arguments that YAML may set.
    """
    source = f"{point.dist.name} {point.dist.version}, " if point.dist is not None else ""
    where = f"    from {source}{point.value.replace(':', '.')}"
    try:
        function = load_object(point.value)
    except UserInputError as error:
        return f"{point.name}: can't be used\n{where}\n    {error}"
    summary = (inspect.getdoc(function) or "without a description").splitlines()[0].rstrip(".")
    return "\n".join([f"{point.name}: {summary}", where, *(f"    {line}" for line in _arguments(function))])


def in_words(annotation: Any) -> str:
    """A type as YAML knows it, e.g. ``float | mean | null``."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if origin is Annotated:
        return in_words(parts[0])
    if origin is Literal:
        return " | ".join(in_yaml(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " | ".join(in_words(part) for part in parts)
    if origin in (list, tuple):
        return f"list of {in_words(parts[0])}"
    if origin is dict:
        return "mapping"
    return inspect.formatannotation(annotation)


def in_yaml(value: Any) -> str:
    """A value as one would write it in YAML, near enough."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(in_yaml(part) for part in value)}]"
    return str(value)


def _kind_and_limits(info: FieldInfo) -> str:
    kind = in_words(info.annotation)
    for limit in info.metadata:
        choice = _CHOICE.fullmatch(getattr(limit, "pattern", None) or "")
        if choice:
            kind = choice[1].replace("|", " | ")
        for attribute, sign in _LIMITS.items():
            if hasattr(limit, attribute):
                kind += f", {sign} {getattr(limit, attribute):g}"
    return kind


def _arguments(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some callables written in C have no signature
        return []
    lines = []
    for place, parameter in enumerate(parameters):
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if (positional and place < _GIVEN) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        unset = parameter.default is parameter.empty
        said = ["required" if unset else f"default {in_yaml(parameter.default)}"]
        if parameter.annotation is not parameter.empty:
            named = parameter.annotation
            said.insert(0, named if isinstance(named, str) else in_words(named))
        lines.append(f"{parameter.name} ({', '.join(said)})")
    return lines
