"""The typed experiment: what one YAML file may say. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from roarline.config.component import Channels, MapFilter, Sign, Smooth
from roarline.config.datasets import DATASETS
from roarline.config.explainers import Explainer
from roarline.config.localization import EvaluateLocalization
from roarline.config.methods import METHODS
from roarline.config.perturbation import EvaluatePerturbation
from roarline.config.retraining import EvaluateFFidelity, EvaluateIdsds, EvaluateRoar, MergeNormalization
from roarline.config.sanity import DATA_RANDOMISATION, EvaluateSanity
from roarline.config.section import Precision, Section, Threads
from roarline.config.section_errors import section_errors
from roarline.config.training import TrainCls

Split = Literal["train", "validation", "test"]
MaskReading = Literal["min_max", "none"]
EXPLAINER = "explainer"
_OF_LAYERS, _NO_NAMES = ("layer", "contrast_layer"), ("auto", "classifier_input")
Baseline = Literal["random", "sobel", "centre_gaussian", "constant", "ground_truth"]


class Limit(Section):
    """Images to use of each split, a stratified draw from the seed; null means all."""

    train: int | None = Field(None, ge=1, description="of what is left for training once the validation split is cut")
    validation: int | None = Field(None, ge=1, description="of the split that was cut, or that the data set has")
    test: int | None = Field(None, ge=1, description="of the images that everything is evaluated on")
    per_class: bool = Field(False, description="the numbers count images of each class, not of all together")


class Statistics(Section):
    """Mean and standard deviation of the normalisation, in [0, 1] pixel values, one number a channel."""

    mean: list[float] = Field(description="one number, or one a channel")
    std: list[Annotated[float, Field(gt=0)]] = Field(description="as many as means")

    @model_validator(mode="after")
    def _one_or_three(self) -> Statistics:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                f"has {len(self.mean)} means and {len(self.std)} stds, expected 1 or 3 of each, one a channel"
            )
        return self


class Data(Section):
    """Which images, how they are split, and how pixels become network inputs."""

    dataset: str = Field(description="a name of `roarline list datasets`, or a dotted path")
    root: str | None = Field(None, description="folder or tar of the raw data; never part of a key")
    params: dict[str, Any] = Field(default_factory=dict, description="the data set's own, see `roarline list datasets`")
    validation_fraction: float = Field(0.125, ge=0, lt=1, description="share of the training split, stratified")
    validation_per_class: int | None = Field(
        None, ge=1, description="instead: so many training images of each class are held out"
    )
    validation_annotated: bool = Field(
        False, description="validation_per_class: drawn among the images with a box, fewer where a class has fewer"
    )
    limit: Limit = Limit()
    resize_px: int | None = Field(None, ge=1, description="resize the shorter side to this, bilinear, antialiased")
    aspect: Literal["keep", "stretch"] = Field(
        "keep", description="stretch: resize_px is of both sides, as NN-Explainer and wsolevaluation have it"
    )
    crop_px: int | None = Field(None, ge=1, description="then cut a centre square of this side")
    normalization: Literal["dataset", "imagenet"] | Statistics = Field(
        "dataset", description="dataset: statistics of the training split; imagenet: the usual constants"
    )
    pack_limit_mb: int = Field(4096, ge=1, description="pixels are packed up to this size, beyond it files are indexed")

    @model_validator(mode="after")
    def _annotated_of_each_class(self) -> Data:
        if self.validation_annotated and self.validation_per_class is None:
            raise ValueError("validation_annotated goes with validation_per_class; give the number")
        return self

    @model_validator(mode="after")
    def _stretched_to_a_size(self) -> Data:
        if self.aspect == "stretch" and self.resize_px is None:
            raise ValueError("aspect stretch needs resize_px, the side of the square; give it")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Data:
        if self.resize_px is not None and self.crop_px is not None and self.crop_px > self.resize_px:
            raise ValueError(f"crop_px is {self.crop_px}, more than resize_px {self.resize_px} leaves of the image")
        return self


class Model(Section):
    """Which network."""

    arch: str = Field(description="a name of `roarline list models`, torchvision:NAME, timm:NAME, or a dotted path")
    params: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the network")
    weights: str | None = Field(None, description="a torchvision weight name, e.g. IMAGENET1K_V2, or a path")


class Method(Section):
    """One attribution method of the experiment."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="unique in this experiment")
    method: str | None = Field(None, description="a name of `roarline list methods`, or a dotted path; default: name")
    explainer: str | None = Field(None, description="instead of a method: the name of an entry of train-explainer")
    params: dict[str, Any] = Field(default_factory=dict, description="the method's own, see `roarline list methods`")
    batched: bool = Field(True, description="false: called with one preprocessed image [1, C, H, W] and one label")
    channels: Channels | None = Field(None, description="reduction of [B, C, H, W] maps; default: the method's")
    sign: Sign | None = Field(None, description="how values are read where pixels are ranked; default: the method's")
    smooth: Smooth | None = Field(None, description="a moment of the maps over noisy copies of the image")
    filter: MapFilter | None = Field(None, description="a blurred or max-filtered version of the maps, as a control")
    merge_normalization: MergeNormalization | None = Field(
        None, description="of each map before the maps of an image with several targets merge; default: evaluate-roar's"
    )
    mask: MaskReading | None = Field(
        None,
        description="how evaluate-localization reads a map as a mask in [0, 1]: min_max scales it, none takes it as it "
        "is; default: none for ground_truth, constant and explainers, min_max for others",
    )

    @model_validator(mode="after")
    def _method_or_explainer(self) -> Method:
        if self.explainer is not None and (self.method not in (None, EXPLAINER) or self.params):
            raise ValueError("explainer stands alone: method and params are those of its entry in train-explainer")
        if self.explainer is None and self.component == EXPLAINER:
            raise ValueError("give explainer: the name of an entry of train-explainer")
        if not self.batched and self.component in METHODS:
            raise ValueError(f"batched: false is for methods of one's own; {self.component!r} takes whole batches")
        return self

    @property
    def component(self) -> str:
        """Name or dotted path of what computes the maps."""
        return EXPLAINER if self.explainer is not None else self.method or self.name

    @property
    def layers(self) -> list[str]:
        """Layers of the classifier that the parameters of a method of roarline name; ``auto`` names none."""
        if self.component not in METHODS:
            return []
        named = [self.params.get(name) for name in _OF_LAYERS]
        names = [layer for one in named for layer in (one if isinstance(one, list) else [one])]
        return [name for name in names if isinstance(name, str) and name not in _NO_NAMES]

    @property
    def baseline(self) -> bool:
        """True for a control that knows nothing of the classifier."""
        component = METHODS.get(self.component)
        return component is not None and component.baseline


class Attribution(Section):
    """Which maps are extracted."""

    methods: list[Method] = Field(min_length=1, description="in the order in which tables and pictures show them")
    baselines: list[Baseline] | None = Field(
        None,
        description="controls that ride along in every table; default: all four, and ground_truth where the data set "
        "has one",
    )
    target: Literal["predicted", "label", "every-label"] = Field(
        "predicted",
        description="the class a map speaks of; predicted: the largest logit, multi-label too; every-label: a row each",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="images that maps are made of, a draw from the seed, for methods too slow for all",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="of the maps in their file")
    precision: Precision = "float32"
    threads: Threads = 2

    @model_validator(mode="after")
    def _unique_names(self) -> Attribution:
        names = [method.name for method in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two methods share a name: {', '.join(twice)}; give one of them another `name` and a `method`"
            )
        return self


class AggregateScores(Section):
    """Intervals and ranks."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples")


class Report(Section):
    """The page."""

    title: str | None = Field(None, description="default: the experiment's name")
    gallery_images: int = Field(8, ge=0, le=200, description="test images shown with every method's map")


class Runtime(Section):
    """Where and how the work runs; in no key, but that ``evaluate-roar.engine: auto`` follows the device."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="auto: every GPU, else the CPU")
    workers: int | Literal["auto"] = Field("auto", description="processes; auto: one for each GPU or CPU slot")
    executor: Literal["local", "ray"] = Field(
        "local", description="local: worker processes on this machine; ray: the nodes of a Ray cluster"
    )
    address: str = Field(
        "auto", min_length=1, description="ray: host:port of the cluster; auto: the one this machine is a node of"
    )
    gpus_per_job: float = Field(
        1.0, gt=0, le=1, description="ray: share of a GPU that a job takes; 0.25: four jobs at a time on each"
    )
    artifacts: str = Field("artifacts", description="folder of all results")
    loader_threads: int = Field(2, ge=1, description="threads that decode images")
    shards: int = Field(
        1, ge=1, le=10_000, description="jobs into which each extraction of maps is cut, for workers to share"
    )
    map_compression: Literal["none", "gzip", "lz4"] = Field(
        "none",
        description="of the maps in their files, without loss; gzip: slow, for every HDF5 reader; lz4: fast, needs "
        "roarline[compression], and the plugin in other readers",
    )
    record_steps: bool = Field(
        True,
        description="on a GPU, training steps become CUDA graphs where that is known to be safe; false: never; results "
        "are the same up to the order of sums",
    )
    tensorboard: str | None = Field(
        None, description="folder to which trainings write their curves for TensorBoard, a folder each; null: none"
    )

    @field_validator("workers")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be 1 or more, or auto")
        return value


class Experiment(BaseModel):
    """One YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    name: str = Field(
        min_length=1,
        max_length=80,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$",
        description="its folder under artifacts/experiments",
    )
    description: str = Field("", description="the question that the report puts at its head")
    seed: int = Field(0, ge=0, strict=True, description="every random draw comes from it")
    data: Data
    model: Model
    train_cls: TrainCls | None = Field(None, alias="train-cls")
    train_explainer: list[Explainer] = Field([], alias="train-explainer")
    attribution: Attribution
    evaluate_roar: EvaluateRoar | None = Field(None, alias="evaluate-roar")
    evaluate_perturbation: EvaluatePerturbation | None = Field(None, alias="evaluate-perturbation")
    evaluate_localization: EvaluateLocalization | None = Field(None, alias="evaluate-localization")
    evaluate_f_fidelity: EvaluateFFidelity | None = Field(None, alias="evaluate-f-fidelity")
    evaluate_idsds: EvaluateIdsds | None = Field(None, alias="evaluate-idsds")
    evaluate_sanity: EvaluateSanity | None = Field(None, alias="evaluate-sanity")
    aggregate_scores: AggregateScores = Field(AggregateScores(), alias="aggregate-scores")
    report: Report = Report()
    runtime: Runtime = Runtime()

    @property
    def methods(self) -> list[Method]:
        """The methods that are named, then the baselines that are not."""
        named = self.attribution.methods
        present = {m.component for m in named if m.baseline and not (m.smooth or m.filter or m.params)}
        names = {m.name for m in named}
        wanted = self._baselines if self.attribution.baselines is None else self.attribution.baselines
        return [
            *named,
            *(
                Method(name=name if name not in names else f"{name}_baseline", method=name)
                for name in wanted
                if name not in present
            ),
        ]

    @property
    def _baselines(self) -> list[Baseline]:
        every: list[Baseline] = ["sobel", "centre_gaussian", "constant", "random"]
        dataset = DATASETS.get(self.data.dataset)
        if dataset is not None and dataset.known(self.data.params):
            every.insert(0, "ground_truth")
        return every

    @model_validator(mode="after")
    def _sections_fit(self) -> Experiment:
        found = section_errors(self.model_dump(mode="json", by_alias=True))
        if found:
            raise ValueError("; ".join(f"{'.'.join(map(str, where))}: {what}" for where, what in found))
        return self

    @model_validator(mode="after")
    def _labels_to_shuffle(self) -> Experiment:
        section = self.evaluate_sanity
        if section and DATA_RANDOMISATION in section.metrics and not (section.training or self.train_cls):
            raise ValueError(
                "evaluate-sanity.metrics: data_randomisation trains a network on shuffled labels: give "
                "evaluate-sanity.training, or a train-cls section"
            )
        return self

    @model_validator(mode="after")
    def _ground_truth_there(self) -> Experiment:
        dataset = DATASETS.get(self.data.dataset)
        if self.evaluate_localization is None or dataset is None:
            return self
        for metric, needed in self.evaluate_localization.needs.items():
            if not set(needed) & set(dataset.ground_truth):
                raise ValueError(
                    f"evaluate-localization.metrics: {metric!r} needs {' or '.join(needed)}, and data set "
                    f"{self.data.dataset!r} has {' and '.join(dataset.ground_truth) or 'labels only'}"
                )
        return self
