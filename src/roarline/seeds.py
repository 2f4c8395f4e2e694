"""Seeds: every random draw of roarline comes from a generator derived from names and indices."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from what the draw is for, e.g. ``derive_seed(0, "evaluate-roar", "init", 2)``.

    Args:
        parts: The experiment's seed, the stage, the purpose, an index; integers and strings are told apart.

    Returns:
        An integer in [0, 2**63), equal on every machine for equal parts.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
