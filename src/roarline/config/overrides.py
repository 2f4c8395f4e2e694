"""Safe YAML, and single values of it replaced from the command line."""

from __future__ import annotations

import re
from typing import Any

import yaml

from roarline.errors import ConfigError

_MOST_VALUES = 100_000


class SafeLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number, as YAML 1.2 does."""


SafeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def unaliased(value: Any) -> Any:
    """A copy in which what an anchor shares between two places stands in each by itself.

    Raises:
        RecursionError: An anchor holds itself.
        ConfigError: Anchors within anchors make more values than any experiment has.
    """
    made = 0

    def copied(value: Any) -> Any:
        nonlocal made
        made += 1
        if made > _MOST_VALUES:
            raise ConfigError(f"its anchors unfold to more than {_MOST_VALUES:,} values")
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        if isinstance(value, list):
            return [copied(item) for item in value]
        return value

    return copied(value)


def read_value(text: str, where: str) -> Any:
    """One value from the command line, read as the configuration's are.

    Args:
        where: Named in the message.

    Raises:
        ConfigError: It is no YAML.
    """
    try:
        return yaml.load(text, Loader=SafeLoader)  # noqa: S506 - derives from yaml.SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: the value is not valid YAML") from error


def override(data: dict[str, Any], word: str) -> None:
    """Replace one value, in place.

    Args:
        data: The configuration, without aliases.
        word: ``key.path=value``; the value is YAML; list items are named by index or by their ``name``.

    Raises:
        ConfigError: The word has no such form, or the list no such item.
    """
    path, equals, text = word.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {word!r}: expected key.path=value, e.g. train-cls.epochs=3")
    value = read_value(text, f"--set {word!r}")
    current: Any = data
    *parents, last = path.split(".")
    for part in parents:
        place = _place(current, part, word)
        if isinstance(current, dict) and not isinstance(current.get(place), (dict, list)):
            current[place] = {}
        current = current[place]
        if not isinstance(current, (dict, list)):
            raise ConfigError(f"--set {word!r}: {part!r} holds {current!r}, which has no keys")
    current[_place(current, last, word)] = value


def _place(current: Any, part: str, word: str) -> str | int:
    if isinstance(current, dict):
        return part
    if part.isdigit() and int(part) < len(current):
        return int(part)
    for index, item in enumerate(current):
        if isinstance(item, dict) and item.get("name") == part:
            return index
    raise ConfigError(f"--set {word!r}: the list has no item {part!r} (use an index from 0, or an item's name)")
