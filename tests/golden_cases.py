"""Golden cases: arrays by name, and their parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "golden"


def case(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and parameters of a case; never unpickled."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("params")))


def unpacked(bits: np.ndarray, *shape: int) -> np.ndarray:
    """bool, from ``np.packbits`` along the last axis."""
    return np.unpackbits(bits, axis=-1).reshape(shape).astype(bool)
