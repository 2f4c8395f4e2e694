"""Training a classifier whose Grad-CAM of an image is the same within a composite of four images.

Shapes: B images of a batch, K classes, C channels, H × W px.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from roarline.config.training import Consistency
from roarline.models.layers import evaluating, layer_names
from roarline.models.recording import recording
from roarline.training.batches import Pass, Reading, Split
from roarline.training.classification import ACCURACY, Classification
from roarline.training.composites import NEGATIVES, Companions, Drawn, composites
from roarline.training.consistency_losses import class_maps, consistency_loss
from roarline.training.evaluate import autocast, evaluation_batch
from roarline.training.meter import TOTAL
from roarline.training.objectives import Batch, Goal

CLASSIFICATION, CONSISTENCY = "classification", "consistency"


class ConsistentClassification:
    """Classification of the images, plus ``weight`` times the consistency of their maps.

    Args:
        plain: The classification, with its model.
        settings: Weight, layer and ``compat``.
        train: The training split.
        objects_NK: How many objects of each class its images have, where known (see ``Companions``).
        seed: Of the composites of validation images, which are the same in every epoch.

    Raises:
        DataError: There are too few images of other classes for composites.
        ModelError: The layer doesn't exist, or gives no map.

    Source: spec S2.2, S2.4.
    Differs: an image of several labels that shows nothing adds 0 instead of being left out of the training.
    """

    def __init__(
        self, plain: Classification, settings: Consistency, train: Split, objects_NK: Tensor | None, seed: int
    ) -> None:
        self.plain, self.settings, self.seed = plain, settings, seed
        self.companions = Companions(train.labels, objects_NK)
        self.layer = layer_names(plain.trained, settings.layer, (3, *train.image_size))[0]
        self.drawn: Drawn | None = None

    @property
    def trained(self) -> nn.Module:
        """The classifier."""
        return self.plain.trained

    @property
    def goal(self) -> Goal:
        """As without consistency."""
        return self.plain.goal

    def to_training(self) -> None:
        """See ``OwnModes``."""
        self.plain.to_training()

    def draw_companions(self, generator: torch.Generator) -> Tensor:
        """See ``Companioned``: three negatives an image."""
        self.drawn = self.companions.draw(generator)
        return self.drawn.negatives_N3

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``Objective``; terms ``classification`` and ``consistency``."""
        if self.drawn is None or batch.companions is None:
            raise RuntimeError("draw_companions comes first")
        logits, consistency_B = self._compare(batch.images, batch.companions, self.drawn, batch.rows)
        return {
            CLASSIFICATION: self.plain.loss_of(logits, batch.labels),
            CONSISTENCY: self.settings.weight * consistency_B.mean(),
        }

    def take_scores(self) -> Mapping[str, Tensor]:
        """See ``Scored``."""
        return self.plain.take_scores()

    def validate(self, split: Split) -> Mapping[str, float]:
        """See ``Objective``: both terms, their sum and the accuracy."""
        seen = self.plain.validate(split)
        consistency = self.settings.weight * self._of_split(split)
        return {
            TOTAL: seen[TOTAL] + consistency,
            CLASSIFICATION: seen[TOTAL],
            CONSISTENCY: consistency,
            ACCURACY: seen[ACCURACY],
        }

    def _of_split(self, split: Split) -> float:
        """The mean over a split's images, with composites of its own images."""
        drawn = Companions(split.labels).draw(torch.Generator().manual_seed(self.seed))
        found = []
        with evaluating(self.trained), autocast(split.labels.device, self.plain.settings.precision):
            for rows, images, negatives in _with_negatives(split, drawn):
                found.append(self._compare(images, negatives, drawn, rows)[1].detach())
        return float(torch.cat(found).double().mean())

    def _compare(self, images: Tensor, negatives: Tensor, drawn: Drawn, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the images [B, K], and how inconsistent the maps of their targets are [B]."""
        targets, quadrants = (values[rows].to(images.device) for values in (drawn.targets_N, drawn.quadrants_N))
        four = composites(images, negatives.reshape(-1, NEGATIVES, *images.shape[1:]), quadrants)
        if images.is_contiguous(memory_format=torch.channels_last):
            four = four.contiguous(memory_format=torch.channels_last)
        logits, maps = self._maps(images, targets)
        _, maps_of_four = self._maps(four, targets)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        loss_B = consistency_loss(maps, maps_of_four, quadrants, size, self.settings.compat)
        return logits, loss_B.where(targets >= 0, 0.0)

    def _maps(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), recording(self.trained, self.layer, images, keep_graph=True) as recorded:
            logits = self.trained(images)
            scores = logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]
            return logits, class_maps(recorded.outputs[0], scores, partial(recorded.grid, self.layer))


def _with_negatives(split: Split, drawn: Drawn) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows, images and negatives of a whole split, some at a time."""
    count, step = len(drawn.targets_N), max(1, evaluation_batch(split) // 8)
    places = [
        Pass(index, 0, start, min(start + step, count), 1.0, first=True, last=True)
        for index, start in enumerate(range(0, count, step))
    ]
    order = torch.arange(count)
    rows, bounds = Reading(order, drawn.negatives_N3).plan(places)
    for place, (images, _) in zip(places, split.batches(rows, bounds), strict=True):
        own = place.stop - place.start
        yield order[place.start : place.stop], images[:own], images[own:]
