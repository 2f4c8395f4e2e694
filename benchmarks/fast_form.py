"""The accuracy of a retrained cell in the fast form, bfloat16 and channels-last, beside that in float32.

A small cell on drawn images with half of their pixels replaced: trained so many times in each form, from the same
initialisations and by the same batch orders. That the fast form is as accurate means: the 95 % interval of the
difference of mean test accuracies (Welch's) holds 0, or the difference is within float32's own interval (Student's).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.harness import Measurement, Options, timed
from roarline.config.dataset_params import ShapesParams
from roarline.config.training import TrainCls
from roarline.data.shapes import SHAPES, Drawing
from roarline.imaging.fills import fill_image
from roarline.imaging.ranking import rank_pixels
from roarline.imaging.removal import remove
from roarline.models.build import build
from roarline.training.batches import ResidentSplit
from roarline.training.classification import train
from roarline.training.evaluate import evaluate

FAST: dict[str, Any] = {"precision": "bfloat16", "channels_last": True}
PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False}
_CONFIDENCE, _REMOVED = 0.95, 0.5
_MEAN, _STD = [0.5], [0.25]


@dataclass(frozen=True)
class Cell:
    """What is trained, and how often in each form."""

    arch: str = "resnet8"
    side_px: int = 32
    train: int = 4_096
    test: int = 2_048
    batch_size: int = 256
    epochs: int = 6
    repeats: int = 5


CELL = Cell()
QUICK_CELL = Cell(train=512, test=256, epochs=2, repeats=2)


@dataclass(frozen=True)
class Forms:
    """Test accuracies of the repeats in each form."""

    fast: Sequence[float]
    plain: Sequence[float]

    @property
    def difference(self) -> float:
        """Mean of the fast form less that of float32."""
        return statistics.fmean(self.fast) - statistics.fmean(self.plain)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference, where the variances may differ; a point where no repeat differs from another."""
        one, two = (statistics.variance(form) / len(form) for form in (self.fast, self.plain))
        if one + two == 0:
            return self.difference, self.difference
        degrees = (one + two) ** 2 / (one**2 / (len(self.fast) - 1) + two**2 / (len(self.plain) - 1))
        half = _quantile(degrees) * math.sqrt(one + two)
        return self.difference - half, self.difference + half

    @property
    def plain_half_width(self) -> float:
        """Of the interval of float32's mean."""
        count = len(self.plain)
        return _quantile(count - 1) * statistics.stdev(self.plain) / math.sqrt(count)

    @property
    def agree(self) -> bool:
        """True where the fast form is as accurate."""
        low, high = self.interval
        return low <= 0 <= high or abs(self.difference) <= self.plain_half_width

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"test accuracy {statistics.fmean(self.fast):.4f} against {statistics.fmean(self.plain):.4f} ± "
            f"{self.plain_half_width:.4f} in float32, difference {self.difference:+.4f} ({low:+.4f} to {high:+.4f}), "
            f"{len(self.fast)} repeats, intervals of {_CONFIDENCE:.0%}"
        )


def _quantile(degrees: float) -> float:
    """Student's, of both tails."""
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, degrees))


def measured(cell: Cell, options: Options) -> Measurement:
    """How much faster the fast form is, with the accuracies as a note; forms take turns, one repeat each."""
    splits = {name: _split(cell, name, options.device) for name in ("train", "test")}
    seconds: dict[str, list[float]] = {"fast": [], "plain": []}
    accuracies: dict[str, list[float]] = {"fast": [], "plain": []}
    _accuracy(cell, splits, FAST, 0)  # untimed: the first training of a process
    for repeat in range(cell.repeats):
        for name, form in (("fast", FAST), ("plain", PLAIN))[:: 1 if repeat % 2 == 0 else -1]:
            seconds[name].append(
                timed(
                    lambda name=name, form=form, repeat=repeat: accuracies[name].append(  # type: ignore[misc]
                        _accuracy(cell, splits, form, repeat)
                    ),
                    options.device,
                )
            )
    forms = Forms(accuracies["fast"], accuracies["plain"])
    return Measurement(
        hot_path="gpu, fast form",
        network=cell.arch,
        setting=f"{cell.side_px} px, bfloat16, channels-last against float32, contiguous",
        images=cell.train,
        passes=cell.train * cell.epochs,
        pass_kind="training image",
        bare_choice="float32, contiguous",
        goal=None,
        ours_s=seconds["fast"],
        bare_s=seconds["plain"],
        note=str(forms),
        holds=forms.agree,
    )


def _accuracy(cell: Cell, splits: dict[str, ResidentSplit], form: dict[str, Any], repeat: int) -> float:
    """Of one network on the test split, once it is trained."""
    settings = TrainCls.model_validate(
        {
            "epochs": cell.epochs, "batch_size": cell.batch_size, "scheduler": {"name": "one_cycle"},
            "optimizer": {"name": "adam", "lr": 3e-3}, **form,
        }
    )  # fmt: skip
    size = (cell.side_px, cell.side_px)
    model = build(cell.arch, {}, len(SHAPES), input_size=size, seed=repeat).to(splits["train"].labels.device)
    train(model, splits["train"], None, settings, seed=repeat)
    return evaluate(model, splits["test"], precision=settings.precision).accuracy


def _split(cell: Cell, name: str, device: str) -> ResidentSplit:
    """Drawn images of one shape each, half of their pixels replaced in a random order."""
    drawing = Drawing(ShapesParams(size_px=cell.side_px, train=cell.train, test=cell.test, max_shapes=1), seed=0)
    rows = range(cell.train) if name == "train" else range(cell.train, cell.train + cell.test)
    pixels = torch.from_numpy(np.stack([drawing.image(row) for row in rows])).to(device)
    labels = torch.tensor([drawing.layout(row).kinds[0] for row in rows], device=device)
    images = (pixels.float() / 255 - _MEAN[0]) / _STD[0]
    generator = torch.Generator().manual_seed(len(rows))
    maps = torch.rand(len(rows), cell.side_px, cell.side_px, generator=generator).to(device)
    ranks = rank_pixels(maps, range(len(rows)))
    fill = fill_image(images, "mean", _MEAN, _STD, fill_mean=_MEAN)
    altered = remove(images, ranks, round(_REMOVED * cell.side_px**2), fill)
    return ResidentSplit(altered, labels)
