"""Training and use of the NN-Explainer against bare passes of the same two networks.

Training: the loop with the whole objective: masks, total variation, sorted areas, two images a classifier's pass. Bare:
the explainer's step on one resident batch with the classifier's passes of two images each behind it, and nothing but a
sum as the loss. Use: the masks of all classes. Bare: the explainer's forward passes. An image's share of a step, or its
forward pass, counts as one pass, so that passes per second are images per second.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import FORMATS, BarePasses, Measurement, Options, alternate, timed
from roarline.attribution.explainer import learned_mask
from roarline.config.explainer_params import NnExplainerLosses
from roarline.config.training import Training
from roarline.models.build import build
from roarline.models.explainers import ClassMapExplainer, class_map_explainer
from roarline.training.batches import ResidentSplit
from roarline.training.explainer_objectives import nn_explainer
from roarline.training.explainer_task import ExplainerTask
from roarline.training.loop import fit

_NETWORKS = ("vgg16", "resnet50")
_CLASSES = 20  # those of VOC
_STEP = "training step's share of an image: 1 × explainer, 2 × classifier"


def measure(options: Options) -> Iterator[Measurement]:
    """Two measurements a classifier; DeepLabV3-ResNet50 explains it."""
    side, batch, steps = (64, 2, 1) if options.quick else (options.input_px, 4, 2)
    images = torch.randn(batch * steps, 3, side, side, generator=torch.Generator().manual_seed(0)).to(options.device)
    for name in _NETWORKS:
        classifier = build(f"torchvision:{name}", {}, _CLASSES, input_size=None, seed=0).to(options.device)
        classifier = classifier.eval().requires_grad_(False)
        explainer = class_map_explainer(classifier, num_classes=_CLASSES, input_size=(side, side))
        yield _training(name, classifier, explainer.to(options.device), images, batch, options)
    yield _use(explainer.to(options.device), classifier, images, options)


class BareSteps:
    """Steps of the two networks at the faster memory format."""

    def __init__(self, explainer: ClassMapExplainer, classifier: nn.Module, images_BCHW: Tensor, device: str) -> None:
        self.batch_size = len(images_BCHW)
        found = {}
        for name, memory_format in FORMATS.items():
            laid_out: list[Any] = [copy.deepcopy(part) for part in (explainer, classifier)]
            self._explainer, self._classifier = (part.to(memory_format=memory_format) for part in laid_out)
            self._explainer.train()
            self._images = images_BCHW.contiguous(memory_format=memory_format)
            self._optimizer = torch.optim.Adam(self._explainer.parameters(), lr=1e-4, fused=True)
            self(self.batch_size)
            seconds = timed(lambda: self(self.batch_size), device)
            found[name] = seconds, self._explainer, self._classifier, self._images, self._optimizer
        self.format = min(found, key=lambda name: found[name][0])
        _, self._explainer, self._classifier, self._images, self._optimizer = found[self.format]

    @property
    def choice(self) -> str:
        """Batch size and memory format."""
        return f"batch {self.batch_size}, {self.format}"

    def __call__(self, passes: int) -> None:
        """Make steps of so many images, in whole batches."""
        for _ in range(passes // self.batch_size):
            self._optimizer.zero_grad(set_to_none=True)
            shown = self._explainer(self._images)[:, :3]
            (self._classifier(torch.cat([shown, shown])).sum() + shown.sum()).backward()
            self._optimizer.step()


def _training(
    name: str, classifier: nn.Module, explainer: ClassMapExplainer, images: Tensor, batch: int, options: Options
) -> Measurement:
    labels = (torch.rand(len(images), _CLASSES, generator=torch.Generator().manual_seed(1)) < 0.05).float()
    labels[:, 0] = 1
    split = ResidentSplit(images, labels.to(options.device))
    settings = Training(epochs=1, batch_size=batch, channels_last=True)
    size = (images.shape[2], images.shape[3])
    most = int(labels.sum(dim=1).max())
    task = ExplainerTask(_CLASSES, True, most, size, settings, seed=0)
    laid_out: Any = copy.deepcopy(classifier)
    laid_out = laid_out.to(memory_format=torch.channels_last)

    def train() -> None:
        objective = nn_explainer(copy.deepcopy(explainer), laid_out, task, **NnExplainerLosses().model_dump())
        fit(objective, split, None, settings, seed=0)

    bare = BareSteps(explainer, classifier, images[:batch], options.device)
    measurement = Measurement(
        hot_path="train-explainer",
        network=f"{name}, DeepLabV3-ResNet50",
        setting=f"{size[0]} px, {_CLASSES} classes",
        images=len(images),
        passes=len(images),
        pass_kind=_STEP,
        bare_choice=bare.choice,
        goal=None,
    )
    return alternate(measurement, train, bare, options)


def _use(explainer: ClassMapExplainer, classifier: nn.Module, images: Tensor, options: Options) -> Measurement:
    frozen: Any = explainer.eval().requires_grad_(False)
    side = images.shape[-1]
    bare = BarePasses(nn.Sequential(frozen), (3, side, side), batch_sizes=options.batch_sizes, device=options.device)
    frozen = frozen.to(memory_format=torch.channels_last)
    shown = images.contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def draw() -> None:
        learned_mask(classifier, shown, targets, explainer=frozen.masks, image_index=range(len(images)))

    measurement = Measurement(
        hot_path="explainer's maps",
        network="DeepLabV3-ResNet50",
        setting=f"{side} px, {_CLASSES} classes",
        images=len(images),
        passes=len(images),
        pass_kind="forward",
        bare_choice=bare.choice,
        goal=None,
    )
    return alternate(measurement, draw, bare, options)
