"""YAML to a typed experiment: every error at once, each with file, line, key path and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from roarline.config.component import Params
from roarline.config.component_errors import Path_, component_errors
from roarline.config.experiment import Experiment
from roarline.config.overrides import SafeLoader, override, unaliased
from roarline.config.section_errors import section_errors
from roarline.config.wording import say
from roarline.errors import ConfigError, UserInputError

_SECTIONS = frozenset(
    field.alias or name
    for name, field in Experiment.model_fields.items()
    if name not in ("name", "description", "seed")
)


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
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: e.g. a date without such a month
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    lines = _Lines(path, node)
    try:
        data = unaliased(data)
    except RecursionError as error:
        raise ConfigError(f"{path}: an anchor holds itself") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for key in lines.empty_sections():  # a section without a word has its defaults; `null` leaves it out
        data[key] = {}
    data.pop("anchors", None)  # a place for &anchors that are used elsewhere
    problems: list[tuple[int, str]] = lines.duplicates()
    for word in overrides:
        override(data, word)
    experiment = None
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        problems += [lines.problem(_clean(e["loc"], data), say(e, Experiment)) for e in error.errors()]
    problems += [lines.problem(where, what) for where, what in component_errors(data)]
    between = section_errors(data)  # the types say the same in one breath, but only once all else is right
    problems = [problem for problem in problems if not any(what in problem[1] for _, what in between)]
    problems += [lines.problem(where, what) for where, what in between]
    if problems or experiment is None:
        text = "\n".join(line for _, line in sorted(set(problems)))
        raise ConfigError(f"{len(set(problems))} problem{'s' if len(set(problems)) > 1 else ''} in {path}:\n{text}")
    return experiment


def parse_params(kind: str, name: str, params_type: type[Params], params: dict[str, Any]) -> Params:
    """Check a component's parameters against its type.

    Raises:
        UserInputError: Names each wrong parameter.
    """
    try:
        return params_type.model_validate(params)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {say(e, params_type)}" for e in error.errors())
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

    def empty_sections(self) -> list[str]:
        """Top-level keys behind which nothing stands, not even null."""
        pairs = self.root.value if isinstance(self.root, yaml.MappingNode) else []
        return [
            key.value
            for key, value in pairs
            if isinstance(value, yaml.ScalarNode)
            and value.value == ""
            and value.style is None
            and key.value in _SECTIONS
        ]

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
