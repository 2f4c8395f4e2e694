"""Batch norm over the images of all processes that train together, as one process would see them.

torch's ``SyncBatchNorm`` runs on CUDA alone and can be differentiated but once, while consistency differentiates twice.
This is ordinary operations around one collective, which it pays with a few more kernels and float32 activations: one
way for all devices, so that what is tested on CPUs holds on GPUs.

Shapes: P processes, B images of one process, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class NormsOverProcesses(TorchFunctionMode):
    """Inside, every batch norm that takes its statistics from the images takes them from those of all processes.

    The layers stay what they are, and frozen ones, in eval mode, do what they did. All processes have to run the same
    layers in the same order, forward and backward.

    Args:
        counted: False: this process's images are none of the batch's, and its loss has the weight 0.
    """

    def __init__(self, *, counted: bool = True) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.batch_norm:
            return batch_norm(*args, **(kwargs or {}), counted=self.counted)
        return func(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    *, counted: bool = True,
) -> Tensor:  # fmt: skip
    """``torch.nn.functional.batch_norm``, whose batch is that of all processes; differentiable as often as asked.

    The sum of all processes' losses is what is differentiated: a gradient speaks of the images of the others, too.

    Args:
        input: [B, C, ...] of this process; B may be 0 and may differ between processes. Together they have at least 2
            values a channel.
        running_mean, running_var: [C], moved in place towards the mean and the unbiased variance of all images.
        weight, bias: [C].
        training: False: as torch does it.
        counted: See ``NormsOverProcesses``.

    Returns:
        In the input's shape and dtype; statistics are float32 at least.
    """
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    values = input.to(torch.promote_types(input.dtype, torch.float32))
    axes, shape = [0, *range(2, input.ndim)], (1, -1, *[1] * (input.ndim - 2))
    count = input.numel() // input.shape[1]
    own_mean_C = values.sum(axes) / max(count, 1)
    # Both the variance and what is given are made of it, so that it is kept once for the way back.
    centred = values - own_mean_C.view(shape)
    total, mean_C, variance_C = _combined(count, own_mean_C, centred.square().sum(axes), counted=counted)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_((variance_C * (total / (total - 1))).to(running_var.dtype), momentum)
    scale_C = (variance_C + eps).rsqrt()
    if weight is not None:
        scale_C = scale_C * weight
    shift_C = (own_mean_C - mean_C) * scale_C
    if bias is not None:
        shift_C = shift_C + bias
    return torch.addcmul(shift_C.view(shape), centred, scale_C.view(shape)).to(input.dtype)


def _combined(count: int, mean_C: Tensor, squares_C: Tensor, *, counted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Number (0-dim), mean and biased variance [C] of all processes' values.

    Args:
        count: Values a channel in this process.
        mean_C: Of these values.
        squares_C: The sum of their squared distances from that mean; no difference of large sums is ever taken.
    """
    own = torch.cat([mean_C, squares_C, mean_C.new_full((1,), count)])
    if not counted:
        own = own * 0  # not zeros alone: on the way back, too, the others wait for this process
    nothing, rank = torch.zeros_like(own), distributed.get_rank()
    # A sum of rows, each of which one process fills, is the rows of all, and has a gradient on every backend.
    rows = torch.stack([own if place == rank else nothing for place in range(distributed.get_world_size())])
    means_PC, squares_PC, counts_P1 = _Sum.apply(rows).split([len(mean_C), len(mean_C), 1], dim=1)  # type: ignore[no-untyped-call]
    total = counts_P1.sum()
    mean = (counts_P1 * means_PC).sum(0) / total
    between = counts_P1 * (means_PC - mean).square()
    return total, mean, (squares_PC + between).sum(0) / total


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of all their losses is such a sum, too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)  # type: ignore[no-any-return, no-untyped-call]
