"""Small image trees and tars for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(seed: int = 0, size_px: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """A random RGB image of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size_px[1], size_px[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def tree(
    splits: Iterable[str] = ("train", "test"),
    classes: Iterable[str] = ("cat", "dog"),
    count: int = 6,
    size_px: tuple[int, int] = (8, 8),
) -> dict[str, bytes]:
    """Paths to images: ``split/class/n.png``, each with pixels of its own."""
    paths = [f"{split}/{name}/{number}.png" for split in splits for name in classes for number in range(count)]
    return {path: encoded(seed, size_px) for seed, path in enumerate(paths)}


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files in the order given."""
    for path, content in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return root


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    """Write a tar, its members in the order given."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
