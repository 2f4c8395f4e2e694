"""The state of an interrupted training in one file that exists only when it is whole."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import torch

from roarline.artifacts.files import atomic_path
from roarline.errors import ArtifactError

_FILE = "training.pt"
_SCHEMA_VERSION = 2
_TIMES_A_SAVE = 20.0


class Checkpoint:
    """Saves now and then, and gives back what was saved last.

    Args:
        folder: Where the file lies.
        every_s: Least time between two saves: flushing a file to disk after every epoch would cost a short training
            more than the epochs that a kill could lose; where a save takes long, it is 20 times that. When it saves
            can't change the result.
    """

    def __init__(self, folder: Path, every_s: float = 10.0) -> None:
        self.path, self.every_s, self._took_s = folder / _FILE, every_s, 0.0
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        """True where it is time to save."""
        least = max(self.every_s, _TIMES_A_SAVE * self._took_s) if self.every_s else 0.0
        return time.monotonic() - self._saved_at >= least

    def save(self, state: dict[str, Any]) -> None:
        """Replace what was saved.

        Args:
            state: Tensors, numbers, texts, lists and dictionaries.
        """
        began = time.monotonic()
        with atomic_path(self.path) as partial:
            torch.save({"schema_version": _SCHEMA_VERSION, **state}, partial)
        self._saved_at = time.monotonic()
        self._took_s = self._saved_at - began

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved last, its tensors on ``device``; None where nothing was.

        Raises:
            ArtifactError: The file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            version = state.pop("schema_version")
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise ArtifactError(
                f"{self.path}: damaged, can't be resumed from; delete it and run again to train from the start"
            ) from error
        if version != _SCHEMA_VERSION:
            raise ArtifactError(
                f"{self.path}: checkpoint schema {version}, this roarline reads {_SCHEMA_VERSION}; delete it and "
                "run again"
            )
        return state
