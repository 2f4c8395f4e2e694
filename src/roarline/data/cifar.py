"""The data sets ``cifar10`` and ``cifar100``: 32×32 px, 50,000 training and 10,000 test images.

The published Python version is made of pickles, and loading a pickle can run code. So the binary version is taken where
it lies beside it; the Python version's files must have the published MD5, which torchvision knows, and are then read by
an unpickler that can make nothing but arrays, lists, dictionaries, numbers and strings.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from roarline.config.component import NoParams
from roarline.data.archives import read_members
from roarline.data.cifar_files import CIFAR10, CIFAR100, CifarFiles, CifarSource, find
from roarline.data.raw import RawDataset
from roarline.errors import DataError

_PIXELS = 3 * 32 * 32


def read_cifar10(root: Path | None, params: NoParams, seed: int) -> RawDataset:
    """CIFAR-10, downloaded into the root where it isn't there and there is a network.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".

    Raises:
        DataError: The files are missing and can't be downloaded, or are not the published ones.
    """
    return _read(root, CIFAR10)


def read_cifar100(root: Path | None, params: NoParams, seed: int) -> RawDataset:
    """CIFAR-100 with its fine labels; as ``read_cifar10``."""
    return _read(root, CIFAR100)


def obtain_cifar10(root: Path) -> None:
    """Download CIFAR-10 into the root.

    Raises:
        DataError: There is no network, or the folder can't be written.
    """
    _download(root, CIFAR10)


def obtain_cifar100(root: Path) -> None:
    """Download CIFAR-100; as ``obtain_cifar10``."""
    _download(root, CIFAR100)


def _read(root: Path | None, files: CifarFiles) -> RawDataset:
    if root is None:
        raise DataError(f"data set {files.name!r}: set data.root to the folder that has, or shall have, its files")
    source = find(root, files)
    if source is None:
        _download(root, files)
        source = find(root, files)
    if source is None:
        raise DataError(f"{root}: neither {files.binary_folder} nor {files.python_folder} nor their archives")
    contents = _contents(source)
    if source.version == "binary":
        class_names = contents[source.classes].decode("utf-8", "replace").split()
        parts = {
            name: _binary(source, name, contents[name], files.label_bytes) for name in (*source.train, *source.test)
        }
    else:
        published = _published_md5(files)
        for name, content in contents.items():
            _check_md5(source, name, content, published[name])
        class_names = _names(source, _unpickle(source, source.classes, contents[source.classes]), files)
        parts = {name: _python(source, name, contents[name], files) for name in (*source.train, *source.test)}
    sizes = [sum(len(parts[name][0]) for name in names) for names in (source.train, source.test)]
    return RawDataset(
        name=files.name,
        class_names=class_names,
        sample_ids=[
            f"{split}/{row:05d}" for split, size in zip(("train", "test"), sizes, strict=True) for row in range(size)
        ],
        splits=["train"] * sizes[0] + ["test"] * sizes[1],
        labels=np.concatenate([labels for labels, _ in parts.values()]),
        images=np.concatenate([pixels for _, pixels in parts.values()]),
    )


def _download(root: Path, files: CifarFiles) -> None:
    """Fetch the archive of the Python version (torchvision's address and MD5): whole or not at all."""
    from torchvision.datasets.utils import download_url

    published = _torchvision_class(files)
    advice = f"put {files.python_archive} or {files.binary_archive} into {root} by hand ({published.url})"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            download_url(published.url, folder, files.python_archive, published.tgz_md5)
            (Path(folder) / files.python_archive).replace(root / files.python_archive)
    except (OSError, HTTPException, RuntimeError) as error:
        raise DataError(
            f"data set {files.name!r}: not in {root}, and can't be downloaded ({error}); {advice}"
        ) from error


def _torchvision_class(files: CifarFiles) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[files.name]


def _published_md5(files: CifarFiles) -> dict[str, str]:
    published = _torchvision_class(files)
    meta = (published.meta["filename"], published.meta["md5"])
    return dict((*published.train_list, *published.test_list, meta))


def _contents(source: CifarSource) -> dict[str, bytes]:
    names = (*source.train, *source.test, source.classes)
    if source.is_archive:
        found = read_members(source.path, {f"{source.folder}/{name}" for name in names})
        contents = {path.rpartition("/")[2]: content for path, content in found.items()}
    else:
        contents = {name: (source.path / name).read_bytes() for name in names}
    missing = [name for name in names if name not in contents]
    if missing:
        raise DataError(f"{source.path}: has no {source.folder}/{missing[0]}; is it the published archive?")
    return contents


def _binary(source: CifarSource, name: str, content: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    record = label_bytes + _PIXELS
    if not content or len(content) % record:
        raise DataError(f"{source.path}: {name}: {len(content)} bytes, no multiple of {record}: truncated or damaged")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    return records[:, label_bytes - 1].astype(np.int64), records[:, label_bytes:].reshape(-1, 3, 32, 32)


def _python(source: CifarSource, name: str, content: bytes, files: CifarFiles) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickle(source, name, content)
    try:
        labels = np.asarray(batch[files.python_labels_key], dtype=np.int64)
        pixels = np.asarray(batch["data"], dtype=np.uint8).reshape(len(labels), 3, 32, 32)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source.path}: {name}: not a CIFAR batch ({error})") from error
    return labels, pixels


def _names(source: CifarSource, meta: Any, files: CifarFiles) -> list[str]:
    try:
        return [str(name) for name in meta[files.python_classes_key]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{source.path}: {source.classes}: no {files.python_classes_key} ({error})") from error


def _check_md5(source: CifarSource, name: str, content: bytes, expected: str) -> None:
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != expected:
        raise DataError(
            f"{source.path}: {name}: MD5 {got}, the published file has {expected}: damaged or changed; "
            "delete it, so that it is downloaded again"
        )


def _unpickle(source: CifarSource, name: str, content: bytes) -> Any:
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{source.path}: {name}: not a CIFAR batch ({error})") from error


def _dtype(name: str, align: Any = False, copy: Any = False) -> np.dtype[Any]:
    return np.dtype(name, bool(align), bool(copy))  # the published pickles say 0 and 1, which NumPy warns of


class _ArraysOnly(pickle.Unpickler):
    """Can make plain Python values and NumPy arrays, and nothing else.

    Source: Python's documentation of pickle, "Restricting Globals".
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"refuses to load {module}.{name}")
