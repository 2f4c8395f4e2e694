"""A plain PyTorch ROAR cell, in the style of the original code, written from its description.

Images and maps lie as PNG files; a data set opens both for each sample of each epoch, sorts the map, fills the pixels
and normalises; a DataLoader collates. Training, validation after each epoch, and one test. What can be taken away from
it one by one, to see what it costs: the files, the sorting, the DataLoader.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from roarline.models.small_cnn import SmallCnn

FILES, SORTING, LOADER, NOTHING = "files", "sorting", "loader", "nothing"
"""How a cell gets its pixels, from the dearest way: all three; no files; no sorting either; a resident tensor."""
_SPLITS = ("train", "validation", "test")


class Removed(Dataset[tuple[Tensor, int]]):
    """One split with pixels removed.

    Args:
        folder: ``<split>/images/*.png``, ``<split>/<method>/*.png`` in the same order, ``labels.json``.
        way: ``FILES``: opened for each sample; ``SORTING``: opened once; ``LOADER``: removed once, too.
    """

    def __init__(self, folder: Path, split: str, settings: dict[str, Any], way: str) -> None:
        self.images = sorted((folder / split / "images").glob("*.png"))
        self.maps = sorted((folder / split / settings["method"]).glob("*.png"))
        self.labels: list[int] = json.loads((folder / "labels.json").read_text())[split]
        self.settings, self.mean = settings, np.array(settings["mean"], dtype=np.float32)
        self.std = np.array(settings["std"], dtype=np.float32)
        self._opened = [self._open(row) for row in range(len(self.images))] if way != FILES else None
        self._made = [self._remove(*pair) for pair in self._opened or []] if way in (LOADER, NOTHING) else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        if self._made is not None:
            return self._made[row], self.labels[row]
        pair = self._opened[row] if self._opened is not None else self._open(row)
        return self._remove(*pair), self.labels[row]

    def _open(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        with Image.open(self.images[row]) as image, Image.open(self.maps[row]) as scores:
            return np.asarray(image.convert("RGB"), dtype=np.float32) / 255, np.asarray(scores)

    def _remove(self, image_HWC: np.ndarray, map_HW: np.ndarray) -> Tensor:
        order = np.argsort(map_HW.ravel())
        count = int(self.settings["fraction"] * order.size)
        gone = order[order.size - count :] if self.settings["mode"] == "roar" else order[:count]
        pixels = image_HWC.reshape(-1, 3).copy()
        pixels[gone] = self.mean
        normalised = (pixels.reshape(image_HWC.shape) - self.mean) / self.std
        return torch.from_numpy(normalised.transpose(2, 0, 1).copy())


class ResidentBatches:
    """Batches of a tensor: what is left of a DataLoader where everything is in memory."""

    def __init__(self, split: Removed, batch_size: int, *, shuffle: bool) -> None:
        self.images = torch.stack([split[row][0] for row in range(len(split))])
        self.labels = torch.tensor(split.labels)
        self.batch_size, self.shuffle = batch_size, shuffle

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.labels)) if self.shuffle else torch.arange(len(self.labels))
        for chosen in order.split(self.batch_size):
            yield self.images[chosen], self.labels[chosen]


class PlainCell:
    """One cell: (method, mode, fraction); each call trains anew, from the files on.

    Args:
        settings: folder, method, mode, fraction, mean, std, epochs, batch_size, lr, weight_decay, width, classes,
            threads, workers, way.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.images_trained = settings, 0
        torch.set_num_threads(settings["threads"])

    def __call__(self) -> float:
        """Test accuracy."""
        settings = self.settings
        splits = {name: Removed(Path(settings["folder"]), name, settings, settings["way"]) for name in _SPLITS}
        batches = {name: self._batches(name, split) for name, split in splits.items()}
        model = SmallCnn(settings["classes"], settings["width"])
        optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"])
        steps = settings["epochs"] * len(batches["train"])
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=steps)
        best, kept = -1.0, model.state_dict()
        for _ in range(settings["epochs"]):
            model.train()
            for images, labels in batches["train"]:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                scheduler.step()
            accuracy = _accuracy(model, batches["validation"])
            if accuracy > best:
                best, kept = accuracy, copy.deepcopy(model.state_dict())
        self.images_trained = settings["epochs"] * len(splits["train"])
        model.load_state_dict(kept)
        return _accuracy(model, batches["test"])

    def _batches(self, name: str, split: Removed) -> Any:
        train, size = name == "train", self.settings["batch_size"]
        if self.settings["way"] == NOTHING:
            return ResidentBatches(split, size if train else 4 * size, shuffle=train)
        return DataLoader(split, size if train else 4 * size, shuffle=train, num_workers=self.settings["workers"])


def _accuracy(model: nn.Module, batches: Any) -> float:
    model.eval()
    right = seen = 0
    with torch.no_grad():
        for images, labels in batches:
            right += int((model(images).argmax(dim=1) == labels).sum())
            seen += len(labels)
    return right / seen
