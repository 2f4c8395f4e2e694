"""FIX and CA as explainers: a masker together with the classifier whose hidden layers it reads.

FIX reads the classifier that is explained; CA carries a copy of it, which was trained along with the masker, and reads
that. Shapes: B images, C channels, H × W px, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from roarline.models.masker import Masker
from roarline.models.masker_layers import masker_layers
from roarline.models.recording import recording


class FixMasker(nn.Module):
    """A masker that reads hidden layers of the classifier that is explained.

    Args:
        masker: Of those layers.
        layers: Their names.
        area: What it is told in use, where it has an area channel.
    """

    def __init__(self, masker: Masker, layers: Sequence[str], area: float) -> None:
        super().__init__()
        self.masker, self.layers, self.area = masker, list(layers), area

    def masks(self, classifier: nn.Module, images_BCHW: Tensor) -> Tensor:
        """[B, 1, H, W] in [0, 1], one mask for all classes; see ``models.explainers.DrawsMasks``."""
        logits, activations = self.read(classifier, images_BCHW)
        return self.draw(activations, logits.argmax(dim=1), images_BCHW)

    def read(self, classifier: nn.Module, images_BCHW: Tensor, *, graph: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, K], and what the hidden layers give, detached, of one pass.

        Args:
            graph: The logits can be differentiated in the classifier's weights.
        """
        with (
            torch.set_grad_enabled(graph),
            recording(classifier, self.layers, images_BCHW, gradients=graph, keep_graph=True) as recorded,
        ):
            logits: Tensor = classifier(images_BCHW)
        return logits.float(), recorded.activations

    def draw(
        self, activations: Sequence[Tensor], classes_B: Tensor, images_BCHW: Tensor,
        *, areas_B: Tensor | None = None, generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Masks [B, 1, H, W] of what was read.

        Args:
            classes_B: int64; heard only by a masker with class channels.
            images_BCHW: Only their number counts here.
            areas_B: Default: ``area`` for all.
            generator: See ``Masker.forward``.
        """
        told: dict[str, Any] = {}
        if self.masker.area_channel:
            usual = torch.full((len(images_BCHW),), self.area, device=images_BCHW.device)
            told["areas_B"] = usual if areas_B is None else areas_B
        if self.masker.classes is not None:
            told["classes_B"] = classes_B
        masks: Tensor = self.masker(activations, generator=generator, **told)
        return masks.float()


class CaMasker(FixMasker):
    """A masker that reads hidden layers of its own copy of the classifier, which is trained with it.

    Args:
        classifier: A network of its own.
    """

    def __init__(self, masker: Masker, layers: Sequence[str], area: float, classifier: nn.Module) -> None:
        super().__init__(masker, layers, area)
        self.classifier = classifier

    def masks(self, classifier: nn.Module, images_BCHW: Tensor) -> Tensor:
        """As ``FixMasker.masks``; the classifier that is handed in is not asked."""
        return super().masks(self.classifier, images_BCHW)


def fix_masker(
    classifier: nn.Module,
    *,
    num_classes: int,
    input_size: tuple[int, int],
    layers: Sequence[str] | Literal["auto"] = "auto",
    area: float = 0.5,
    class_channels: bool = False,
    **decoder: Any,
) -> FixMasker:
    """A FIX masker with random weights.

    Args:
        classifier: Its layers are read off; left as it was.
        num_classes: K.
        input_size: (H, W) of the images, px.
        layers: See ``masker_layers``.
        area: Told to a masker with an area channel, in use.
        class_channels: The masker is told a class.
        decoder: As ``Masker`` takes it.

    Raises:
        ModelError: A layer doesn't exist or has no map, or the layers don't fit the mask's grid.

    Source: Phang et al. 2020, arXiv 2010.09750.
    """
    found = masker_layers(classifier, layers, input_size)
    masker = Masker(found, input_size, num_classes=num_classes if class_channels else None, **decoder)
    return FixMasker(masker, [layer.name for layer in found], area)


def ca_masker(classifier: nn.Module, **network: Any) -> CaMasker:
    """A CA masker with random weights, and its copy of the classifier, which can be trained.

    Args:
        classifier: Left as it was.
        network: As ``fix_masker`` takes it.

    Source: Phang et al. 2020, arXiv 2010.09750; Zolna et al. 2020, arXiv 1908.09388.
    """
    fixed = fix_masker(classifier, **network)
    return CaMasker(fixed.masker, fixed.layers, fixed.area, copy.deepcopy(classifier).requires_grad_(True))
