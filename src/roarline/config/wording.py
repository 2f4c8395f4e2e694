"""What is said of a wrong value: pydantic's errors in words, and the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel

_FEW = 60


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of an error message: the nearest known name, and all of them where they are few."""
    few = len(known) <= _FEW
    near = difflib.get_close_matches(name, known, n=1 if few else 4, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{hint} (known: {', '.join(known)})" if known and (few or not near) else hint


def say(error: Any, model: type[BaseModel]) -> str:
    """One of pydantic's errors in words, of data that was to be a ``model``."""
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
