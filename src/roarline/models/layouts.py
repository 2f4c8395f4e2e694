"""Which dimension of a layer's output its channels are: [B, C, h, w] or, of Swin, [B, h, w, C].

Where h, w and C are alike the shape does not say it, but the network does: one image goes forward, and each function
tells of what it reads and gives (convolutions have channels in dimension 1, layer normalisation over one dimension has
them last), from where the knowledge spreads over sums, activations and permutations.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from roarline.models.layers import device_and_dtype, evaluating, watching

_FIRST = frozenset({
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices", "avg_pool2d", "batch_norm",
    "conv2d", "conv_transpose2d", "dropout2d", "grid_sample", "group_norm", "instance_norm", "interpolate",
    "local_response_norm", "lp_pool2d", "max_pool2d", "max_pool2d_with_indices", "pixel_shuffle", "pixel_unshuffle",
})  # fmt: skip
_NORMS = frozenset({"layer_norm", "rms_norm"})
_PERMUTE = frozenset({"moveaxis", "movedim", "permute", "swapaxes", "swapdims", "transpose"})
_MIXES = frozenset({"bmm", "einsum", "matmul", "scaled_dot_product_attention"})
_RESIZES = frozenset({"cat", "concat", "concatenate", "pad"})
_REMEMBERED: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], dict[str, int]]] = WeakKeyDictionary()


def channel_dimensions(model: nn.Module, image_shape: Sequence[int]) -> Mapping[str, int]:
    """For the layers whose output is of four dimensions: which of them is the channels'.

    Args:
        image_shape: (C, H, W) of one network input.

    Returns:
        1 or 3, by dotted name; without the layers of which the network does not tell. Where nothing in the network has
        channels in the last dimension, all have them in dimension 1. Remembered for this model and shape.
    """
    remembered = _REMEMBERED.setdefault(model, {})
    shape = tuple(image_shape)
    if shape not in remembered:
        remembered[shape] = _read(model, shape)
    return remembered[shape]


def _read(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    trace = _Trace()
    outputs: dict[str, int] = {}

    def see(name: str, module: nn.Module, output: object) -> None:
        outputs.pop(name, None)
        if isinstance(output, Tensor) and output.ndim == 4:
            outputs[name] = trace.number(output)

    device, dtype = device_and_dtype(model)
    image = torch.zeros((1, *shape), device=device, dtype=dtype)
    whole = getattr(model, "_orig_mod", model)  # of a compiled network
    with evaluating(model), torch.no_grad(), watching(model, see), trace:
        whole.forward(image)  # not the model itself: hooks on it wait for the logits of the real images
    known = trace.solved()
    if 1 in known.values() and 3 not in known.values():
        return dict.fromkeys(outputs, 1)
    return {name: known[number] for name, number in outputs.items() if number in known}


class _Trace(TorchFunctionMode):
    """Numbers the tensors of four dimensions, and notes what each function says of them."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = WeakTensorKeyDictionary()
        self._count = 0
        self._sure: dict[int, int] = {}
        self._likely: dict[int, int] = {}
        self._links: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)

    def number(self, tensor: Tensor) -> int:
        """The tensor's own."""
        if tensor not in self._numbers:
            self._numbers[tensor] = self._count
            self._count += 1
        number: int = self._numbers[tensor]
        return number

    def solved(self) -> dict[int, int]:
        """Channel dimensions, of those that are known; of two that contradict each other the nearer one holds."""
        known: dict[int, int] = {}
        for said in (self._sure, self._likely):
            waiting = deque(said.items())
            while waiting:
                number, dimension = waiting.popleft()
                if number in known:
                    continue
                known[number] = dimension
                waiting.extend((other, order[dimension]) for other, order in self._links[number] if other not in known)
        return {number: dimension for number, dimension in known.items() if dimension in (1, 3)}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        output = result[0] if isinstance(result, tuple) and result else result
        if isinstance(output, Tensor) and output.ndim == 4:
            values = [part for value in args for part in (value if isinstance(value, (list, tuple)) else (value,))]
            values += [value for key, value in kwargs.items() if key == "input"]
            inputs = [value for value in values if isinstance(value, Tensor) and value.ndim == 4]
            self._note(getattr(func, "__name__", "").strip("_"), func, args, kwargs, inputs, output)
        return result

    def _note(
        self,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: Sequence[Tensor],
        output: Tensor,
    ) -> None:
        if not inputs or name in _MIXES:
            return
        ends = (self.number(inputs[0]), self.number(output))
        if name in _FIRST:
            self._sure.update(dict.fromkeys(ends, 1))
        elif name in _NORMS:
            over = args[1] if len(args) > 1 else kwargs["normalized_shape"]
            if len(over) == 1:
                self._sure.update(dict.fromkeys(ends, 3))
        elif name == "linear":  # or one that mixes along the width
            self._likely.update(dict.fromkeys(ends, 3))
        elif name in _PERMUTE:
            if args and args[0] is inputs[0]:
                order = tuple(func(torch.empty(0, 1, 2, 3, device="meta"), *args[1:], **kwargs).shape)
                self._links[ends[1]].append((ends[0], order))
                self._links[ends[0]].append((ends[1], tuple(order.index(dimension) for dimension in range(4))))
        else:
            for tensor in inputs:
                if tensor is not output and (tensor.shape == output.shape or name in _RESIZES):
                    number = self.number(tensor)
                    self._links[number].append((ends[1], (0, 1, 2, 3)))
                    self._links[ends[1]].append((number, (0, 1, 2, 3)))
