"""The masker of FIX and CA: a small decoder that reads hidden layers of a classifier and draws one mask an image.

Shapes: B images, C channels and h × w cells of a layer, G × G' cells of the mask before it is enlarged, H × W px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roarline.errors import ModelError
from roarline.models.masker_layers import LayerShape

Output = Literal["sigmoid", "logits", "gumbel_hard", "gumbel_soft"]
Enlargement = Literal["nearest", "bilinear"]

CLASS_CHANNELS = 64
_COARSEST_PX = 4
_SMALLEST = 1e-10


class Masker(nn.Module):
    """1×1 blocks on chosen layers, brought to one grid, a 3×3 convolution to one channel, a sigmoid, enlargement.

    Each layer goes through a 1×1 convolution without bias, batch norm and ReLU and is resized bilinearly to the grid;
    a layer in ``unchanged`` is taken as it is. What the masker reads is detached: it never trains the classifier.

    Args:
        layers: In the order in which their channels are joined.
        image_size: (H, W) of the mask, in px.
        channels: Of each 1×1 block.
        cell_px: Side of a cell of the grid; None: 4 px as published, or the finest layer's, where that is finer.
        unchanged: Names of layers without a 1×1 block.
        output: ``sigmoid``; ``logits``: nothing; ``gumbel_soft``: a binary concrete variable; ``gumbel_hard``: the same
            rounded, with the gradient of the soft one. In eval mode both of these are 1 where the logit is above 0.
        temperature: Of the concrete variable; None: learned, 0.1 at first.
        enlargement: From the grid to the image.
        area_channel: A further constant channel in every layer: the area that is wished for.
        num_classes: Where given, 64 further channels in every layer: what is learned of the class that is asked for.

    Raises:
        ModelError: There is no layer, one is finer than the grid, or a name in ``unchanged`` is unknown.

    Source: Phang, Park and Geras 2020, arXiv 2010.09750; zphang/saliency_investigation ``casme/archs.py``.
    Differs: layers of any network, by name; there the five of ResNet-50, and the first of several is always unchanged.
        There class and area channels are forgotten where the first layer is joined with others, and the convolution
        fails (spec B3.11); here an unchanged layer gets them, too. There a checkpoint loses the kind of enlargement and
        of output (B3.10); here both are parameters of the masker.
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        image_size: tuple[int, int],
        *,
        channels: int = 64,
        cell_px: int | None = None,
        unchanged: Sequence[str] = (),
        output: Output = "sigmoid",
        temperature: float | None = 0.1,
        enlargement: Enlargement = "nearest",
        area_channel: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        _check(layers, unchanged)
        self.layers, self.image_size = list(layers), image_size
        self.output, self.enlargement, self.area_channel = output, enlargement, area_channel
        self.grid = _grid(layers, image_size, cell_px)
        self.classes = None if num_classes is None else nn.Embedding(num_classes, CLASS_CHANNELS)
        extra = int(area_channel) + (0 if num_classes is None else CLASS_CHANNELS)
        self.blocks = nn.ModuleList(
            nn.Identity() if layer.name in unchanged else _block(layer.channels + extra, channels) for layer in layers
        )
        joined = sum(layer.channels + extra if layer.name in unchanged else channels for layer in layers)
        self.final = nn.Conv2d(joined, 1, 3, padding=1)
        self.temperature = nn.Parameter(torch.tensor(0.1), requires_grad=True) if temperature is None else temperature
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))

    def forward(
        self,
        activations: Sequence[Tensor],
        *,
        areas_B: Tensor | None = None,
        classes_B: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Masks of some images.

        Args:
            activations: Of each layer [B, C, h, w].
            areas_B: In [0, 1]; needed with ``area_channel``.
            classes_B: int64; needed with ``num_classes``.
            generator: On the CPU; needed in training mode where the output is a concrete variable.

        Returns:
            [B, 1, H, W], in [0, 1] unless the output is ``logits``.

        Raises:
            ModelError: Other activations than those of the layers, or something that is needed is not given.
        """
        logits_B1GG = self.grid_logits(activations, areas_B=areas_B, classes_B=classes_B)
        return self.enlarge(self._opened(logits_B1GG, generator))

    def grid_logits(
        self, activations: Sequence[Tensor], *, areas_B: Tensor | None = None, classes_B: Tensor | None = None
    ) -> Tensor:
        """[B, 1, G, G'] before the sigmoid, one number a cell. Args: as ``forward``."""
        came = [tuple(activation.shape[1:]) for activation in activations]
        expected = [(layer.channels, *layer.size) for layer in self.layers]
        if came != expected:
            raise ModelError(
                f"the masker reads layers {[layer.name for layer in self.layers]} of shapes {expected}, came {came}: "
                "was it made for another classifier or input size?"
            )
        extra_BE = self._extra(len(activations[0]), areas_B, classes_B)
        planes = []
        for activation, block in zip(activations, self.blocks, strict=True):
            plane = block(_with_constants(activation.detach(), extra_BE))
            if plane.shape[-2:] != self.grid:
                plane = F.interpolate(plane, size=self.grid, mode="bilinear", align_corners=False)
            planes.append(plane)
        logits: Tensor = self.final(torch.cat(planes, dim=1))
        return logits

    def enlarge(self, cells_B1GG: Tensor) -> Tensor:
        """[B, 1, H, W] from the grid."""
        corners = None if self.enlargement == "nearest" else False
        return F.interpolate(cells_B1GG, size=self.image_size, mode=self.enlargement, align_corners=corners)

    def _opened(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.output == "logits":
            return logits
        if self.output == "sigmoid":
            return torch.sigmoid(logits)
        if not self.training:
            return (logits > 0).to(logits.dtype)
        if generator is None:
            raise ModelError(f"output {self.output!r} is drawn in training mode: give a generator")
        soft = binary_concrete(logits, self.temperature, generator)
        return soft if self.output == "gumbel_soft" else (soft > 0.5).to(soft) + soft - soft.detach()

    def _extra(self, count: int, areas_B: Tensor | None, classes_B: Tensor | None) -> Tensor | None:
        """[B, E]: one number an image and further channel."""
        for wanted, given, name in (
            (self.area_channel, areas_B, "areas_B"),
            (self.classes is not None, classes_B, "classes_B"),
        ):
            if wanted != (given is not None) or (given is not None and given.shape != (count,)):
                came = "None" if given is None else f"shape {list(given.shape)}"
                raise ModelError(f"masker: {name} is {came}, expected {f'[{count}]' if wanted else 'None'}")
        extra = []
        if areas_B is not None:
            extra.append(areas_B[:, None].to(self.final.weight))
        if classes_B is not None and self.classes is not None:
            extra.append(self.classes(classes_B))
        return torch.cat(extra, dim=1) if extra else None


def binary_concrete(logits: Tensor, temperature: Tensor | float, generator: torch.Generator) -> Tensor:
    """A relaxed draw of 0 or 1, differentiable in the logits: sigmoid((logit + log u - log(1 - u)) / temperature).

    Args:
        logits: Of 1.
        temperature: Above 0; the lower, the nearer to 0 and 1.
        generator: On the CPU, for u.

    Returns:
        In (0, 1), of the logits' shape.

    Source: Maddison, Mnih and Teh 2017, arXiv 1611.00712, section 3 and appendix C.3.2.
    """
    u = torch.rand(logits.shape, generator=generator).clamp_(_SMALLEST, 1 - torch.finfo(torch.float32).eps)
    noise = (u.log() - torch.log1p(-u)).to(logits)
    return torch.sigmoid((logits + noise) / temperature)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _with_constants(plane_BCHW: Tensor, extra_BE: Tensor | None) -> Tensor:
    if extra_BE is None:
        return plane_BCHW
    constants = extra_BE[:, :, None, None].expand(-1, -1, *plane_BCHW.shape[-2:])
    return torch.cat([plane_BCHW, constants.to(plane_BCHW)], dim=1)


def _grid(layers: Sequence[LayerShape], image_size: tuple[int, int], cell_px: int | None) -> tuple[int, int]:
    finest_px = min(layer.stride_px(image_size) for layer in layers)
    side_px = min(_COARSEST_PX, finest_px) if cell_px is None else cell_px
    grid = (-(-image_size[0] // side_px), -(-image_size[1] // side_px))
    finer = [layer for layer in layers if layer.size[0] > grid[0] or layer.size[1] > grid[1]]
    if finer:
        raise ModelError(
            f"masker: layer {finer[0].name!r} has {finer[0].size[0]} × {finer[0].size[1]} cells, more than the mask's "
            f"{grid[0]} × {grid[1]}; lower cell_px (now {side_px}), or choose a later layer"
        )
    return grid


def _check(layers: Sequence[LayerShape], unchanged: Sequence[str]) -> None:
    names = [layer.name for layer in layers]
    if not names:
        raise ModelError("masker: no layer, expected at least one")
    unknown = [name for name in unchanged if name not in names]
    if unknown:
        raise ModelError(f"masker: unchanged: {unknown[0]!r} is none of the layers {', '.join(names)}")
