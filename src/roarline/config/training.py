"""The section train-cls, and what other sections that train share with it. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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
    gamma: float = Field(0.1, gt=0, le=1, description="step: factor of a drop")
    warmup_fraction: float = Field(0.3, gt=0, lt=1, description="one_cycle: share of the steps in which the rate rises")


class Augmentation(Section):
    """Random changes of training images, after removal."""

    crop_padding_px: int = Field(0, ge=0, description="zero-pad by this in normalised space, cut at random")
    horizontal_flip: bool = Field(False, description="mirror every other image, at random")


class TrainCls(Section):
    """How a classifier is trained."""

    epochs: int = Field(10, ge=1, description="passes over the training split; the best on validation is kept")
    batch_size: int = Field(128, ge=1, description="images of an optimiser step")
    loss: Literal["cross_entropy", "binary_cross_entropy"] = Field(
        "cross_entropy", description="binary_cross_entropy: for data with several labels an image"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="cross_entropy only")
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()
    augmentation: Augmentation = Augmentation()
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="mixed precision; on a CPU float16 computes in float32"
    )
    channels_last: bool = Field(False, description="memory format of images and weights; often faster for convolutions")
    threads: Threads = 2

    @model_validator(mode="after")
    def _smoothing_of_one_label(self) -> TrainCls:
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"label_smoothing goes with loss: cross_entropy, not with {self.loss}; leave it out")
        return self
