"""Names of torchvision's classifiers and of their published weights, read from its source text. Imports no torch.

torchvision itself takes seconds to import; a misspelt name is to be found before any job runs.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def torchvision_classifiers() -> Mapping[str, tuple[str, ...]]:
    """Name of each classifier to the names of its weights; empty where torchvision's source is not to be found."""
    spec = importlib.util.find_spec("torchvision")
    found: dict[str, tuple[str, ...]] = {}
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for path in sorted(Path(folder, "models").glob("*.py")):
            found |= _classifiers(ast.parse(path.read_text(encoding="utf-8")))
    return found


def has_timm() -> bool:
    """True where the package timm is installed."""
    return importlib.util.find_spec("timm") is not None


def is_weights_path(weights: str) -> bool:
    """True where ``model.weights`` is a path; a name has no slash and no suffix."""
    return "/" in weights or weights.endswith((".pth", ".pt", ".safetensors", ".bin"))


def _classifiers(module: ast.Module) -> dict[str, tuple[str, ...]]:
    """The registered functions of one file, with the members of the enumeration that each one's ``weights`` takes."""
    members = {
        node.name: tuple(
            target.id
            for line in node.body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name)
        )
        for node in module.body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and (name := _registered_name(node)) is not None:
            annotations = [a.annotation for a in node.args.kwonlyargs if a.arg == "weights" and a.annotation]
            used = {part.id for a in annotations for part in ast.walk(a) if isinstance(part, ast.Name)}
            found[name] = tuple(weight for enum in sorted(used & set(members)) for weight in members[enum])
    return found


def _registered_name(function: ast.FunctionDef) -> str | None:
    """The name under which ``@register_model()`` or ``@register_model(name=…)`` registers a function."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", None) == "register_model":
            given = [*decorator.args, *(k.value for k in decorator.keywords if k.arg == "name")]
            return str(given[0].value) if given and isinstance(given[0], ast.Constant) else function.name
    return None
