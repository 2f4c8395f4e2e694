"""Fingerprints of raw data for the keys of artifacts: None where the data is missing.

Imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roarline.artifacts.files import file_sha256
from roarline.config.dataset_params import CocoParams
from roarline.data.cifar_files import CIFAR10, CIFAR100, CifarFiles, find
from roarline.data.listing import is_class_table, is_image, scan_folder
from roarline.data.raw import RawFile
from roarline.data.root_files import is_annotation

# Folders up to this are read whole at every start, in well under a second.
_READ_FILES = 20_000
_READ_BYTES = 512 * 2**20


def digits(root: str | None, params: Mapping[str, Any]) -> str | None:
    """SHA-256 of scikit-learn's data file, found without importing scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    return f"sha256:{file_sha256(path)}" if path.is_file() else None


def drawn(root: str | None, params: Mapping[str, Any]) -> str:
    """Drawn data has no files: parameters and seed say all; the number rises when the drawing changes."""
    return "drawn:1"


def folder_or_tar(root: str | None, params: Mapping[str, Any]) -> str | None:
    """SHA-256 of a tar; of a folder that over the paths and contents of its images, class tables and boxes.

    Differs: of a folder too large to be read at every start, images count with their sizes instead of their contents.
    """
    boxes = str(params.get("boxes") or "").strip("/")

    def told(path: str) -> bool:
        return is_class_table(path) or bool(boxes and f"/{boxes}" in f"/{path}" and is_annotation(path))

    return _files(root, told)


def annotated(root: str | None, params: Mapping[str, Any]) -> str | None:
    """As ``folder_or_tar``, over images, XML, JSON, text and tables."""
    return _files(root, is_annotation)


def coco(root: str | None, params: Mapping[str, Any]) -> str | None:
    """As ``folder_or_tar``, over images and the annotation files that the parameters name."""
    names = set(CocoParams.model_validate(params).annotation_files.values())
    return _files(root, lambda path: path.rpartition("/")[2] in names)


def _files(root: str | None, told: Callable[[str], bool]) -> str | None:
    """Over images and annotations (``told``); each of the two counts by content where it isn't too large."""
    if root is None:
        return None
    path = Path(root)
    if path.is_file():
        return f"sha256:{file_sha256(path)}"
    entries = sorted(scan_folder(path, lambda name: is_image(name) or told(name))) if path.is_dir() else []
    if not any(is_image(entry.path) for entry in entries):
        return None
    whole = _is_small(entries)
    read = whole or _is_small([entry for entry in entries if told(entry.path)])
    digest = hashlib.sha256()
    for entry in entries:
        said = file_sha256(path / entry.path) if whole or (read and told(entry.path)) else str(entry.size)
        digest.update(f"{entry.path}\0{said}\0".encode("utf-8", "surrogateescape"))
    return f"{'contents' if whole else 'listing'}:{digest.hexdigest()}"


def _is_small(entries: Sequence[RawFile]) -> bool:
    return len(entries) <= _READ_FILES and sum(entry.size for entry in entries) <= _READ_BYTES


def any_files(root: str | None) -> str | None:
    """As ``folder_or_tar``, over every file: for a data set of the user's own; "" where it has no root."""
    if root is None:
        return ""
    path = Path(root)
    if path.is_file():
        return f"sha256:{file_sha256(path)}"
    if not path.is_dir():
        return None
    files = sorted(found for found in path.rglob("*") if found.is_file())
    sizes = [found.stat().st_size for found in files]
    whole = len(files) <= _READ_FILES and sum(sizes) <= _READ_BYTES
    digest = hashlib.sha256()
    for found, size in zip(files, sizes, strict=True):
        said = file_sha256(found) if whole else str(size)
        digest.update(f"{found.relative_to(path).as_posix()}\0{said}\0".encode("utf-8", "surrogateescape"))
    return f"{'contents' if whole else 'listing'}:{digest.hexdigest()}"


def imagenet(root: str | None, params: Mapping[str, Any]) -> str | None:
    """As ``folder_or_tar``."""
    return folder_or_tar(root, params)


def cifar10(root: str | None, params: Mapping[str, Any]) -> str | None:
    """SHA-256 of the archive, or over the unpacked files."""
    return _cifar(root, CIFAR10)


def cifar100(root: str | None, params: Mapping[str, Any]) -> str | None:
    """SHA-256 of the archive, or over the unpacked files."""
    return _cifar(root, CIFAR100)


def _cifar(root: str | None, files: CifarFiles) -> str | None:
    source = find(Path(root), files) if root is not None else None
    if source is None:
        return None
    if source.is_archive:
        return f"sha256:{file_sha256(source.path)}"
    digest = hashlib.sha256()
    for name in (*source.train, *source.test):
        digest.update(f"{name}\0{file_sha256(source.path / name)}\0".encode())
    return f"files:{digest.hexdigest()}"
