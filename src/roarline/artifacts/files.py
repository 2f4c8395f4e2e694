"""Files that exist only when they are whole: write aside, flush, rename; hash. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from roarline.errors import ArtifactError, RoarlineError, UserInputError

PARTIAL_SUFFIX = ".partial"
WORK, OUT = ".work", "out"
_FULL_BELOW_BYTES = 2**20


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; on success flush it and rename it to ``target``.

    A file of an artifact in the making is flushed when that is published, and not before.

    Raises:
        ArtifactError: The disk is full or the folder can't be written.
    """
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=PARTIAL_SUFFIX, dir=target.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(0o666 & ~_umask())
            if not in_the_making(target):
                flush(partial)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        if not in_the_making(target):
            flush(target.parent)


def in_the_making(path: Path) -> bool:
    """True for what lies in the output folder of an artifact that isn't published."""
    return path.parent.name == OUT and WORK in path.parts


@contextlib.contextmanager
def writing_to(target: Path, *beside: Path) -> Iterator[None]:
    """Turn write errors into one clear message; others pass through, as do errors of files in other folders.

    Args:
        target: What is written; errors in its folder are told.
        beside: So are those in the folders of these.
    """
    try:
        yield
    except RoarlineError:
        raise
    except Exception as error:
        code = _errno_of(error, target)
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise ArtifactError(
                f"{target}: the disk is full; free some space (`roarline gc` drops unused artifacts) and run again: "
                "what was finished is kept"
            ) from error
        refused = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
        if code in refused and _concerns(error, [target, *beside]):
            raise ArtifactError(
                f"{target}: can't write here ({os.strerror(code or 0)}); "
                "make the folder writable, or set runtime.artifacts to another"
            ) from error
        raise


def make_output_folder(folder: Path) -> None:
    """Make the folder that ``--output`` names, and try to write in it before any work is done.

    Raises:
        UserInputError: It can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserInputError(
            f"{folder}: can't write here ({error.strerror}); give another folder with --output"
        ) from error


def flush(path: Path) -> None:
    """Ask the operating system to put a file, or a folder's entries, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems can't flush a folder
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: The file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing") from error
    except OSError as error:
        raise ArtifactError(f"{path}: can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: damaged, not valid JSON ({error}); delete its folder and run again") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _concerns(error: Exception, targets: Sequence[Path]) -> bool:
    """False where the error is of a file elsewhere, one that a user's own code couldn't read, say."""
    named = getattr(error, "filename", None)
    if named is None:
        found = re.search(r"name = '([^']*)'", str(error))  # HDF5 says it in words
        named = found.group(1) if found else None
    if not isinstance(named, (str, os.PathLike)):
        return True
    path = Path(named).resolve()
    folders = [target.resolve().parent for target in targets]
    return any(folder in (path, *path.parents) or path in folder.parents for folder in folders)


def _errno_of(error: Exception, target: Path) -> int | None:
    """Why a write failed: libraries say it as OSError, only in words (HDF5, safetensors), or not at all (torch)."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
        if f"errno = {code}," in text or f"os error {code})" in text or os.strerror(code) in text:
            return code
    folder = next((parent for parent in target.parents if parent.is_dir()), None)
    if (
        isinstance(error, RuntimeError)
        and "writ" in text
        and folder
        and shutil.disk_usage(folder).free < _FULL_BELOW_BYTES
    ):
        return errno.ENOSPC
    return None
