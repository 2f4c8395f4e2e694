"""Keys: an artifact is named by its recipe. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinity are refused.

    Raises:
        ValueError: The value holds NaN or infinity.
        TypeError: The value holds something that JSON can't say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def artifact_key(stage: str, version: int, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """SHA-256 of the canonical recipe.

    Args:
        stage: Name of the stage.
        version: Its version, raised whenever the stage's results change.
        parameters: All that can change the result, as JSON types.
        inputs: Role to key of the artifacts that the stage reads.

    Returns:
        64 hexadecimal digits.
    """
    recipe = {"stage": stage, "version": version, "parameters": dict(parameters), "inputs": dict(inputs)}
    return hashlib.sha256(canonical_json(recipe).encode()).hexdigest()


def short(key: str) -> str:
    """The part of a key that names the artifact's folder."""
    return key[:16]
