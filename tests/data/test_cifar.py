"""CIFAR in the layouts in which it is published, with few images."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets
from torchvision.datasets import utils

from roarline.config.component import NoParams, load_object
from roarline.config.datasets import DATASETS
from roarline.data import cifar, fingerprint
from roarline.data.cifar import read_cifar10, read_cifar100
from roarline.data.cifar_files import CIFAR10, CIFAR100, CifarFiles
from roarline.data.raw import RawDataset
from roarline.errors import DataError
from tests.data.builders import write_folder, write_tar

READERS: list[tuple[CifarFiles, Callable[..., RawDataset], Any]] = [
    (CIFAR10, read_cifar10, datasets.CIFAR10),
    (CIFAR100, read_cifar100, datasets.CIFAR100),
]
IDS = ["cifar10", "cifar100"]


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in C can't be overridden so far
    """Writes what the published files hold: byte strings, NumPy's old module name, 0 and 1 for the dtype's flags."""

    dispatch = pickle._Pickler.dispatch.copy()  # type: ignore[attr-defined]

    def save_string(self, obj: str | bytes) -> None:
        content = obj if isinstance(obj, bytes) else obj.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(obj)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__name__", "") == "_reconstruct":
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.dtype):
            return np.dtype, (obj.str[1:], 0, 1), obj.__reduce__()[2]
        return NotImplemented


def _python2(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def _samples(files: CifarFiles) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Binary file name to labels and pixels; a few images each."""
    rng = np.random.default_rng(0)
    names = (*files.binary_train, *files.binary_test)
    return {name: (rng.integers(0, 10, 3), rng.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)) for name in names}


def _binary(files: CifarFiles) -> dict[str, bytes]:
    contents = {files.binary_classes: "".join(f"class_{number}\n" for number in range(10)).encode() + b"\n"}
    for name, (labels, pixels) in _samples(files).items():
        records = [
            bytes([7] * (files.label_bytes - 1) + [int(label)]) + image.tobytes()
            for label, image in zip(labels, pixels, strict=True)
        ]
        contents[name] = b"".join(records)
    return {f"{files.binary_folder}/{name}": content for name, content in contents.items()}


def _python(files: CifarFiles) -> dict[str, bytes]:
    contents = {files.python_classes: _python2({files.python_classes_key: [f"class_{number}" for number in range(10)]})}
    names = (*files.python_train, *files.python_test)
    for name, (labels, pixels) in zip(names, _samples(files).values(), strict=True):
        contents[name] = _python2({"data": pixels.reshape(3, -1), files.python_labels_key: labels.tolist()})
    return {f"{files.python_folder}/{name}": content for name, content in contents.items()}


def _publish(monkeypatch: pytest.MonkeyPatch, published: Any, contents: dict[str, bytes]) -> None:
    """Let torchvision's table have the MD5s of these contents."""
    md5 = {path.rpartition("/")[2]: hashlib.md5(content).hexdigest() for path, content in contents.items()}
    for table in ("train_list", "test_list"):
        monkeypatch.setattr(published, table, [[name, md5[name]] for name, _ in getattr(published, table)])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": md5[published.meta["filename"]]})


def _check(raw: RawDataset, files: CifarFiles) -> None:
    raw.check()
    samples = list(_samples(files).values())
    assert raw.class_names == [f"class_{number}" for number in range(10)]
    assert raw.labels.tolist() == np.concatenate([labels for labels, _ in samples]).tolist()
    assert np.array_equal(np.asarray(raw.images), np.concatenate([pixels for _, pixels in samples]))
    train = 3 * len(files.binary_train)
    assert raw.splits == ["train"] * train + ["test"] * 3
    assert raw.sample_ids[train - 1 :] == [f"train/{train - 1:05d}", "test/00000", "test/00001", "test/00002"]


@pytest.mark.parametrize(("files", "read", "published"), READERS, ids=IDS)
def test_the_binary_version_is_read_without_unpickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: CifarFiles, read: Any, published: Any
) -> None:
    monkeypatch.setattr(cifar, "_unpickle", None)
    _check(read(write_folder(tmp_path, _binary(files)), NoParams(), 0), files)
    archive = tmp_path / "archive"
    archive.mkdir()
    write_tar(archive / files.binary_archive, _binary(files), "w:gz")
    _check(read(archive, NoParams(), 0), files)


@pytest.mark.parametrize(("files", "read", "published"), READERS, ids=IDS)
def test_the_python_version_is_read_unpacked_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: CifarFiles, read: Any, published: Any
) -> None:
    contents = _python(files)
    _publish(monkeypatch, published, contents)
    _check(read(write_folder(tmp_path, contents), NoParams(), 0), files)
    archive = tmp_path / "archive"
    archive.mkdir()
    write_tar(archive / files.python_archive, contents, "w:gz")
    _check(read(archive, NoParams(), 0), files)


def test_a_changed_file_of_the_python_version_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    write_folder(tmp_path, _python(CIFAR10))
    with pytest.raises(
        DataError, match=r"data_batch_1: MD5 [0-9a-f]{32}, the published file has c99cafc152244af753f735de768cd75f"
    ):
        read_cifar10(tmp_path, NoParams(), 0)


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("this must not be printed",)


def test_nothing_is_executed_from_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = _python(CIFAR100) | {f"{CIFAR100.python_folder}/test": pickle.dumps({"data": _Evil()}, protocol=2)}
    _publish(monkeypatch, datasets.CIFAR100, contents)
    with pytest.raises(DataError, match=r"refuses to load __builtin__\.print"):
        read_cifar100(write_folder(tmp_path, contents), NoParams(), 0)
    assert "must not" not in capsys.readouterr().out


def test_a_truncated_binary_file_is_named(tmp_path: Path) -> None:
    contents = _binary(CIFAR10)
    contents["cifar-10-batches-bin/test_batch.bin"] += b"x"
    with pytest.raises(DataError, match=r"test_batch\.bin: 9220 bytes, no multiple of 3073"):
        read_cifar10(write_folder(tmp_path, contents), NoParams(), 0)


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / CIFAR10.python_archive, {"readme.txt": b""}, "w:gz")
    with pytest.raises(DataError, match="has no cifar-10-batches-py/data_batch_1; is it the published archive"):
        read_cifar10(tmp_path, NoParams(), 0)


def test_missing_files_are_downloaded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = _python(CIFAR10)
    _publish(monkeypatch, datasets.CIFAR10, contents)

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        assert (url, md5) == (datasets.CIFAR10.url, datasets.CIFAR10.tgz_md5)
        write_tar(Path(root) / filename, contents, "w:gz")

    monkeypatch.setattr(utils, "download_url", download_url)
    load_object(DATASETS["cifar10"].obtain)(tmp_path / "new")
    assert fingerprint.cifar10(str(tmp_path / "new"), {}) is not None
    monkeypatch.setattr(utils, "download_url", None)  # once is enough
    _check(read_cifar10(tmp_path / "new", NoParams(), 0), CIFAR10)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CIFAR10.python_archive]


@pytest.mark.parametrize("failure", [urllib.error.URLError("no network"), RuntimeError("File not found or corrupted.")])
def test_without_a_network_it_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def download_url(*arguments: Any) -> None:
        (Path(arguments[1]) / arguments[2]).write_bytes(b"half of it")
        raise failure

    monkeypatch.setattr(utils, "download_url", download_url)
    with pytest.raises(DataError, match=r"can't be downloaded \(.*\); put cifar-10-python\.tar\.gz or .* by hand"):
        read_cifar10(tmp_path, NoParams(), 0)
    assert not list(tmp_path.iterdir())


def test_a_missing_root_setting_is_said() -> None:
    with pytest.raises(DataError, match=r"'cifar100': set data\.root"):
        read_cifar100(None, NoParams(), 0)


def test_an_unreadable_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / CIFAR10.python_archive).write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(DataError, match="can't be read as a tar"):
        read_cifar10(tmp_path, NoParams(), 0)
