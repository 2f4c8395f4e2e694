"""The section train-cls, and what other sections that train share with it. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from roarline.config.section import Section, Threads


class Optimizer(Section):
    """The optimiser and its constants."""

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="as torch.optim has it")
    lr: float = Field(1e-3, gt=0, description="learning rate; one_cycle: its peak")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty; adamw: decoupled")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    nesterov: bool = Field(False, description="sgd only; needs a momentum")

    @model_validator(mode="after")
    def _momentum_for_nesterov(self) -> Optimizer:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Scheduler(Section):
    """How the learning rate falls; step counts epochs, cosine and one_cycle count optimiser steps."""

    name: Literal["none", "step", "cosine", "one_cycle"] = Field("none", description="none: a constant rate")
    step_size: int = Field(10, ge=1, description="step: epochs between two drops")
    milestones: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, description="step: epochs after which the rate drops, instead of every step_size"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="step: factor of a drop")
    warmup_fraction: float = Field(0.3, gt=0, lt=1, description="one_cycle: share of the steps in which the rate rises")

    @model_validator(mode="after")
    def _rising(self) -> Scheduler:
        if self.milestones is not None and (self.name != "step" or sorted(set(self.milestones)) != self.milestones):
            raise ValueError("milestones go with name: step, and rise from one to the next")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name != "milestones" or value is not None}


class Augmentation(Section):
    """Random changes of training images, after removal."""

    crop_padding_px: int = Field(0, ge=0, description="zero-pad by this in normalised space, cut at random")
    horizontal_flip: bool = Field(False, description="mirror every other image, at random")
    resized_crop: float | None = Field(
        None, gt=0, le=1, description="cut out a box of at least this share of the area, resize it; ImageNet: 0.08"
    )

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name != "resized_crop" or value is not None}


class EarlyStopping(Section):
    """When a training ends before its last epoch."""

    patience: int = Field(5, ge=1, description="epochs in a row without a gain after which training ends")
    min_delta: float = Field(0.0, ge=0, description="by how much more than this the goal must be better to be a gain")


class Training(Section):
    """What every training shares: the loop, its optimiser and schedule."""

    # Fields that came later are left out of keys where they stand at their defaults: older artifacts stay valid.
    _left_out: ClassVar[tuple[str, ...]] = (
        "early_stopping",
        "gradient_accumulation",
        "gradient_clip_norm",
        "epoch_fraction",
    )

    epochs: int = Field(10, ge=1, description="passes over the training split; the best on validation is kept")
    batch_size: int = Field(128, ge=1, description="images of an optimiser step, all passes and processes together")
    gradient_accumulation: int = Field(
        1, ge=1, description="passes that a step's batch is cut into, for networks that don't fit with all of it"
    )
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()
    augmentation: Augmentation = Augmentation()
    early_stopping: EarlyStopping | None = Field(None, description="null: train all epochs")
    gradient_clip_norm: float | None = Field(
        None, gt=0, description="a step's gradient is shortened to this norm, over all parameters together"
    )
    epoch_fraction: float = Field(
        1.0, gt=0, le=1, description="an epoch ends after floor(this share of its steps) + 1 steps, at most all"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="mixed precision; on a CPU float16 computes in float32"
    )
    channels_last: bool = Field(False, description="memory format of images and weights; often faster for convolutions")

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unset = {name for name in self._left_out if getattr(self, name) == fields[name].default}
        return {name: value for name, value in written.items() if name not in unset}


class Consistency(Section):
    """Grad-CAM consistency: the map of an image stays as it is within a composite of four images."""

    weight: float = Field(25.0, gt=0, description="of the consistency loss beside the classification loss")
    layer: str = Field("auto", description="whose maps are compared; auto: the last one with places")
    compat: Literal["corrected", "original"] = Field(
        "corrected",
        description="original: 1e-8 is added to normalised maps, and maps that don't tile aren't normalised again once "
        "they are enlarged",
    )


class FrozenBackbone(Section):
    """Training of the head alone."""

    new_head: bool = Field(True, description="the head starts from random values; false: from model.weights too")
    compat: Literal["corrected", "original"] = Field(
        "corrected",
        description="original: the frozen backbone is in training mode, so that its batch norm follows the training "
        "images",
    )


class TrainCls(Training):
    """How a classifier is trained."""

    _left_out: ClassVar[tuple[str, ...]] = (
        *Training._left_out,
        "best_by",
        "class_reduction",
        "consistency",
        "frozen_backbone",
        "label_threshold",
    )

    loss: Literal["cross_entropy", "binary_cross_entropy"] = Field(
        "cross_entropy", description="binary_cross_entropy: for data with several labels an image"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="cross_entropy only")
    class_reduction: Literal["mean", "sum"] = Field(
        "mean", description="binary_cross_entropy only; sum: over the classes, K times their mean"
    )
    consistency: Consistency | None = Field(None, description="null: classification alone")
    frozen_backbone: FrozenBackbone | None = Field(None, description="null: all of the network is trained")
    label_threshold: float = Field(
        0.0,
        description="several labels an image: the logit from which on the card's metrics count a class as decided for",
    )
    best_by: Literal["accuracy", "loss"] = Field(
        "accuracy", description="of the validation split: what tells the best epoch, and early stopping"
    )
    threads: Threads = 2

    @model_validator(mode="after")
    def _smoothing_of_one_label(self) -> TrainCls:
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"label_smoothing goes with loss: cross_entropy, not with {self.loss}; leave it out")
        if self.class_reduction != "mean" and self.loss != "binary_cross_entropy":
            raise ValueError(
                f"class_reduction goes with loss: binary_cross_entropy, not with {self.loss}; leave it out"
            )
        return self

    @property
    def plain(self) -> TrainCls:
        """The same recipe for networks that are trained to judge maps: without consistency, all layers trained."""
        return self.model_copy(update={"consistency": None, "frozen_backbone": None})

    @property
    def is_plain(self) -> bool:
        """True where it is that already."""
        return self.consistency is None and self.frozen_backbone is None
