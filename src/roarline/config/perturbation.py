"""The section evaluate-perturbation. Imports no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from roarline.config.metrics import METRICS
from roarline.config.section import Compat, Fraction, Precision, Section, Threads, Ties, told_apart


class Metric(Section):
    """A metric of the user's own."""

    name: str = Field(
        min_length=1, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", description="its name in every table, unique"
    )
    metric: str | None = Field(None, description="a dotted path or an entry point of roarline.metrics; default: name")
    params: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the callable")
    higher_is_better: bool | None = Field(None, description="null: shown, but methods are not ranked by it")
    unit: str = Field("", max_length=20, description="written after its values")

    @property
    def component(self) -> str:
        """Dotted path or entry point of what computes the values."""
        return self.metric or self.name


def _name_or_metric(value: Any) -> str:
    return "Metric" if isinstance(value, dict | Metric) else "Name"


class EvaluatePerturbation(Section):
    """Remove pixels in order of relevance and watch the classifier's score; metrics of the user's own ride along."""

    metrics: list[
        Annotated[Annotated[str, Tag("Name")] | Annotated[Metric, Tag("Metric")], Discriminator(_name_or_metric)]
    ] = Field(
        ["morf", "lerf", "srg", "insertion", "deletion", "morf_deviation", "lerf_deviation"],
        min_length=1,
        description="names of `roarline list metrics`; of one's own a dotted path, or a mapping with name and metric",
    )
    fractions: list[Fraction] = Field(
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        min_length=2,
        description="morf, lerf, srg and the deviations",
    )
    steps: int = Field(28, ge=1, description="insertion and deletion: equal steps from nothing to everything")
    fill: Literal["mean", "zero", "blur"] = Field("mean", description="morf, lerf, srg and the deviations")
    insertion_fill: Literal["mean", "zero", "blur"] = Field("blur", description="what pixels appear on")
    deletion_fill: Literal["mean", "zero", "blur"] = Field("mean", description="what deleted pixels become")
    score: Literal["probability", "logit"] = Field(
        "probability", description="of the target class, under whose curve the areas lie; deviations: the probability"
    )
    limit: int | None = Field(None, ge=1, description="test images, a draw from the seed; null means all")
    ties: Ties = "random"
    compat: Compat = "corrected"
    precision: Precision = "float32"
    threads: Threads = 2

    @field_validator("fractions")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if any(b <= a for a, b in pairwise(value)):
            raise ValueError("must rise from one value to the next")
        return told_apart(value)

    @property
    def table_metrics(self) -> list[str]:
        """The metrics that roarline brings, each once, in the order of the table."""
        return [name for name in METRICS if name in self.metrics]

    @property
    def own_metrics(self) -> list[Metric]:
        """The user's own, in the order of the configuration."""
        own = [Metric(name=metric) if isinstance(metric, str) else metric for metric in self.metrics]
        return [metric for metric in own if metric.name not in METRICS]

    @model_validator(mode="after")
    def _unique_names(self) -> EvaluatePerturbation:
        names = [metric.name for metric in self.own_metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two metrics share a name: {', '.join(twice)}; give one of them another `name`")
        return self
