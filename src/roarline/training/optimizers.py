"""Optimisers by name, in torch's fused form: one kernel call a step instead of several a parameter."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from roarline.config.training import Optimizer
from roarline.errors import UserInputError


def make_optimizer(settings: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimiser over the parameters that want a gradient.

    Args:
        settings: ``adam`` adds weight decay to the gradient, ``adamw`` decouples it, ``sgd`` knows momentum.
        parameters: Of the model.

    Raises:
        UserInputError: The name is unknown, or nothing can be trained.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        raise UserInputError("the model has no parameter that can be trained")
    if settings.name == "adam":
        return torch.optim.Adam(trainable, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.name == "adamw":
        return torch.optim.AdamW(trainable, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.name == "sgd":
        return torch.optim.SGD(
            trainable, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum,
            nesterov=settings.nesterov, fused=True,
        )  # fmt: skip
    raise UserInputError(f"optimizer is {settings.name!r}, expected adam, adamw or sgd")
