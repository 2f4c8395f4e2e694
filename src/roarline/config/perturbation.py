"""The section evaluate-perturbation. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from roarline.config.fills import FILL_HELP, Fill
from roarline.config.metrics import METRICS
from roarline.config.probes import (
    PROBES,
    FaithfulnessCorrelation,
    Infidelity,
    InformationCurve,
    MapSensitivity,
    SensitivityN,
)
from roarline.config.section import Compat, Fraction, Precision, Section, Threads, Ties, rising
from roarline.config.sweep import FACTORS, Sweep


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


class Road(Section):
    """road_morf, road_lerf, road_combined."""

    fractions: list[Fraction] = Field(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        min_length=1,
        description="removed_fraction of the pixels, of LeRF too; the scores are means over them",
    )
    noise: float = Field(
        0.01, ge=0, description="standard deviation on imputed pixels, of the pixel range; of the fill noisy_linear too"
    )

    @field_validator("fractions")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        return rising(value)


class Irof(Section):
    """irof: superpixels, the most relevant first."""

    superpixels: Literal["slic", "grid"] = Field("slic", description="slic: by colour and place; grid: square cells")
    segments: int = Field(100, ge=2, description="superpixels an image, about")
    compactness: float = Field(20.0, gt=0, description="slic: weight of place against colour")
    steps: int = Field(20, ge=1, description="equal steps from no superpixel removed to all")
    fill: Fill = Field("mean", description=FILL_HELP)


class RegionPerturbation(Section):
    """region_perturbation: square patches, the most relevant first."""

    patch_px: list[Annotated[int, Field(ge=1)]] = Field(
        [8], min_length=1, description="sides of the patches; a number a method for each"
    )
    fractions: list[Fraction] = Field(
        [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2],
        min_length=2,
        description="share of the patches that is removed",
    )
    fill: Fill = Field("uniform_noise", description=FILL_HELP)

    @field_validator("fractions")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        return rising(value)

    @field_validator("patch_px")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError("holds a value twice")
        return value


# Sections that go into a key only where one of these metrics is asked for.
SETTINGS_OF: dict[str, tuple[str, ...]] = {
    "irof": ("irof",),
    "region_perturbation": ("region_perturbation",),
    **PROBES,
}


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
        description="morf, lerf, srg, aopc and the deviations",
    )
    steps: int = Field(28, ge=1, description="insertion and deletion: equal steps from nothing to everything")
    fill: Fill = Field("mean", description=f"morf, lerf, srg, aopc and the deviations; {FILL_HELP}")
    insertion_fill: Fill = Field("blur", description="what pixels appear on")
    deletion_fill: Fill = Field("mean", description="what deleted pixels become")
    road: Road = Road()
    irof: Irof = Irof()
    region_perturbation: RegionPerturbation = RegionPerturbation()
    sensitivity_n: SensitivityN = SensitivityN()
    faithfulness_correlation: FaithfulnessCorrelation = FaithfulnessCorrelation()
    infidelity: Infidelity = Infidelity()
    map_sensitivity: MapSensitivity = MapSensitivity()
    information_curve: InformationCurve = InformationCurve()
    score: Literal["probability", "logit"] = Field(
        "probability", description="of the target class, under whose curve the areas lie; deviations: the probability"
    )
    limit: int | None = Field(None, ge=1, description="test images, a draw from the seed; null means all")
    sweep: Sweep | None = Field(None, description="the same test run otherwise, to see how stable its ranking is")
    ties: Ties = "random"
    compat: Compat = "corrected"
    precision: Precision = "float32"
    threads: Threads = 2

    @field_validator("fractions")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        return rising(value)

    @property
    def unused(self) -> set[str]:
        """Sections that no metric and no fill reads."""
        read = {name for name, metrics in SETTINGS_OF.items() if set(metrics) & set(self.metrics_by_name)}
        fills = [self.fill, self.insertion_fill, self.deletion_fill]
        fills += [getattr(self, name).fill for name in ("irof", "region_perturbation") if name in read]
        if "noisy_linear" in fills or any(name.startswith("road_") for name in self.metrics_by_name):
            read.add("road")
        return {*SETTINGS_OF, "road"} - read

    @property
    def metrics_by_name(self) -> list[str]:
        """Those that are bare names or dotted paths."""
        return [metric for metric in self.metrics if isinstance(metric, str)]

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

    @model_validator(mode="after")
    def _sweep_changes_metrics(self) -> EvaluatePerturbation:
        for factor, _ in self.sweep.points if self.sweep else []:
            metrics = FACTORS[factor]
            if metrics and not set(metrics) & set(self.table_metrics):
                raise ValueError(f"sweep.{factor} changes only {', '.join(metrics)}, and none of them is in metrics")
        return self
