"""Components named in YAML: their parameter types and where their code lies. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from roarline.errors import UserInputError

Sign = Literal["signed", "positive", "absolute", "squared"]
Channels = Literal["sum", "mean", "max", "max_abs", "none"]


class Params(BaseModel):
    """Parameters of a component: the fields are its YAML keys, its documentation and its share of the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``masks: yes`` would be one mask."""
        kinds = _plain_types(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and bool not in kinds and {int, float} & kinds:
            raise ValueError(f"is {str(value).lower()}, expected a number")
        return value


def _plain_types(annotation: Any) -> set[Any]:
    """The types that a field may have at its top: those of a union one by one."""
    if get_origin(annotation) in (Union, types.UnionType):
        return {kind for part in get_args(annotation) for kind in _plain_types(part)}
    return _plain_types(get_args(annotation)[0]) if get_origin(annotation) is Annotated else {annotation}


class NoParams(Params):
    """A component without parameters."""


class Smooth(Params):
    """A moment of a method's maps over noisy copies of the image (captum calls it a noise tunnel)."""

    samples: int = Field(25, ge=1, description="noisy copies an image")
    noise: float = Field(
        0.15, ge=0, description="noise standard deviation as a fraction of the image's own value range"
    )
    kind: Literal["mean", "squared", "variance"] = Field(
        "mean", description="mean, mean square or variance of the maps (SmoothGrad, SmoothGrad-Squared, VarGrad)"
    )


class MapFilter(Params):
    """A filter over a method's maps, for controls that are only blurrier or coarser than the method itself."""

    kind: Literal["blur", "max"] = Field(description="blur: a Gaussian; max: the largest value of a square window")
    sigma_px: float | None = Field(None, gt=0, description="blur: standard deviation")
    window_px: int | None = Field(None, ge=3, description="max: side of the window, odd")

    @model_validator(mode="after")
    def _its_own_size(self) -> MapFilter:
        if (self.kind == "blur") != (self.sigma_px is not None) or (self.kind == "max") != (self.window_px is not None):
            raise ValueError("blur takes sigma_px, max takes window_px")
        if self.window_px is not None and self.window_px % 2 == 0:
            raise ValueError(f"window_px is {self.window_px}, expected an odd number: the window is centred on a pixel")
        return self


@dataclass(frozen=True)
class Component:
    """One line of a table: a name that YAML may use, and what stands behind it.

    Args:
        implementation: ``package.module:function``; imported only when it is used.
        params: The parameter type; keyword arguments of the implementation.
        summary: One line for ``roarline list``.
        source: Paper, equation or section.
    """

    implementation: str
    params: type[Params]
    summary: str
    source: str = ""

    def load(self) -> Callable[..., Any]:
        """Import the implementation."""
        return load_object(self.implementation)


@dataclass(frozen=True)
class MethodComponent(Component):
    """An attribution method.

    Args:
        passes: Cost in network passes for one image, in words, e.g. ``1 forward + 1 backward``.
        channels: Default reduction of [B, C, H, W] maps to [B, H, W].
        sign: Default reading of the values where pixels are ranked.
        one_pass: Its only forward pass is of the unchanged images: it takes -1 as a target ("the predicted class"), and
            the logits come with the map.
        keeps_activations: Its passes are recorded for a backward pass to the input; False lets more images into one.
        baseline: True for a control that rides along in every table.
    """

    passes: str = ""
    channels: Channels = "sum"
    sign: Sign = "signed"
    needs_layer: bool = False
    one_pass: bool = False
    keeps_activations: bool = True
    baseline: bool = False


@dataclass(frozen=True)
class MetricComponent(Component):
    """A metric; ``higher_is_better`` and ``unit`` go into every score table.

    Args:
        higher_is_better: None where methods are not ranked by it.
        stage: What computes it.
        range: Lowest and highest value, None where there is no bound.
        needs: Beside the map: ``network``, ``gradients`` (the method is called again, and takes its own),
            ``ground_truth`` (pixels of objects, from segmentation or boxes), ``segmentation``, ``boxes``.
        passes: Cost in network passes for one row, in words.
    """

    higher_is_better: bool | None = None
    unit: str = ""
    stage: str = ""
    range: tuple[float | None, float | None] = (None, None)
    needs: tuple[str, ...] = ()
    passes: str = "none"


@dataclass(frozen=True)
class DatasetComponent(Component):
    """A data set.

    Args:
        ground_truth: What beside labels it may know, of ``boxes`` and ``segmentation``; see ``known``.
        pointed_at: Which of them pointing games are published with; None: segmentation where there is one.
        embedded: True where no raw files are needed.
        fingerprint: ``module:function`` (torch-free) from (root, params) to a string that identifies the
            raw data, or None where the raw data is missing.
        side_px: Of its images, where all are square and of one size that no parameter sets.
        obtain: ``module:function`` from root that downloads the raw data, where that is possible.
        multi_label: Under which parameters its images may have several labels.
    """

    fingerprint: str = ""
    side_px: int | None = None
    obtain: str = ""
    embedded: bool = False
    multi_label: Callable[[Any], bool] = lambda params: False
    ground_truth: tuple[str, ...] = ()
    pointed_at: Literal["boxes", "segmentation"] | None = None

    def known(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """The ground truth that it has under these parameters: without a kind whose parameter of that name is null."""
        given = {name: field.default for name, field in self.params.model_fields.items()} | dict(params)
        return tuple(kind for kind in self.ground_truth if given.get(kind, kind) is not None)


@dataclass(frozen=True)
class UserComponent:
    """A component of the user's own, named by dotted path or entry point; its params are free."""

    dotted_path: str
    source_sha256: str
    source_file: str
    params: Mapping[str, Any] = field(default_factory=dict)


def load_object(path: str) -> Callable[..., Any]:
    """Import ``package.module:name`` or ``package.module.name``.

    Raises:
        UserInputError: The module or the name doesn't exist.
    """
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name:
        raise UserInputError(f"{path!r} is neither a known name nor a dotted path such as my_package.my_module.my_name")
    _see_working_directory()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserInputError(
            f"{path!r}: can't import module {error.name!r}; is it installed, or in this folder?"
        ) from error
    except Exception as error:
        raise UserInputError(f"{path!r}: {_while_importing(module_name, error)}") from error
    if not hasattr(module, attribute):
        raise UserInputError(f"{path!r}: module {module_name!r} ({module.__file__}) has no name {attribute!r}")
    loaded = getattr(module, attribute)
    if not callable(loaded):
        raise UserInputError(f"{path!r} is a {type(loaded).__name__}, expected something that can be called")
    return loaded  # type: ignore[no-any-return]


def locate(name: str, group: str) -> UserComponent:
    """Find the source file of a user's component without importing it.

    Args:
        name: A dotted path, or the name of an entry point.
        group: Entry point group, e.g. ``roarline.methods``.

    Raises:
        UserInputError: There is no such module, or it has no Python source.
    """
    for point in entry_points(group=group, name=name):
        name = point.value.replace(":", ".")
    module_name, _, _ = name.rpartition(".")
    if not module_name:
        raise UserInputError(f"{name!r} is neither a known name nor a dotted path such as my_package.my_module.my_name")
    _see_working_directory()
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise UserInputError(
            f"{name!r}: can't find module {module_name!r}; is it installed, or in this folder?"
        ) from error
    except Exception as error:  # finding a.b.c imports a.b
        raise UserInputError(f"{name!r}: {_while_importing(module_name, error)}") from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UserInputError(
            f"{name!r}: can't find the Python source of module {module_name!r} (installed, or in this folder?)"
        )
    source = Path(spec.origin)
    return UserComponent(name, hashlib.sha256(source.read_bytes()).hexdigest(), str(source))


def default_params(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword defaults of a callable, for ``roarline list``."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _while_importing(module: str, error: Exception) -> str:
    """The place in the user's file where importing it failed."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else f"{last.filename}:{last.lineno}"
    return f"importing {module!r} failed at {where}: {type(error).__name__}: {error}"


def _see_working_directory() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
