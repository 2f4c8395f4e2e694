"""The table of learned explainers, and the section train-explainer. Imports no torch.

To add an explainer: a network builder in ``roarline/models/``, an objective in ``roarline/training/``, a parameter
type and one line in ``EXPLAINERS``; ``models/explainers.py`` and ``training/explainer_objectives.py`` say what each of
the two is called with and gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from roarline.config.component import Component, load_object
from roarline.config.explainer_params import NnExplainerParams, RealTimeSaliencyParams, SelfExplainerParams
from roarline.config.masker_params import CaMaskerParams, FixMaskerParams
from roarline.config.section import Section, Threads
from roarline.config.training import Training


@dataclass(frozen=True)
class ExplainerComponent(Component):
    """A network that learns to draw masks. ``implementation`` builds it.

    Args:
        params: With two parts: ``network``, the builder's keyword arguments, and ``losses``, the objective's.
        objective: ``package.module:function``: what its training minimises.
        one_mask: Its mask is the same for every class.
        own_steps: Its training has several optimisers, steps them itself, and keeps the last epoch.
    """

    objective: str = ""
    one_mask: bool = False
    own_steps: bool = False

    def load_objective(self) -> Any:
        """Import what makes the objective."""
        return load_object(self.objective)


_NETWORK = "roarline.models.explainers:class_map_explainer"
_OBJECTIVES = "roarline.training.explainer_objectives"
_MASKERS = "roarline.models.masker_explainers"

EXPLAINERS: dict[str, ExplainerComponent] = {
    "nn_explainer": ExplainerComponent(
        _NETWORK,
        NnExplainerParams,
        "One mask a class, with which a frozen classifier finds the labels, and without which it is undecided",
        "Stalder et al. 2022, arXiv 2205.11266",
        objective=f"{_OBJECTIVES}:nn_explainer",
    ),
    "self_explainer": ExplainerComponent(
        _NETWORK,
        SelfExplainerParams,
        "A segmentation network that classifies by its maps, and again what its own mask leaves",
        "NN-Explainer, interpretable FCNN",
        objective=f"{_OBJECTIVES}:self_explainer",
    ),
    "real_time_saliency": ExplainerComponent(
        _NETWORK,
        RealTimeSaliencyParams,
        "Masks that keep the labels' probability inside and destroy it outside, before blur or noise",
        "Dabkowski and Gal 2017, arXiv 1705.07857, as in NN-Explainer",
        objective=f"{_OBJECTIVES}:real_time_saliency",
    ),
    "fix_masker": ExplainerComponent(
        f"{_MASKERS}:fix_masker",
        FixMaskerParams,
        "One mask that a decoder draws from hidden layers: with it the classifier stays right, without it undecided",
        "Phang, Park and Geras 2020, arXiv 2010.09750",
        objective="roarline.training.masker_objectives:fix_masker",
        one_mask=True,
    ),
    "ca_masker": ExplainerComponent(
        f"{_MASKERS}:ca_masker",
        CaMaskerParams,
        "The same, against copies of the classifier that learn to see through masks; it keeps the last of them",
        "Phang, Park and Geras 2020, arXiv 2010.09750; Zolna et al. 2020, arXiv 1908.09388",
        objective="roarline.training.masker_against_classifier:ca_masker",
        one_mask=True,
        own_steps=True,
    ),
}


class Explainer(Section):
    """One explainer of the experiment, trained for its classifier."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="unique in this experiment")
    explainer: str | None = Field(None, description="a name of `roarline list explainers`; default: name")
    params: dict[str, Any] = Field(default_factory=dict, description="its own, see `roarline list explainers`")
    training: Training = Field(Training(), description="as train-cls has it, but for the loss")
    images_per_class: int | None = Field(
        None, ge=1, description="training images of each class, drawn from the seed; null: all"
    )
    threads: Threads = 2

    @property
    def component(self) -> str:
        """Which line of the table."""
        return self.explainer or self.name

    @model_validator(mode="after")
    def _what_own_steps_cannot(self) -> Explainer:
        component, training = EXPLAINERS.get(self.component), self.training
        if component is None or not component.own_steps:
            return self
        if training.early_stopping is not None:
            raise ValueError(f"training.early_stopping: {self.component} keeps its last epoch; leave it out")
        if training.gradient_accumulation > 1:
            raise ValueError(
                f"training.gradient_accumulation: {self.component} steps several optimisers in turn; leave it out"
            )
        if training.precision == "float16":
            raise ValueError(
                f"training.precision: float16 needs a scaled loss, which the steps of {self.component} don't have; use "
                "bfloat16"
            )
        return self
