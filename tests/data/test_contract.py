"""Every data set that lies in files: what it says of a missing root, and of annotations that are damaged in any way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roarline.config.component import load_object
from roarline.config.datasets import DATASETS
from roarline.data.raw import MaskReader
from roarline.data.root_files import is_annotation
from roarline.errors import DataError
from tests.data import (
    test_coco,
    test_cub,
    test_food101,
    test_imagenet,
    test_listed_folder,
    test_pet,
    test_voc,
    test_wsol,
)
from tests.data.builders import tree, write_folder

IN_FILES = [name for name, component in DATASETS.items() if not component.embedded]
SHOWN_ELSEWHERE = {"cifar10", "cifar100"}  # these are downloaded; see test_cifar.py

Layout = tuple[Callable[[], dict[str, bytes]], dict[str, Any]]
LAYOUTS: dict[str, Layout] = {
    "image_folder": (
        lambda: {**tree(count=1), "boxes.csv": b"split,file,x0,y0,x1,y1\ntest,cat/0.png,0,0,3,3\n"},
        {"boxes": "boxes.csv"},
    ),
    "imagenet": (
        lambda: {**test_imagenet.FLAT, **test_imagenet.XMLS, "classes.csv": test_imagenet.TABLE},
        {"boxes": "Annotations"},
    ),
    "voc": (test_voc.layout, {}),
    "coco": (test_coco.layout, {"unannotated": "keep"}),
    "cub": (test_cub.layout, {"segmentation": "segmentations"}),
    "pet": (test_pet.layout, {}),
    "food101": (test_food101.layout, {}),
    "listed_folder": (test_listed_folder.layout, {"boxes": "images.txt"}),
    "wsol": (lambda: test_wsol.layout(test_wsol.MASKS), {}),
}


def _read(name: str, root: Path | None, params: dict[str, Any]) -> None:
    """Read everything that a data set has."""
    component = DATASETS[name]
    raw = component.load()(root, component.params.model_validate(params), 0)
    raw.check()
    if isinstance(raw.segmentation, MaskReader):
        for row in range(len(raw)):
            raw.segmentation.read(row)


def test_every_data_set_is_tested() -> None:
    assert set(LAYOUTS) | SHOWN_ELSEWHERE == set(IN_FILES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"data set '{name}': set data\.root to a folder or tar with "):
        _read(name, None, {})
    with pytest.raises(DataError, match="nowhere: no such folder or tar"):
        _read(name, tmp_path / "nowhere", {})
    with pytest.raises(DataError, match="expected "):
        _read(name, write_folder(tmp_path, {"notes.txt": b"nothing"}), {})


@pytest.mark.parametrize("name", IN_FILES)
def test_there_is_no_fingerprint_of_nothing(tmp_path: Path, name: str) -> None:
    fingerprint = load_object(DATASETS[name].fingerprint)
    assert fingerprint(None, {}) is None
    assert fingerprint(str(tmp_path), {}) is None
    assert fingerprint(str(tmp_path / "nowhere"), {}) is None


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_annotation_is_in_the_fingerprint(tmp_path: Path, name: str) -> None:
    layout, params = LAYOUTS[name]
    files = layout()
    params = DATASETS[name].params.model_validate(params).model_dump(exclude_none=True)
    fingerprint = load_object(DATASETS[name].fingerprint)
    before = fingerprint(str(write_folder(tmp_path, files)), params)
    assert before is not None
    for path in files:
        if is_annotation(path) and "captions" not in path:
            (tmp_path / path).write_bytes(files[path] + b" ")
            assert fingerprint(str(tmp_path), params) != before, path
            (tmp_path / path).write_bytes(files[path])
    assert fingerprint(str(tmp_path), params) == before


def _damaged(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    kind = draw.randrange(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    if kind == 2:
        lines = content.splitlines(keepends=True)
        return b"".join(line for line in lines if draw.random() < 0.7)
    return (
        content[:place]
        + draw.choice([b"-1", b"99999999999", b"nan", b",", b" ", b"\n", b"[]", b"null", b'"'])
        + content[place:]
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_annotations_are_read_or_refused_and_nothing_else(tmp_path: Path, name: str) -> None:
    """Whatever happens to a file: a data set that checks, or an error that says which, never a traceback."""
    layout, params = LAYOUTS[name]
    files, draw = layout(), random.Random(name)
    write_folder(tmp_path, files)
    _read(name, tmp_path, params)
    damageable = sorted(path for path, content in files.items() if content and (is_annotation(path) or "png" in path))
    refused = 0
    for _ in range(60):
        path = draw.choice(damageable)
        (tmp_path / path).write_bytes(_damaged(files[path], draw))
        try:
            _read(name, tmp_path, params)
        except DataError:
            refused += 1
        (tmp_path / path).write_bytes(files[path])
    assert refused
