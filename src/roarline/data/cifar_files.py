"""Names and places of the published CIFAR files. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class CifarFiles:
    """The published files of one of the two data sets, in their binary and their Python version.

    Attributes:
        label_bytes: Bytes before the pixels of a binary record; the last of them is the class.
    """

    name: str
    binary_folder: str
    binary_archive: str
    binary_train: tuple[str, ...]
    binary_test: tuple[str, ...]
    binary_classes: str
    label_bytes: int
    python_folder: str
    python_archive: str
    python_train: tuple[str, ...]
    python_test: tuple[str, ...]
    python_classes: str
    python_classes_key: str
    python_labels_key: str


CIFAR10 = CifarFiles(
    name="cifar10",
    binary_folder="cifar-10-batches-bin",
    binary_archive="cifar-10-binary.tar.gz",
    binary_train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    binary_test=("test_batch.bin",),
    binary_classes="batches.meta.txt",
    label_bytes=1,
    python_folder="cifar-10-batches-py",
    python_archive="cifar-10-python.tar.gz",
    python_train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    python_test=("test_batch",),
    python_classes="batches.meta",
    python_classes_key="label_names",
    python_labels_key="labels",
)

CIFAR100 = CifarFiles(
    name="cifar100",
    binary_folder="cifar-100-binary",
    binary_archive="cifar-100-binary.tar.gz",
    binary_train=("train.bin",),
    binary_test=("test.bin",),
    binary_classes="fine_label_names.txt",
    label_bytes=2,
    python_folder="cifar-100-python",
    python_archive="cifar-100-python.tar.gz",
    python_train=("train",),
    python_test=("test",),
    python_classes="meta",
    python_classes_key="fine_label_names",
    python_labels_key="fine_labels",
)


@dataclass(frozen=True)
class CifarSource:
    """Where the files of one version lie: in a folder, or unpacked nowhere, in their archive."""

    version: Literal["binary", "python"]
    path: Path
    is_archive: bool
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: str


def find(root: Path, files: CifarFiles) -> CifarSource | None:
    """The first complete version: the binary one before the Python one, a folder before an archive.

    Args:
        root: The folder that holds the published folder or archive.
    """
    versions: list[tuple[Literal["binary", "python"], str, str, tuple[str, ...], tuple[str, ...], str]] = [
        (
            "binary",
            files.binary_folder,
            files.binary_archive,
            files.binary_train,
            files.binary_test,
            files.binary_classes,
        ),
        (
            "python",
            files.python_folder,
            files.python_archive,
            files.python_train,
            files.python_test,
            files.python_classes,
        ),
    ]
    for version, folder, archive, train, test, classes in versions:
        if all((root / folder / name).is_file() for name in (*train, *test, classes)):
            return CifarSource(version, root / folder, False, folder, train, test, classes)
        if (root / archive).is_file():
            return CifarSource(version, root / archive, True, folder, train, test, classes)
    return None
