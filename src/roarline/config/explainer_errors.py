"""What doesn't fit between train-explainer and other sections, found on the raw mapping. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roarline.config.component_errors import Path_
from roarline.config.explainers import EXPLAINERS
from roarline.config.wording import suggest

_RECURSIVE = "recursive_roar"


def explainer_errors(data: Mapping[str, Any], *, several_labels: bool) -> list[tuple[Path_, str]]:
    """Compare the entries of train-explainer with the methods that use them, and with the data.

    Args:
        data: The configuration; what is of a wrong type is left to the types' own errors.
        several_labels: True where images may have several.

    Returns:
        (key path, what is wrong) of every problem.
    """
    entries = _mappings(data.get("train-explainer"))
    names = [entry.get("name") for entry in entries.values()]
    found: list[tuple[Path_, str]] = []
    for index, entry in entries.items():
        name, component = entry.get("name"), entry.get("explainer") or entry.get("name")
        if isinstance(name, str) and name in names[: list(entries).index(index)]:
            found.append((("train-explainer", index, "name"), f"two entries share the name {name!r}"))
        if several_labels and isinstance(component, str) and component in EXPLAINERS and EXPLAINERS[component].one_mask:
            said = f"{component} draws one mask for an image's one label, and images of this data set may have several"
            found.append((("train-explainer", index), f"{said}: use nn_explainer, or data with one label an image"))
    used = []
    for index, method in _mappings(_section(data, "attribution").get("methods")).items():
        name, explainer = method.get("name"), method.get("explainer")
        if not isinstance(explainer, str):
            continue
        used.append(str(name))
        if explainer not in names:
            known = [name for name in names if isinstance(name, str)]
            hint = suggest(explainer, known) if known else "; there is no train-explainer section"
            said = f"{name!r} names explainer {explainer!r}, which is not trained here{hint}"
            found.append((("attribution", "methods", index, "explainer"), said))
    modes = _section(data, "evaluate-roar").get("modes")
    if used and isinstance(modes, list) and _RECURSIVE in modes:
        said = (
            f"{_RECURSIVE} asks each retrained network for maps, and explainers are trained on images without gaps; "
            f"leave out the mode, or the methods {', '.join(used)}"
        )
        found.append((("evaluate-roar", "modes"), said))
    return found


def _mappings(value: Any) -> dict[int, Mapping[str, Any]]:
    """The mappings in a list, by index."""
    return {i: each for i, each in enumerate(value if isinstance(value, list) else []) if isinstance(each, Mapping)}


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}
